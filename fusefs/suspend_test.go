package fusefs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
)

// eventually asks until got gives want, as the kernel's cache of attributes ends by itself.
func eventually(t *testing.T, what string, want error, got func() error) {
	t.Helper()
	var err error
	for begun := time.Now(); time.Since(begun) < patience; {
		if err = got(); err == want { //nolint:errorlint // an errno, or nil
			return
		}
	}
	t.Errorf("%s: got error %v, want %v", what, err, want)
}

func init() {
	// map PATH maps the first page of a file. For each line on stdin it reads the first byte ("r") or writes it ("wX"), and says
	// what came of it: the byte, or "SIGBUS".
	helpers["map"] = func(args []string) error {
		f, err := os.OpenFile(args[0], os.O_RDWR, 0)
		if err != nil {
			return err
		}
		page, err := unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		debug.SetPanicOnFault(true)
		touch := func(command string) (said string) {
			defer func() {
				if recover() != nil {
					said = "SIGBUS"
				}
			}()
			if command[0] == 'w' {
				page[0] = command[1]
			}
			return string(page[:1])
		}
		for commands := bufio.NewScanner(os.Stdin); commands.Scan(); {
			fmt.Println(touch(commands.Text()))
		}
		return nil
	}
}

// mapped is another process that has mapped a file.
type mapped struct {
	t    *testing.T
	to   io.Writer
	said *bufio.Reader
}

func mapFile(t *testing.T, path string) *mapped {
	t.Helper()
	command := helper(t, uint32(os.Geteuid()), "map", path)
	stdin, err := command.StdinPipe()
	must(t, err)
	stdout, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	t.Cleanup(func() { must(t, errors.Join(stdin.Close(), command.Wait())) })
	return &mapped{t, stdin, bufio.NewReader(stdout)}
}

// want has the process touch the file, and checks what comes of it.
func (m *mapped) want(what, command, want string) {
	m.t.Helper()
	_, err := fmt.Fprintln(m.to, command)
	must(m.t, err)
	got, err := m.said.ReadString('\n')
	must(m.t, err)
	if got = strings.TrimSpace(got); got != want {
		m.t.Errorf("%s: a mapped page: got %s, want %s", what, got, want)
	}
}

// using is everything that a program has of a drive: a file and a folder that are open, cached content, a mapped file.
type using struct {
	t         *testing.T
	dir, path string
	fd, list  int
	mapped    *mapped
}

// use makes a file "file" in a folder, and has the kernel know all of it.
func use(t *testing.T, dir string) *using {
	t.Helper()
	u := &using{t: t, dir: dir, path: filepath.Join(dir, "file")}
	must(t, os.WriteFile(u.path, []byte("content"), 0o600))
	must(t, os.Symlink("file", filepath.Join(dir, "link")))
	var err error
	u.fd, err = unix.Open(u.path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	u.list, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { _, _ = unix.Close(u.fd), unix.Close(u.list) })
	u.mapped = mapFile(t, u.path)
	u.works("at first")
	return u
}

// looks are ways to see something of the drive.
func (u *using) looks() map[string]func() error {
	return map[string]func() error{
		"read an open file": func() error { _, err := unix.Pread(u.fd, make([]byte, 16), 0); return err },
		"stat an open file": func() error { return unix.Fstat(u.fd, new(unix.Stat_t)) },
		"list an open folder": func() error {
			_, err := unix.Seek(u.list, 0, io.SeekStart)
			if err == nil {
				_, err = unix.Getdents(u.list, make([]byte, 4096))
			}
			return err
		},
		"stat":            func() error { return unix.Stat(u.path, new(unix.Stat_t)) },
		"stat the folder": func() error { return unix.Stat(u.dir, new(unix.Stat_t)) },
		"readlink":        func() error { _, err := unix.Readlink(filepath.Join(u.dir, "link"), make([]byte, 16)); return err },
		"open": func() error {
			fd, err := unix.Open(u.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err == nil {
				return unix.Close(fd)
			}
			return err
		},
	}
}

func (u *using) works(when string) {
	u.t.Helper()
	for what, look := range u.looks() {
		eventually(u.t, what+" "+when, nil, look)
	}
	u.mapped.want(when, "r", "c")
}

func (u *using) isRefused(errno unix.Errno) {
	u.t.Helper()
	u.mapped.want("suspended", "r", "SIGBUS")
	u.mapped.want("suspended", "wX", "SIGBUS")
	if err := u.looks()["read an open file"](); err != errno { //nolint:errorlint // an errno
		u.t.Errorf("read an open file that the kernel had cached: got error %v, want %v at once", err, errno)
	}
	for what, look := range u.looks() {
		eventually(u.t, what, errno, look)
	}
	if _, err := unix.Pwrite(u.fd, []byte("x"), 0); err != errno { //nolint:errorlint // an errno
		u.t.Errorf("write: got error %v, want %v", err, errno)
	}
	wantErr(u.t, "fsync", unix.Fsync(u.fd), errno)
	wantErr(u.t, "mkdir", unix.Mkdir(filepath.Join(u.dir, "new"), 0o700), errno)
	copied, err := unix.FcntlInt(uintptr(u.fd), unix.F_DUPFD_CLOEXEC, 0)
	must(u.t, err)
	wantErr(u.t, "close", unix.Close(copied), errno)
}

// newFolderDrive opens the drive of a user in a new store of folders.
func newFolderDrive(t *testing.T) blobstore.Drive {
	t.Helper()
	root := t.TempDir()
	must(t, dirstore.Init(root))
	store, err := dirstore.Open(root, discard)
	must(t, err)
	drive, err := store.Open(t.Context(), auth.Session{User: "alice", Role: auth.RoleUser})
	must(t, err)
	t.Cleanup(func() { must(t, errors.Join(drive.Close(context.Background()), store.Close())) })
	return drive
}

func TestASuspendedMountAnswersNothingUntilItResumes(t *testing.T) {
	for what, open := range map[string]func(*testing.T) blobstore.Drive{
		"a store in memory":  func(t *testing.T) blobstore.Drive { return newDrive(t) },
		"a store of folders": newFolderDrive,
	} {
		t.Run(what, func(t *testing.T) {
			for reason, errno := range map[error]unix.Errno{auth.ErrExpired: unix.EKEYEXPIRED, auth.ErrRevoked: unix.EKEYREVOKED} {
				m, dir := mount(t, open(t), Options{Logger: discard})
				u := use(t, dir)
				m.Suspend(reason)
				u.isRefused(errno)
				m.Resume()
				u.works("after resuming")
			}
		})
	}
}

func TestASuspendedDriveLeavesTheOthersOfItsMountAlone(t *testing.T) {
	many := newManyDrives(t, "alice", "bob")
	m, dir := mountMany(t, many, Options{Logger: discard})
	alice, bob := use(t, filepath.Join(dir, "alice")), use(t, filepath.Join(dir, "bob"))
	id := many.drive(t, "alice").ID()
	m.SuspendDrive(id, auth.ErrRevoked)
	alice.isRefused(unix.EKEYREVOKED)
	bob.works("while alice's is suspended")
	m.Suspend(auth.ErrExpired)
	bob.isRefused(unix.EKEYEXPIRED)
	m.Resume()
	bob.works("after resuming")
	alice.isRefused(unix.EKEYREVOKED)
	m.ResumeDrive(id)
	alice.works("after resuming")
}

func TestADriveThatIsNotOpenCanBeSuspended(t *testing.T) {
	many := newManyDrives(t, "alice", "bob")
	m, dir := mountMany(t, many, Options{Logger: discard})
	id := many.drive(t, "alice").ID()
	m.SuspendDrive(id, auth.ErrBanned)
	_, err := os.ReadDir(filepath.Join(dir, "alice"))
	wantErr(t, "alice's drive", err, unix.EKEYREVOKED)
	_, err = os.ReadDir(filepath.Join(dir, "bob"))
	wantErr(t, "bob's drive", err, nil)
	m.ResumeDrive(id)
	_, err = os.ReadDir(filepath.Join(dir, "alice"))
	wantErr(t, "alice's drive after resuming", err, nil)
}

// What a program has changed in a mapped file is the kernel's alone for many seconds.
func TestSuspendingLosesNoChangedPages(t *testing.T) {
	for what, open := range map[string]func(*testing.T) blobstore.Drive{
		"a store in memory":  func(t *testing.T) blobstore.Drive { return newDrive(t) },
		"a store of folders": newFolderDrive,
	} {
		drive := open(t)
		m, dir := mount(t, drive, Options{Logger: discard})
		u := use(t, dir)
		u.mapped.want("changing it", "wX", "X")
		m.Suspend(auth.ErrExpired)
		attr := attrOf(t, drive, "file")
		// The number must be known to a drive that is asked for it.
		_, err := drive.Lookup(t.Context(), blobstore.RootIno, "file")
		must(t, err)
		f, err := drive.Open(t.Context(), attr.Ino, blobstore.OpenRead)
		must(t, err)
		got := make([]byte, 7)
		_, err = f.ReadAt(t.Context(), got, 0)
		must(t, errors.Join(err, f.Close()))
		if string(got) != "Xontent" {
			t.Errorf("%s: the suspended drive has %q, want %q", what, got, "Xontent")
		}
		m.Resume()
		u.mapped.want("after resuming", "r", "X")
	}
}

// Closing a file tells what could not be stored. Of one that was only read there is nothing to tell, whatever has become of the session.
func TestClosingWhatWasOnlyReadDoesNotFail(t *testing.T) {
	m, dir := mount(t, newDrive(t), Options{})
	path := filepath.Join(dir, "file")
	must(t, os.WriteFile(path, []byte("content"), 0o644))
	f, err := os.Open(path)
	must(t, err)
	m.Suspend(auth.ErrExpired)
	if err := f.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}
