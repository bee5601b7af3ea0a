package dirstore_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
)

func TestInitTwiceChangesNothing(t *testing.T) {
	b := newBench(t)
	ino := b.mkfile(root, "a", "kept")
	b.outside(dirstore.AccountsPath(b.root), "accounts")
	b.ok(dirstore.Init(b.root))
	b.want(b.cat(ino), "kept")
	accounts, err := os.ReadFile(dirstore.AccountsPath(b.root))
	b.ok(err)
	b.want(string(accounts), "accounts")
	for path, want := range map[string]os.FileMode{".": 0o755, ".mediafs": 0o700, "alice": 0o700} {
		info, err := os.Stat(filepath.Join(b.root, path))
		b.ok(err)
		if got := info.Mode().Perm(); got != want {
			b.Errorf("%s: got mode %o, want %o", path, got, want)
		}
	}
}

func TestInitRefusesWhatCannotBeAStore(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	taken := filepath.Join(dir, "taken")
	if err := errors.Join(os.Mkdir(taken, 0o755), os.Symlink(dir, filepath.Join(taken, ".mediafs"))); err != nil {
		t.Fatal(err)
	}
	for what, path := range map[string]string{
		"a file":                         file,
		"a folder in a file":             filepath.Join(file, "below"),
		"a folder whose own is a link":   taken,
		"a folder that takes no changes": "/proc/self",
	} {
		err := dirstore.Init(path)
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got error %v, want one that names %s", what, err, path)
		}
	}
}

func TestOpenSaysHowToMakeAStore(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "missing")} {
		_, err := dirstore.Open(path, slog.New(slog.DiscardHandler))
		if !errors.Is(err, dirstore.ErrNotInitialised) || !strings.Contains(err.Error(), "mediafs init --store "+path) {
			t.Errorf("got error %v, want ErrNotInitialised with the command for %s", err, path)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("got %v, %v left behind, want nothing", entries, err)
	}
}

func TestNoUserIDLeadsOutOfTheRoot(t *testing.T) {
	b := newBench(t)
	before, err := os.ReadDir(b.root)
	b.ok(err)
	for _, id := range []auth.UserID{
		"public", ".mediafs", ".", "..", "../alice", "alice/..", "/", "/etc", "a/b", "", "-rf", "a\x00b", "a\nb", "ä", "a b",
		auth.UserID(strings.Repeat("a", 129)),
	} {
		_, err := b.store.Open(b.ctx, session(id))
		if !errors.Is(err, auth.ErrUserID) && !errors.Is(err, auth.ErrInvalid) {
			b.Errorf("user %q: got error %v, want ErrUserID or ErrInvalid", id, err)
		}
	}
	after, err := os.ReadDir(b.root)
	b.ok(err)
	if len(after) != len(before) {
		b.Errorf("got %d entries in the root, want %d", len(after), len(before))
	}
}

func TestADriveThatIsASymbolicLinkOrAFileIsRefused(t *testing.T) {
	b := newBench(t)
	b.mkfile(root, "secret", "of alice")
	b.ok(os.Symlink("alice", filepath.Join(b.root, "bob")))
	b.ok(os.Symlink(b.dir, filepath.Join(b.root, "carol")))
	b.ok(os.Symlink("bob", filepath.Join(b.root, "dave")))
	b.outside(filepath.Join(b.root, "eve"), "a file")
	for _, id := range []auth.UserID{"bob", "carol", "dave", "eve"} {
		d, err := b.store.Open(b.ctx, session(id))
		if err == nil {
			b.ok(d.Close(b.ctx))
		}
		if !errors.Is(err, blobstore.ErrLoop) && !errors.Is(err, blobstore.ErrNotDir) {
			b.Errorf("%s: got error %v, want ErrLoop or ErrNotDir", id, err)
		}
	}
}

func TestWhatRootMakesBelongsToTheOwnerOfTheRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const web = 4711
	media := filepath.Join(t.TempDir(), "media")
	if err := errors.Join(dirstore.Init(media), os.Chown(media, web, web+1)); err != nil {
		t.Fatal(err)
	}
	b := openBench(t, media)
	uid, gid := b.drive.Owner()
	if uid != web || gid != web+1 {
		b.Errorf("got owner %d:%d, want %d:%d", uid, gid, web, web+1)
	}
	b.mkfile(b.mkdir(root, "folder"), "file", "")
	for _, path := range []string{".", "folder", "folder/file"} {
		info, err := os.Stat(filepath.Join(b.dir, path))
		b.ok(err)
		st := info.Sys().(*syscall.Stat_t)
		if st.Uid != web || st.Gid != web+1 {
			b.Errorf("%s: got owner %d:%d, want %d:%d", path, st.Uid, st.Gid, web, web+1)
		}
	}
	left, err := os.ReadDir(filepath.Join(media, ".mediafs"))
	b.ok(err)
	if len(left) > 0 {
		b.Errorf("got %v left in .mediafs, want nothing", left)
	}
}

// umask is that of the whole process, so the test that changes it runs alone.
func TestTheUmaskOfTheProcessPlaysNoPart(t *testing.T) {
	b := newBench(t)
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	for name, mode := range map[string]uint32{
		"file": unix.S_IFREG | 0o666, "folder": unix.S_IFDIR | 0o777, "pipe": unix.S_IFIFO | 0o622, "program": unix.S_IFREG | 0o4755,
	} {
		a, err := b.drive.Make(b.ctx, root, name, b.newNode(mode))
		b.ok(err)
		if a.Mode != mode {
			b.Errorf("make %s: got mode %o, want %o", name, a.Mode, mode)
		}
	}
	f, a, _, err := b.drive.Create(b.ctx, root, "created", b.newNode(unix.S_IFREG|0o666), readWrite)
	b.ok(err)
	b.ok(f.Close())
	if a.Mode != unix.S_IFREG|0o666 {
		b.Errorf("create: got mode %o, want 100666", a.Mode)
	}
}
