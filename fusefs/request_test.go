package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// slowFile is a file of which reads, writes and syncs wait until the context ends or the test lets them go on.
type slowFile struct {
	blobstore.File
	entered chan context.Context // told of each that waits
	goOn    chan struct{}
}

func (f *slowFile) wait(ctx context.Context) error {
	f.entered <- ctx
	select {
	case <-ctx.Done():
		return fmt.Errorf("waiting: %w", context.Cause(ctx))
	case <-f.goOn:
		return nil
	}
}

func (f *slowFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := f.wait(ctx); err != nil {
		return 0, err
	}
	return f.File.ReadAt(ctx, p, off)
}

func (f *slowFile) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := f.wait(ctx); err != nil {
		return 0, err
	}
	return f.File.WriteAt(ctx, p, off)
}

// newSlowDrive has a file "file" that is a slowFile whenever it is opened.
func newSlowDrive(t *testing.T) (*wrapped, *slowFile) {
	slow := &slowFile{entered: make(chan context.Context, 100), goOn: make(chan struct{})}
	drive := &wrapped{Drive: newDrive(t)}
	file, _, _, err := drive.Create(t.Context(), blobstore.RootIno, "file", blobstore.NewNode{Mode: unix.S_IFREG | 0o666}, blobstore.OpenWrite)
	must(t, err)
	_, err = file.WriteAt(t.Context(), []byte("content"), 0)
	must(t, errors.Join(err, file.Close()))
	drive.file = func(f blobstore.File) blobstore.File {
		return &slowFile{File: f, entered: slow.entered, goOn: slow.goOn}
	}
	return drive, slow
}

func TestOperationsEndAtTheirDeadline(t *testing.T) {
	drive, _ := newSlowDrive(t)
	drive.setAttr = func(ctx context.Context, _ blobstore.Ino, _ blobstore.AttrChange) (blobstore.Attr, error) {
		<-ctx.Done()
		return blobstore.Attr{}, context.Cause(ctx)
	}
	m, dir := mount(t, drive, Options{Timeout: 100 * time.Millisecond, Logger: discard})
	path := filepath.Join(dir, "file")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	_, err = f.Read(make([]byte, 1))
	wantErr(t, "read", err, unix.ETIMEDOUT)
	_, err = f.Write([]byte("x"))
	wantErr(t, "write", err, unix.ETIMEDOUT)
	wantErr(t, "chmod", os.Chmod(path, 0o600), unix.ETIMEDOUT)
	if got := m.Stats().Errors; got < 3 {
		t.Errorf("got %d errors counted, want at least 3", got)
	}
}

func init() {
	// stat PATH says how long a file is, and takes no harm from SIGUSR1.
	helpers["stat"] = func(args []string) error {
		signal.Notify(make(chan os.Signal, 1), unix.SIGUSR1)
		var st unix.Stat_t
		// A bare system call: package os would try again after EINTR.
		if err := unix.Lstat(args[0], &st); err != nil {
			return fmt.Errorf("lstat: %w", err)
		}
		fmt.Print(st.Size)
		return nil
	}
}

// waitingLookup is a drive with a file of which lookups wait until their context ends or goOn is closed.
func waitingLookup(t *testing.T) (drive *wrapped, entered chan context.Context, goOn chan struct{}) {
	entered, goOn = make(chan context.Context, 100), make(chan struct{})
	drive, _ = newSlowDrive(t)
	drive.lookup = func(ctx context.Context, parent blobstore.Ino, name string) (blobstore.Attr, error) {
		entered <- ctx
		select {
		case <-ctx.Done():
			return blobstore.Attr{}, fmt.Errorf("waiting: %w", context.Cause(ctx))
		case <-goOn:
			return drive.Drive.Lookup(ctx, parent, name)
		}
	}
	return drive, entered, goOn
}

// signalled waits until the kernel says that a signal has reached the caller that waits for an answer.
func signalled(t *testing.T, ctx context.Context) {
	t.Helper()
	select {
	case <-ctx.(*interruptible).interrupt:
	case <-time.After(patience):
		t.Fatal("no interrupt came")
	}
}

// signalWaiter sends SIGUSR1 to the very thread that waits for an answer: another one of a Go program might take it.
func signalWaiter(ctx context.Context, process int) error {
	return unix.Tgkill(process, int(ctx.(*interruptible).caller), unix.SIGUSR1)
}

func TestHarmlessSignalDoesNotInterrupt(t *testing.T) {
	drive, entered, goOn := waitingLookup(t)
	_, dir := mount(t, drive, Options{Timeout: patience})
	command := helper(t, uint32(os.Geteuid()), "stat", filepath.Join(dir, "file"))
	stdout, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	ctx := soon(t, "the lookup", entered)
	must(t, signalWaiter(ctx, command.Process.Pid))
	signalled(t, ctx)
	if err := ctx.Err(); err != nil {
		t.Errorf("the lookup has ended: %v", err)
	}
	close(goOn)
	got, err := io.ReadAll(stdout)
	must(t, errors.Join(err, command.Wait()))
	if string(got) != "7" {
		t.Errorf("the program got size %q, want 7", got)
	}
}

func TestKilledCallerInterrupts(t *testing.T) {
	for _, c := range []struct {
		what        string
		harmlessToo bool
		kill        unix.Signal
	}{
		{"SIGKILL", false, unix.SIGKILL},
		{"SIGTERM, which the program does not catch", false, unix.SIGTERM},
		{"SIGKILL after a harmless signal, when the kernel says nothing more", true, unix.SIGKILL},
	} {
		t.Run(c.what, func(t *testing.T) {
			drive, entered, _ := waitingLookup(t)
			_, dir := mount(t, drive, Options{Timeout: patience})
			command := helper(t, uint32(os.Geteuid()), "stat", filepath.Join(dir, "file"))
			if c.kill != unix.SIGKILL {
				// Go's runtime catches SIGTERM, so here is a program that does not.
				command.Path, command.Args, command.Env = "/bin/cat", []string{"cat", filepath.Join(dir, "file")}, nil
			}
			must(t, command.Start())
			ctx := soon(t, "the lookup", entered)
			if c.harmlessToo {
				must(t, signalWaiter(ctx, command.Process.Pid))
				signalled(t, ctx)
			}
			must(t, command.Process.Signal(c.kill))
			soon(t, "the end of the lookup", ctx.Done())
			if got := context.Cause(ctx); !errors.Is(got, context.Canceled) {
				t.Errorf("the lookup ended with %v, want %v", got, context.Canceled)
			}
			if err := command.Wait(); err == nil {
				t.Error("the program ended well")
			}
		})
	}
}

func TestWritesAreNotInterrupted(t *testing.T) {
	drive, slow := newSlowDrive(t)
	_, dir := mount(t, drive, Options{Timeout: patience})
	f, err := os.OpenFile(filepath.Join(dir, "file"), os.O_WRONLY, 0)
	must(t, err)
	written := make(chan error, 1)
	go func() {
		_, err := f.Write([]byte("CONTENT"))
		written <- err
	}()
	ctx := soon(t, "the write", slow.entered)
	if _, ok := ctx.(*interruptible); ok {
		t.Error("the context of a write can be interrupted")
	}
	close(slow.goOn)
	must(t, errors.Join(soon(t, "the end of the write", written), f.Close()))
}

func TestContextLooksAtTheCallerWithoutWatching(t *testing.T) {
	fs := newFilesystem(newDrive(t), Options{Timeout: patience, Logger: discard})
	interrupt := make(chan struct{})
	gone := &interruptible{Context: context.Background(), fs: fs, interrupt: interrupt, caller: 1 << 30}
	stopped := false
	ctx, stop := context.WithCancel(context.Background())
	gone.Context, gone.stop = ctx, func() { stopped = true; stop() }
	wantErr(t, "before the interrupt", gone.Err(), nil)
	close(interrupt)
	wantErr(t, "after it, the caller being gone", gone.Err(), context.Canceled)
	if !stopped {
		t.Error("the request was not stopped")
	}
}
