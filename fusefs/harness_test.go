package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/memstore"
)

// patience is how long a test waits for what must come; only a failure uses it up.
const patience = 30 * time.Second

// nobody is a user who is not root and owns nothing.
const nobody = 65534

// helpers are what the test program does when it runs itself as another process, by the name in the environment variable
// helperEnv. They return what to say on stderr before exiting with 1.
var helpers = map[string]func(args []string) error{}

const helperEnv = "FUSEFS_TEST_HELPER"

func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		if err := helpers[name](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// helper prepares this program to run as one of the helpers, as the user uid.
func helper(t *testing.T, uid uint32, name string, args ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	must(t, err)
	if uid != 0 {
		program = readable(t, program)
	}
	command := exec.Command(program, args...)
	command.Env = append(os.Environ(), helperEnv+"="+name)
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	command.Stderr = t.Output()
	return command
}

// readable copies a program to where every user can run it.
func readable(t *testing.T, program string) string {
	t.Helper()
	from, err := os.Open(program)
	must(t, err)
	defer from.Close()
	path := filepath.Join(openTempDir(t), "helper")
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(to, from)
	must(t, errors.Join(err, to.Close()))
	return path
}

// openTempDir is t.TempDir for every user.
func openTempDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chmod(dir, 0o755))
	return dir
}

// shellAs runs a shell script in a folder, as a user, and returns what it says. The shell goes to the folder itself: were the
// child to go there before it is another program, this program would wait for that to end, and so could not answer the child.
func shellAs(uid uint32, dir, script string) (string, error) {
	command := exec.Command("/bin/sh", "-ec", `cd "$0"; `+script, dir)
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	said, err := command.CombinedOutput()
	return string(bytes.TrimSpace(said)), err
}

// needFuse skips the test on a machine without FUSE, and fails it in CI, where there must be one.
func needFuse(t testing.TB) {
	t.Helper()
	if err := checkMounter(os.Geteuid() == 0); err != nil {
		need(t, err.Error())
	}
}

// needRoot is needFuse for a test that also acts as other users.
func needRoot(t testing.TB) {
	t.Helper()
	needFuse(t)
	if os.Geteuid() != 0 {
		need(t, "this test has to be run by root")
	}
}

func need(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// newDrive opens an empty drive in memory.
func newDrive(t testing.TB) blobstore.Drive {
	t.Helper()
	drive, err := memstore.New().Open(context.Background(), auth.Session{User: "alice", Role: auth.RoleUser})
	must(t, err)
	return drive
}

// mount mounts a drive until the test ends, and returns the folder it is in.
func mount(t testing.TB, drive blobstore.Drive, o Options) (*Mount, string) {
	t.Helper()
	needFuse(t)
	o.Mountpoint = filepath.Join(openTempDir(t), "mnt")
	must(t, os.Mkdir(o.Mountpoint, 0o755))
	if o.FSName == "" {
		o.FSName = "mediafs:alice"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	m, err := New(drive, o)
	must(t, err)
	t.Cleanup(func() { unmount(t, m) })
	return m, o.Mountpoint
}

func unmount(t testing.TB, m *Mount) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := m.Unmount(ctx); err != nil {
		t.Errorf("unmount: %v", err)
	}
}

// wantErr checks that an error is what it should be; nil wants none.
func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

// must fails the test at once on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// soon waits for what comes through a channel.
func soon[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not come", what)
		panic("unreachable")
	}
}

// attrOf returns what a drive itself says of a file in its root folder.
func attrOf(t testing.TB, drive blobstore.Drive, name string) blobstore.Attr {
	t.Helper()
	attr, err := drive.Lookup(context.Background(), blobstore.RootIno, name)
	must(t, err)
	drive.Forget(attr.Ino, 1)
	return attr
}

// wrapped is a drive of which a test changes some methods. A nil function leaves the drive's own.
type wrapped struct {
	blobstore.Drive
	owner   func() (uid, gid uint32)
	lookup  func(ctx context.Context, parent blobstore.Ino, name string) (blobstore.Attr, error)
	setAttr func(ctx context.Context, ino blobstore.Ino, c blobstore.AttrChange) (blobstore.Attr, error)
	open    func(ctx context.Context, ino blobstore.Ino, flags blobstore.OpenFlags) (blobstore.File, error)
	file    func(blobstore.File) blobstore.File // what Open and Create return instead
}

func (w *wrapped) Owner() (uid, gid uint32) {
	if w.owner != nil {
		return w.owner()
	}
	return w.Drive.Owner()
}

func (w *wrapped) Lookup(ctx context.Context, parent blobstore.Ino, name string) (blobstore.Attr, error) {
	if w.lookup != nil {
		return w.lookup(ctx, parent, name)
	}
	return w.Drive.Lookup(ctx, parent, name)
}

func (w *wrapped) SetAttr(ctx context.Context, ino blobstore.Ino, c blobstore.AttrChange) (blobstore.Attr, error) {
	if w.setAttr != nil {
		return w.setAttr(ctx, ino, c)
	}
	return w.Drive.SetAttr(ctx, ino, c)
}

func (w *wrapped) Open(ctx context.Context, ino blobstore.Ino, flags blobstore.OpenFlags) (blobstore.File, error) {
	if w.open != nil {
		return w.open(ctx, ino, flags)
	}
	file, err := w.Drive.Open(ctx, ino, flags)
	if err == nil && w.file != nil {
		file = w.file(file)
	}
	return file, err
}

func (w *wrapped) Create(
	ctx context.Context, parent blobstore.Ino, name string, node blobstore.NewNode, flags blobstore.OpenFlags,
) (blobstore.File, blobstore.Attr, bool, error) {
	file, attr, created, err := w.Drive.Create(ctx, parent, name, node, flags)
	if err == nil && w.file != nil {
		file = w.file(file)
	}
	return file, attr, created, err
}

// discard is a log for tests that make requests fail on purpose.
var discard = slog.New(slog.DiscardHandler)
