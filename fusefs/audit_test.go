package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/memstore"
)

// auditLog reads the audit log of a user's drive, each record once.
type auditLog struct {
	t     *testing.T
	store *memstore.Store
	user  auth.UserID // as whom it is read
	drive blobstore.DriveName
	read  int
}

// next returns the records since the last time, as lines in alphabetical order: a file is closed in its own time.
func (a *auditLog) next() []string {
	a.t.Helper()
	var lines []string
	session := auth.Session{User: a.user, Role: auth.RoleUser}
	if a.user == admin.User {
		session = admin
	}
	err := a.store.AuditLog(a.t.Context(), session, blobstore.AuditQuery{}, func(r *blobstore.AuditRecord) bool {
		if r.Drive != a.drive || r.Action == blobstore.ActionMount || r.Action == blobstore.ActionUnmount {
			return true
		}
		line := fmt.Sprintf("%s %q", r.Action, r.Path)
		if r.NewPath != "" {
			line += fmt.Sprintf(" to %q", r.NewPath)
		}
		if r.Bytes != 0 {
			line += fmt.Sprintf(" %d bytes", r.Bytes)
		}
		if r.Count != 1 || r.Time.IsZero() {
			line += fmt.Sprintf(" count %d, time %v", r.Count, r.Time)
		}
		lines = append(lines, fmt.Sprintf("%s by %d: %s", line, r.UID, r.Result))
		return true
	})
	must(a.t, err)
	lines = lines[a.read:]
	slices.Sort(lines)
	return lines
}

// want waits until what was recorded since the last time is this, no more and no less.
func (a *auditLog) want(what string, want ...string) {
	a.t.Helper()
	slices.Sort(want)
	var got []string
	for begun := time.Now(); time.Since(begun) < patience; {
		if got = a.next(); len(got) >= len(want) {
			break
		}
	}
	if !slices.Equal(got, want) {
		a.t.Errorf("%s: recorded\n\t%s\nwant\n\t%s", what, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	a.read += len(got)
}

// newAudited mounts alice's drive of a store that bob has one of, too.
func newAudited(t *testing.T, o Options) (*Mount, string, *auditLog) {
	t.Helper()
	store := memstore.New()
	drive, err := store.Open(t.Context(), auth.Session{User: "alice", Role: auth.RoleUser})
	must(t, err)
	_, err = store.Open(t.Context(), auth.Session{User: "bob", Role: auth.RoleUser})
	must(t, err)
	m, dir := mount(t, drive, o)
	return m, dir, &auditLog{t: t, store: store, user: "alice", drive: "alice"}
}

func TestWhatIsDoneIsRecorded(t *testing.T) {
	needRoot(t)
	_, dir, log := newAudited(t, Options{AllowOther: true})
	bobs := &auditLog{t: t, store: log.store, user: "bob", drive: "bob"}
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, step := range []struct {
		what string
		do   func() error
		want []string
	}{
		{"a folder", func() error { return os.Mkdir(in("a"), 0o777) }, []string{`create "/a" by 0: ok`}},
		{"another in it", func() error { return os.Mkdir(in("a/b"), 0o777) }, []string{`create "/a/b" by 0: ok`}},
		{"open to all", func() error { return os.Chmod(in("a/b"), 0o777) }, []string{`change "/a/b" by 0: ok`}},
		{"a file, written in parts", func() error {
			f, err := os.Create(in("a/b/c"))
			must(t, err)
			for range 10 {
				_, err := f.WriteString("hello")
				must(t, err)
			}
			return f.Close()
		}, []string{`create "/a/b/c" by 0: ok`, `write "/a/b/c" 50 bytes by 0: ok`}},
		{"reading it", func() error { _, err := os.ReadFile(in("a/b/c")); return err }, []string{`open "/a/b/c" by 0: ok`}},
		{"looking at it", func() error {
			_, err := os.Stat(in("a/b/c"))
			_, list := os.ReadDir(in("a/b"))
			_, missing := os.Stat(in("a/b/missing"))
			wantErr(t, "a file that is not", missing, unix.ENOENT)
			return errors.Join(err, list)
		}, nil},
		{"cutting it at opening", func() error { return os.WriteFile(in("a/b/c"), nil, 0) }, []string{`open "/a/b/c" by 0: ok`, `write "/a/b/c" by 0: ok`}},
		{"cutting it", func() error { return os.Truncate(in("a/b/c"), 7) }, []string{`change "/a/b/c" by 0: ok`}},
		{"allocating", func() error {
			f, err := os.OpenFile(in("a/b/c"), os.O_WRONLY, 0)
			must(t, err)
			return errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, 100), f.Close())
		}, []string{`open "/a/b/c" by 0: ok`, `change "/a/b/c" by 0: ok`}},
		{"an attribute", func() error { return unix.Setxattr(in("a/b/c"), "user.x", []byte("y"), 0) }, []string{`change "/a/b/c" by 0: ok`}},
		{"the attribute removed", func() error { return unix.Removexattr(in("a/b/c"), "user.x") }, []string{`change "/a/b/c" by 0: ok`}},
		{"a symbolic link", func() error { return os.Symlink("/a", in("s")) }, []string{`create "/s" by 0: ok`}},
		{"a fifo", func() error { return unix.Mkfifo(in("p"), 0o600) }, []string{`create "/p" by 0: ok`}},
		{"another name", func() error { return os.Link(in("a/b/c"), in("d")) }, []string{`link "/a/b/c" to "/d" by 0: ok`}},
		{"renaming", func() error { return os.Rename(in("a/b"), in("a/x")) }, []string{`rename "/a/b" to "/a/x" by 0: ok`}},
		{"a name of control characters, and not UTF-8, by another user", func() error {
			said, err := shellAs(nobody, dir, "echo 12345 > $(printf 'a/x/\\033[2J\\377')")
			t.Log(said)
			return err
		}, []string{`create "/a/x/\x1b[2J\xff" by 65534: ok`, `write "/a/x/\x1b[2J\xff" 6 bytes by 65534: ok`}},
		{"removing", func() error { return os.Remove(in("a/x/c")) }, []string{`remove "/a/x/c" by 0: ok`}},
		{"removing a folder", func() error { return errors.Join(os.Mkdir(in("e"), 0o700), os.Remove(in("e"))) },
			[]string{`create "/e" by 0: ok`, `remove "/e" by 0: ok`}},
		{"what fails otherwise", func() error {
			wantErr(t, "rmdir", unix.Rmdir(in("a")), unix.ENOTEMPTY)
			wantErr(t, "mkdir", unix.Mkdir(in("a"), 0), unix.EEXIST)
			return nil
		}, nil},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		log.want(step.what, step.want...)
	}
	bobs.want("nothing on bob's drive")
}

func TestCopyingInsideADriveIsRecordedAsWriting(t *testing.T) {
	_, dir, log := newAudited(t, Options{})
	must(t, os.WriteFile(filepath.Join(dir, "from"), []byte("content"), 0o644))
	from, err := os.Open(filepath.Join(dir, "from"))
	must(t, err)
	to, err := os.Create(filepath.Join(dir, "to"))
	must(t, err)
	_, err = unix.CopyFileRange(int(from.Fd()), nil, int(to.Fd()), nil, 7, 0)
	must(t, errors.Join(err, from.Close(), to.Close()))
	me := os.Geteuid()
	log.want("copying", fmt.Sprintf(`create "/from" by %d: ok`, me), fmt.Sprintf(`write "/from" 7 bytes by %d: ok`, me),
		fmt.Sprintf(`open "/from" by %d: ok`, me), fmt.Sprintf(`create "/to" by %d: ok`, me), fmt.Sprintf(`write "/to" 7 bytes by %d: ok`, me))
}

func TestDenialsAndTheEndOfASessionAreRecorded(t *testing.T) {
	needRoot(t)
	m, dir, log := newAudited(t, Options{Logger: discard})
	file := filepath.Join(dir, "file")
	f, err := os.Create(file)
	must(t, err)
	_, err = f.WriteString("content")
	must(t, err)
	log.want("a file", `create "/file" by 0: ok`)

	must(t, errors.Join(unix.Setxattr(file, blobstore.XattrAccessCount, []byte("99"), 0), unix.Removexattr(file, blobstore.XattrID)))
	log.want("setting what only the drive may, which does nothing")
	wantErr(t, "a fact that there is not", unix.Setxattr(file, blobstore.XattrFacts+"none", []byte("0"), 0), unix.EPERM)
	log.want("setting it", `change "/file" by 0: EPERM`)
	wantErr(t, "link of a folder", unix.Link(dir, filepath.Join(dir, "x")), unix.EPERM)
	log.want("what the kernel denies by itself")

	m.Suspend(auth.ErrExpired)
	m.Suspend(auth.ErrExpired)
	log.want("the end of the session", `session "" by 0: EKEYEXPIRED`)
	_, err = f.ReadAt(make([]byte, 1), 0)
	wantErr(t, "read", err, unix.EKEYEXPIRED)
	log.want("reading", `look "/file" by 0: EKEYEXPIRED`)
	_, err = f.WriteAt([]byte("x"), 0)
	wantErr(t, "write", err, unix.EKEYEXPIRED)
	log.want("writing", `write "/file" by 0: EKEYEXPIRED`)
	m.Resume()
	m.Resume()
	log.want("the session's return", `session "" by 0: ok`)
	must(t, f.Close())
	log.want("closing", `write "/file" 7 bytes by 0: ok`)
}

func TestChangesOfAReadOnlyDriveAreRecordedAsDenied(t *testing.T) {
	many := newManyDrives(t, "alice", "bob")
	many.wrap = func(name blobstore.DriveName, d blobstore.Drive) blobstore.Drive {
		if name == "bob" {
			return blobstore.ReadOnly(d)
		}
		return d
	}
	_, dir := mountMany(t, many, Options{})
	me := os.Geteuid()
	alice := &auditLog{t: t, store: many.store, user: admin.User, drive: "alice"}
	bob := &auditLog{t: t, store: many.store, user: admin.User, drive: "bob"}
	must(t, os.Mkdir(filepath.Join(dir, "alice", "new"), 0o755))
	wantErr(t, "mkdir", unix.Mkdir(filepath.Join(dir, "bob", "new"), 0o755), unix.EROFS)
	_, err := os.Create(filepath.Join(dir, "bob", "new"))
	wantErr(t, "create", err, unix.EROFS)
	wantErr(t, "rename", unix.Rename(filepath.Join(dir, "alice", "new"), filepath.Join(dir, "bob", "new")), unix.EXDEV)
	alice.want("alice's", fmt.Sprintf(`create "/new" by %d: ok`, me))
	bob.want("bob's", fmt.Sprintf(`create "/new" by %d: EROFS`, me), fmt.Sprintf(`create "/new" by %d: EROFS`, me))
}

func TestWhatIsRefusedAtTheFolderOfADriveIsRecordedOnTheDrive(t *testing.T) {
	many := newManyDrives(t, "alice", "bob")
	fs := newFilesystemOfMany(many, Options{Timeout: patience, OpenDrives: DefaultOpenDrives, Logger: discard})
	defer func() {
		fs.stop()
		must(t, fs.many.closeAll(context.Background()))
	}()
	log := &auditLog{t: t, store: many.store, user: admin.User, drive: "alice"}
	caller := &fuse.InHeader{NodeId: 1, Caller: fuse.Caller{Owner: fuse.Owner{Uid: 1234}}}
	lookup := func(want fuse.Status) {
		t.Helper()
		if got := fs.Lookup(nil, caller, "alice", new(fuse.EntryOut)); got != want {
			t.Errorf("lookup of alice: got %v, want %v", got, want)
		}
	}
	lookup(fuse.OK)
	id := many.drive(t, "alice").ID()
	fs.many.suspend(id, auth.ErrRevoked)
	lookup(fuse.Status(unix.EKEYREVOKED))
	fs.many.resume(id)
	lookup(fuse.OK)
	log.want("a session that ended", fmt.Sprintf(`session "" by %d: EKEYREVOKED`, os.Geteuid()),
		`look "/" by 1234: EKEYREVOKED`, fmt.Sprintf(`session "" by %d: ok`, os.Geteuid()))
}

func TestOpeningCountsAsAccess(t *testing.T) {
	_, dir, _ := newAudited(t, Options{})
	path := filepath.Join(dir, "file")
	must(t, os.WriteFile(path, []byte("x"), 0o644))
	for range 3 {
		_, err := os.ReadFile(path)
		must(t, err)
	}
	value := make([]byte, 64)
	n, err := unix.Getxattr(path, blobstore.XattrAccessCount, value)
	must(t, err)
	if got := string(value[:n]); got != "3" {
		t.Errorf("got %s accesses, want 3", got)
	}
	n, err = unix.Getxattr(path, blobstore.XattrLastAccessed, value)
	must(t, err)
	if _, err := time.Parse(time.RFC3339Nano, string(value[:n])); err != nil {
		t.Error(err)
	}
}

// A node that the kernel knows of an earlier daemon has never been seen by this one.
func TestWhatIsNotKnownOfAPathIsRecordedAsUnknown(t *testing.T) {
	store := memstore.New()
	drive, err := store.Open(t.Context(), auth.Session{User: "alice", Role: auth.RoleUser})
	must(t, err)
	folder, err := drive.Make(t.Context(), blobstore.RootIno, "folder", blobstore.NewNode{Mode: unix.S_IFDIR | 0o755})
	must(t, err)
	log := &auditLog{t: t, store: store, user: "alice", drive: "alice"}
	fs := newFilesystem(drive, Options{Timeout: patience, Logger: discard})
	var out fuse.EntryOut
	if status := fs.Mkdir(nil, &fuse.MkdirIn{InHeader: fuse.InHeader{NodeId: uint64(folder.Ino)}}, "new", &out); status != fuse.OK {
		t.Fatal(status)
	}
	log.want("a folder in it", `create "…/new" by 0: ok`)
}
