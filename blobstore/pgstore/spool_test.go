package pgstore_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
)

// execute runs SQL as the superuser.
func execute(t *testing.T, url, sql string, args ...any) {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	if _, err := admin.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// endSession has a user's token not be known any more, until renewSession.
func endSession(t *testing.T, url string, user auth.UserID) {
	t.Helper()
	execute(t, url, "update mediafs.accounts set token_hash = sha256(user_id::bytea) where user_id = $1", string(user))
}

func renewSession(t *testing.T, url string, session auth.Session) {
	t.Helper()
	execute(t, url, "update mediafs.accounts set token_hash = sha256($2::bytea) where user_id = $1", string(session.User), []byte(session.Token.Reveal()))
}

// detachable opens a drive that the test closes.
func detachable(t *testing.T, url string, session auth.Session, folder string) *pgstore.Drive {
	t.Helper()
	store, err := pgstore.Open(t.Context(), url, pgstore.Options{Spool: folder})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	drive, err := store.Open(t.Context(), session)
	if err != nil {
		t.Fatal(err)
	}
	return drive.(*pgstore.Drive)
}

// spooled are the files in a spool.
func spooled(t *testing.T, folder string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(folder, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(names, func(name string) bool { return filepath.Base(filepath.Dir(name)) == "mounts" }) // say who lives
}

// spoolCopy is what a killed mount would leave of a spool: the same files, locked by nobody.
func spoolCopy(t *testing.T, folder string) string {
	t.Helper()
	twin := filepath.Join(t.TempDir(), "spool")
	for _, name := range spooled(t, folder) {
		rel, _ := filepath.Rel(folder, name)
		data, err := os.ReadFile(name)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(twin, rel)), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(twin, rel), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return twin
}

func content(t *testing.T, d *pgstore.Drive, parent blobstore.Ino, name string) []byte {
	t.Helper()
	attr, err := d.Lookup(t.Context(), parent, name)
	if err != nil {
		t.Fatal(err)
	}
	file, err := d.Open(t.Context(), attr.Ino, blobstore.OpenRead)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []byte
	for {
		p := read(t, file, 1<<20, int64(len(all)))
		if len(p) == 0 {
			return all
		}
		all = append(all, p...)
	}
}

// found are the contents of the files in lost+found.
func found(t *testing.T, d *pgstore.Drive) [][]byte {
	t.Helper()
	folder, err := d.Lookup(t.Context(), blobstore.RootIno, "lost+found")
	if errors.Is(err, blobstore.ErrNotExist) {
		return nil
	} else if err != nil {
		t.Fatal(err)
	}
	dir, err := d.OpenDir(t.Context(), folder.Ino)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var names []string
	err = dir.Read(t.Context(), 0, false, func(e *blobstore.Entry) bool {
		if !strings.HasPrefix(e.Name, ".") {
			names = append(names, e.Name)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for _, name := range names {
		all = append(all, content(t, d, folder.Ino, name))
	}
	return all
}

func TestWhatAnEndedSessionCouldNotStoreIsStoredAtTheNextSignIn(t *testing.T) {
	url, folder := newStore(t), filepath.Join(t.TempDir(), "spool")
	session := signIn(t, url, "alice")
	d := detachable(t, url, session, folder)
	want := map[string][]byte{}
	for i, size := range []int{1, 65536, 70_000, 5<<20 + 77} {
		name := string(rune('a' + i))
		file, _ := create(t, d, name)
		old := noise(size, uint64(i))
		write(t, file, old, 0)
		if err := file.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		want[name] = old
	}
	for i := range 30 { // holes, partial extents, and a tail
		name := string(rune('a' + i%4))
		attr, err := d.Lookup(t.Context(), blobstore.RootIno, name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := d.Open(t.Context(), attr.Ino, writable)
		if err != nil {
			t.Fatal(err)
		}
		patch, off := noise(1+i*997, uint64(100+i)), i*40_009
		write(t, file, patch, int64(off))
		if end := off + len(patch); end > len(want[name]) {
			want[name] = append(want[name], make([]byte, end-len(want[name]))...)
		}
		copy(want[name][off:], patch)
		t.Cleanup(func() { _ = file.Close() })
	}
	endSession(t, url, "alice")
	if err := d.Close(t.Context()); !errors.Is(err, blobstore.ErrKept) || !errors.Is(err, auth.ErrInvalid) || !strings.Contains(err.Error(), folder) {
		t.Fatalf("close: got %v, want %v with the reason and the folder", err, blobstore.ErrKept)
	}
	for _, name := range spooled(t, folder) {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got %v, %v, want mode 0600", name, info.Mode(), err)
		}
	}
	bob := signIn(t, url, "bob")
	if err := detachable(t, url, bob, folder).Close(t.Context()); err != nil {
		t.Error(err)
	}
	if got := len(spooled(t, folder)); got != 1 {
		t.Fatalf("after another user's sign-in: got %d files, want 1", got)
	}
	twin := spoolCopy(t, folder)
	renewSession(t, url, session)
	for round, folder := range []string{folder, twin} { // the second time as after a crash between storing and removing
		d := detachable(t, url, session, folder)
		for name, bytesWant := range want {
			if !bytes.Equal(content(t, d, blobstore.RootIno, name), bytesWant) {
				t.Errorf("round %d: %s is not what was written", round, name)
			}
		}
		if n := len(found(t, d)); n != 0 {
			t.Errorf("round %d: %d files in lost+found, want none", round, n)
		}
		if got := spooled(t, folder); len(got) != 0 {
			t.Errorf("round %d: still kept: %v", round, got)
		}
		if err := d.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestPendingBytesOutliveTheSessionInMemoryAndAreStoredOnceItIsBack(t *testing.T) {
	url, folder := newStore(t), filepath.Join(t.TempDir(), "spool")
	session := signIn(t, url, "alice")
	d := detachable(t, url, session, folder)
	file, _ := create(t, d, "photo")
	data := noise(300_000, 1)
	write(t, file, data, 0)
	endSession(t, url, "alice")
	if err := file.Flush(t.Context()); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("flush: got %v, want %v", err, auth.ErrInvalid)
	}
	late := noise(100, 3) // a page of a mapped file, which the kernel writes when the mount is suspended
	write(t, file, late, int64(len(data)))
	data = append(data, late...)
	if _, err := d.Lookup(t.Context(), blobstore.RootIno, "photo"); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("lookup: got %v, want %v", err, auth.ErrInvalid)
	}
	if err := d.Preserve(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := d.PendingBytes(), int64(len(data)); got != want {
		t.Errorf("pending: got %d bytes, want %d", got, want)
	}
	stale := spoolCopy(t, folder)
	renewSession(t, url, session)
	if err := file.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := spooled(t, folder); len(got) != 0 {
		t.Errorf("kept although it is stored: %v", got)
	}
	newer := noise(100, 2)
	write(t, file, newer, 1000)
	if err := errors.Join(file.Flush(t.Context()), d.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	old := bytes.Clone(data)
	copy(data[1000:], newer)
	d = detachable(t, url, session, stale) // as if the mount had been killed before it could remove the file
	if !bytes.Equal(content(t, d, blobstore.RootIno, "photo"), data) {
		t.Error("the spool has put older bytes over newer ones")
	}
	if got := found(t, d); len(got) != 1 || !bytes.Equal(got[0], old) {
		t.Errorf("lost+found: got %d files, want the older bytes in one", len(got))
	}
	if err := d.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWhatCannotGoBackIntoItsFileIsInLostAndFound(t *testing.T) {
	change := map[string]struct {
		do    func(t *testing.T, d *pgstore.Drive, ino blobstore.Ino)
		found int
	}{
		"removed": {func(t *testing.T, d *pgstore.Drive, _ blobstore.Ino) {
			if err := d.Unlink(t.Context(), blobstore.RootIno, "photo"); err != nil {
				t.Fatal(err)
			}
		}, 1},
		"truncated": {func(t *testing.T, d *pgstore.Drive, ino blobstore.Ino) {
			if _, err := d.SetAttr(t.Context(), ino, blobstore.AttrChange{Set: blobstore.SetSize}); err != nil {
				t.Fatal(err)
			}
		}, 1},
		"written": {func(t *testing.T, d *pgstore.Drive, ino blobstore.Ino) {
			file, err := d.Open(t.Context(), ino, writable)
			if err != nil {
				t.Fatal(err)
			}
			write(t, file, []byte("newer"), 10)
			if err := errors.Join(file.Flush(t.Context()), file.Close()); err != nil {
				t.Fatal(err)
			}
		}, 1},
		"renamed": {func(t *testing.T, d *pgstore.Drive, _ blobstore.Ino) {
			err := d.Rename(t.Context(), blobstore.Rename{Parent: blobstore.RootIno, Name: "photo", NewParent: blobstore.RootIno, NewName: "elsewhere"})
			if err != nil {
				t.Fatal(err)
			}
		}, 0},
	}
	for name, c := range change {
		t.Run(name, func(t *testing.T) {
			url, folder := newStore(t), filepath.Join(t.TempDir(), "spool")
			session := signIn(t, url, "alice")
			d := detachable(t, url, session, folder)
			file, ino := create(t, d, "photo")
			write(t, file, noise(2<<20, 1), 0)
			if err := file.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			late := noise(200_000, 2)
			write(t, file, late, 0)
			if err := d.Preserve(t.Context()); err != nil {
				t.Fatal(err)
			}
			twin := spoolCopy(t, folder) // the mount is killed here
			other := attach(t, url, session, pgstore.Options{})
			c.do(t, other, ino)
			next := detachable(t, url, session, twin)
			got := found(t, next)
			if len(got) != c.found || c.found == 1 && !bytes.Equal(got[0], late) {
				t.Errorf("lost+found: got %d files, want %d with the bytes that were kept", len(got), c.found)
			}
			if name == "renamed" && !bytes.Equal(content(t, next, blobstore.RootIno, "elsewhere")[:len(late)], late) {
				t.Error("what was kept did not get into its file under the new name")
			}
			if len(spooled(t, twin)) != 0 {
				t.Error("still kept")
			}
			_ = next.Close(t.Context())
			_ = d.Close(t.Context())
		})
	}
}

// killed leaves a spool with bytes of one file that no mount has locked.
func killed(t *testing.T, url string, session auth.Session) (folder string, data []byte) {
	t.Helper()
	folder = filepath.Join(t.TempDir(), "spool")
	d := detachable(t, url, session, folder)
	file, _ := create(t, d, "photo")
	data = noise(3<<20, 9)
	write(t, file, data[:1000], 0)
	if err := file.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	endSession(t, url, session.User)
	for off := 0; off < len(data); off += 100_000 {
		if _, err := file.WriteAt(t.Context(), data[off:min(off+100_000, len(data))], int64(off)); err != nil {
			data = data[:off]
			break
		}
	}
	if err := d.Close(t.Context()); !errors.Is(err, blobstore.ErrKept) {
		t.Fatalf("close: got %v, want %v", err, blobstore.ErrKept)
	}
	renewSession(t, url, session)
	return folder, data
}

func TestATornSpoolFileIsSetAsideAndTheDriveOpens(t *testing.T) {
	url := newStore(t)
	session := signIn(t, url, "alice")
	folder, _ := killed(t, url, session)
	name := spooled(t, folder)[0]
	if err := os.Truncate(name, 100_000); err != nil {
		t.Fatal(err)
	}
	d := detachable(t, url, session, folder)
	if got, want := spooled(t, folder), name+".damaged"; len(got) != 1 || got[0] != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if err := d.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTwoWhoOpenTheDriveAtOnceStoreWhatIsKeptOnce(t *testing.T) {
	url := newStore(t)
	session := signIn(t, url, "alice")
	folder, data := killed(t, url, session)
	var g errgroup.Group
	drives := make([]*pgstore.Drive, 4)
	for i := range drives {
		store, err := pgstore.Open(t.Context(), url, pgstore.Options{Spool: folder})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = store.Close() })
		g.Go(func() error {
			d, err := store.Open(context.Background(), session)
			if err == nil {
				drives[i] = d.(*pgstore.Drive)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content(t, drives[0], blobstore.RootIno, "photo"), data) {
		t.Error("the file is not what was written")
	}
	if n := len(found(t, drives[0])); n != 0 {
		t.Errorf("lost+found: got %d files, want none", n)
	}
	for _, d := range drives {
		if err := d.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestASpoolThatOthersMayEnterIsRefused(t *testing.T) {
	url := newStore(t)
	session := signIn(t, url, "alice")
	for name, make := range map[string]func(folder string) error{
		"symlink": func(folder string) error { return os.Symlink(t.TempDir(), folder) },
		"mode":    func(folder string) error { return errors.Join(os.Mkdir(folder, 0o700), os.Chmod(folder, 0o750)) },
		"owner":   func(folder string) error { return errors.Join(os.Mkdir(folder, 0o700), os.Chown(folder, 65534, 65534)) },
		"file":    func(folder string) error { return os.WriteFile(folder, nil, 0o600) },
	} {
		folder := filepath.Join(t.TempDir(), "spool")
		if err := make(folder); err != nil {
			if name == "owner" && os.Geteuid() != 0 {
				continue
			}
			t.Fatal(err)
		}
		d := detachable(t, url, session, folder)
		file, _ := create(t, d, name)
		write(t, file, []byte("pending"), 0)
		if err := d.Preserve(t.Context()); err == nil || !strings.Contains(err.Error(), folder) {
			t.Errorf("%s: got %v, want an error that names the folder", name, err)
		}
		if err := d.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestPreserveWithoutAFolderSaysSo(t *testing.T) {
	url := newStore(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	if err := d.Preserve(t.Context()); !errors.Is(err, blobstore.ErrNotSupported) {
		t.Errorf("got %v, want %v", err, blobstore.ErrNotSupported)
	}
}

func TestAFullDiskKeepsWhatWasKeptBefore(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1m,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	url, folder := newStore(t), filepath.Join(disk, "spool")
	session := signIn(t, url, "alice")
	d := detachable(t, url, session, folder)
	file, _ := create(t, d, "photo")
	data := noise(1500<<10, 1)
	write(t, file, data[:300<<10], 0)
	if err := d.Preserve(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(spooled(t, folder)[0])
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, data[300<<10:], 300<<10)
	if err := d.Preserve(t.Context()); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v, want %v", err, unix.ENOSPC)
	}
	if names := spooled(t, folder); len(names) != 1 {
		t.Errorf("got %v, want the one file", names)
	} else if after, err := os.ReadFile(names[0]); err != nil || !bytes.Equal(before, after) {
		t.Errorf("what was kept before has changed (%v)", err)
	}
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if names := spooled(t, folder); len(names) != 0 {
		t.Errorf("kept although it is stored: %v", names)
	}
	d = detachable(t, url, session, folder)
	if !bytes.Equal(content(t, d, blobstore.RootIno, "photo"), data) {
		t.Error("what is stored is not what was written")
	}
	if err := d.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWhileTheDatabaseIsAwayClosingKeepsWhatIsPending(t *testing.T) {
	url, folder := newStore(t), filepath.Join(t.TempDir(), "spool")
	session := signIn(t, url, "alice")
	d := detachable(t, url, session, folder)
	file, _ := create(t, d, "photo")
	write(t, file, []byte("pending"), 0)
	ctx, cancel := context.WithDeadline(t.Context(), time.Now()) // as one that has run out waiting for the database
	defer cancel()
	if err := d.Close(ctx); !errors.Is(err, blobstore.ErrKept) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("close: got %v, want %v and why", err, blobstore.ErrKept)
	}
	d = detachable(t, url, session, folder)
	if got := string(content(t, d, blobstore.RootIno, "photo")); got != "pending" {
		t.Errorf("got %q, want %q", got, "pending")
	}
	if err := d.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAMountKilledWhileItKeepsLeavesTheStateBefore(t *testing.T) {
	url := newStore(t)
	session := signIn(t, url, "alice")
	folder, data := killed(t, url, session)
	name := spooled(t, folder)[0]
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 10, 200_000, len(whole)} { // of the file that is not renamed yet
		twin := spoolCopy(t, folder)
		half := strings.Replace(name, folder, twin, 1) + ".new"
		if err := os.WriteFile(half, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		d := detachable(t, url, session, twin)
		if !bytes.Equal(content(t, d, blobstore.RootIno, "photo"), data) {
			t.Errorf("killed after %d bytes: the file is not what was kept", n)
		}
		if got := spooled(t, twin); len(got) != 0 {
			t.Errorf("killed after %d bytes: still there: %v", n, got)
		}
		if err := d.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestAFileThatAnotherMountRemovedIsFoundAgainWhileTheMountGoesOn(t *testing.T) {
	url, folder := newStore(t), filepath.Join(t.TempDir(), "spool")
	session := signIn(t, url, "alice")
	d := detachable(t, url, session, folder)
	file, _ := create(t, d, "photo")
	write(t, file, []byte("pending"), 0)
	if err := d.Preserve(t.Context()); err != nil {
		t.Fatal(err)
	}
	execute(t, url, `delete from mediafs.entries where name = 'photo';
		delete from mediafs.nodes where mode & 61440 = 32768`) // removed, and collected after the mount was taken for dead
	if err := file.Flush(t.Context()); !errors.Is(err, blobstore.ErrStale) {
		t.Errorf("flush: got %v, want %v", err, blobstore.ErrStale)
	}
	for deadline := time.Now().Add(30 * time.Second); len(found(t, d)) == 0 || len(spooled(t, folder)) > 0; {
		if time.Now().After(deadline) {
			t.Fatal("what was kept is not in lost+found")
		}
	}
	if got := string(found(t, d)[0]); got != "pending" {
		t.Errorf("lost+found: got %q, want %q", got, "pending")
	}
	if err := errors.Join(file.Close(), d.Close(t.Context())); err != nil {
		t.Error(err)
	}
}

func TestASecondMountLeavesWhatALivingOneKeeps(t *testing.T) {
	url, folder := newStore(t), filepath.Join(t.TempDir(), "spool")
	session := signIn(t, url, "alice")
	one := detachable(t, url, session, folder)
	file, _ := create(t, one, "photo")
	write(t, file, []byte("pending"), 0)
	if err := one.Preserve(t.Context()); err != nil {
		t.Fatal(err)
	}
	two := detachable(t, url, session, folder)
	if got := spooled(t, folder); len(got) != 1 {
		t.Errorf("got %v, want the first mount's file", got)
	}
	if err := errors.Join(two.Close(t.Context()), one.Close(t.Context())); err != nil {
		t.Error(err)
	}
	if got := spooled(t, folder); len(got) != 0 {
		t.Errorf("still kept: %v", got)
	}
}

func TestClosingWithBytesKeptGivesTheirMemoryBack(t *testing.T) {
	url, folder := newStore(t), filepath.Join(t.TempDir(), "spool")
	session := signIn(t, url, "alice")
	store, err := pgstore.Open(t.Context(), url, pgstore.Options{Spool: folder, PendingBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for range 3 { // each time with all the memory there is
		drive, err := store.Open(t.Context(), session)
		if err != nil {
			t.Fatal(err)
		}
		file, _, _, err := drive.Create(t.Context(), blobstore.RootIno, "photo", blobstore.NewNode{Mode: unix.S_IFREG | 0o600}, writable)
		if err != nil {
			t.Fatal(err)
		}
		write(t, file, noise(256<<10, 1), 0)
		endSession(t, url, "alice")
		if err := drive.Close(t.Context()); !errors.Is(err, blobstore.ErrKept) {
			t.Fatalf("close: got %v, want %v", err, blobstore.ErrKept)
		}
		renewSession(t, url, session)
	}
}

func TestAMountReadsTheUUIDOfItsDriveAloneAndChangesNone(t *testing.T) {
	url := newStore(t)
	alice := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	attach(t, url, signIn(t, url, "bob"), pgstore.Options{})
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "set role mediafs"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "select set_config('mediafs.token', $1, false)", alice.Session().Token.Reveal()); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := conn.QueryRow(t.Context(), "select count(uuid) from mediafs.drives").Scan(&n); err != nil || n != 1 {
		t.Errorf("got %d drives, %v, want 1", n, err)
	}
	if _, err := conn.Exec(t.Context(), "update mediafs.drives set uuid = gen_random_uuid()"); err == nil {
		t.Error("a mount has changed a drive's uuid")
	}
}
