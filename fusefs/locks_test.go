package fusefs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/memstore"
)

func init() {
	// locker PATH does what it is told on stdin, a command a line, and answers each with a line: "ok", or an errno.
	helpers["locker"] = func(args []string) error {
		f, err := os.OpenFile(args[0], os.O_RDWR, 0)
		if err != nil {
			return err
		}
		fmt.Println("ok")
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			if err := lockerDoes(f, args[0], lines.Text()); err != nil {
				fmt.Println(errnoName(err))
			} else {
				fmt.Println("ok")
			}
		}
		return lines.Err()
	}
	// waiters PATH N has N wait for a flock lock of the file, and says when all have had it.
	helpers["waiters"] = func(args []string) error {
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		fmt.Println("ok")
		failed := make(chan error, n)
		for range n {
			go func() {
				f, err := os.Open(args[0])
				if err == nil {
					err = errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_EX), f.Close())
				}
				failed <- err
			}()
		}
		for range n {
			if err := <-failed; err != nil {
				return err
			}
		}
		fmt.Println("all")
		return nil
	}
	// holder inherits a locked file as its descriptor 3 and keeps it open until stdin ends.
	helpers["holder"] = func([]string) error {
		fmt.Println("ok")
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	}
}

func errnoName(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// lockerDoes is one command of a locker: see lockCommands.
func lockerDoes(f *os.File, path, command string) error {
	do, ok := lockCommands[command]
	if !ok {
		return errors.New("no such command")
	}
	return do(f, path)
}

var lockCommands = map[string]func(f *os.File, path string) error{
	"fcntl write":        func(f *os.File, _ string) error { return fcntl(f, unix.F_SETLK, unix.F_WRLCK) },
	"fcntl read":         func(f *os.File, _ string) error { return fcntl(f, unix.F_SETLK, unix.F_RDLCK) },
	"fcntl unlock":       func(f *os.File, _ string) error { return fcntl(f, unix.F_SETLK, unix.F_UNLCK) },
	"fcntl wait write":   func(f *os.File, _ string) error { return fcntl(f, unix.F_SETLKW, unix.F_WRLCK) },
	"ofd write":          func(f *os.File, _ string) error { return fcntl(f, unix.F_OFD_SETLK, unix.F_WRLCK) },
	"fcntl write 0":      func(f *os.File, _ string) error { return fcntlByte(f, unix.F_SETLK, 0) },
	"fcntl write 1":      func(f *os.File, _ string) error { return fcntlByte(f, unix.F_SETLK, 1) },
	"fcntl wait write 0": func(f *os.File, _ string) error { return fcntlByte(f, unix.F_SETLKW, 0) },
	"fcntl wait write 1": func(f *os.File, _ string) error { return fcntlByte(f, unix.F_SETLKW, 1) },
	"flock write":        func(f *os.File, _ string) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) },
	"flock read":         func(f *os.File, _ string) error { return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) },
	"flock wait write":   func(f *os.File, _ string) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX) },
	"flock unlock":       func(f *os.File, _ string) error { return unix.Flock(int(f.Fd()), unix.LOCK_UN) },
	"close another": func(_ *os.File, path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return f.Close()
	},
}

func fcntl(f *os.File, command int, lock int16) error {
	return unix.FcntlFlock(f.Fd(), command, &unix.Flock_t{Type: lock})
}

func fcntlByte(f *os.File, command int, at int64) error {
	return unix.FcntlFlock(f.Fd(), command, &unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1})
}

// A lockProcess is another process that locks a file.
type lockProcess struct {
	t       *testing.T
	command *exec.Cmd
	stdin   io.WriteCloser
	said    chan string
}

func newLockProcess(t *testing.T, command *exec.Cmd) *lockProcess {
	t.Helper()
	p := &lockProcess{t: t, command: command, said: make(chan string)}
	var err error
	p.stdin, err = command.StdinPipe()
	must(t, err)
	stdout, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			p.said <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		p.end()
		soon(t, "the end of what a process says", done)
	})
	p.says("ok")
	return p
}

func lockerOn(t *testing.T, path string) *lockProcess {
	t.Helper()
	return newLockProcess(t, helper(t, 0, "locker", path))
}

// end kills the process, if it is not dead yet.
func (p *lockProcess) end() {
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
	_ = p.stdin.Close()
}

func (p *lockProcess) tell(command string) {
	p.t.Helper()
	_, err := io.WriteString(p.stdin, command+"\n")
	must(p.t, err)
}

func (p *lockProcess) says(want string) {
	p.t.Helper()
	if got := soon(p.t, "an answer", p.said); got != want {
		p.t.Fatalf("another process says %q, want %q", got, want)
	}
}

func (p *lockProcess) does(command, want string) {
	p.t.Helper()
	p.tell(command)
	if got := soon(p.t, "the answer to "+command, p.said); got != want {
		p.t.Fatalf("%s: got %q, want %q", command, got, want)
	}
}

// waiting waits until so many wait for a lock.
func waiting(t *testing.T, m *Mount, n int) {
	t.Helper()
	var now int
	for begun := time.Now(); time.Since(begun) < patience; runtime.Gosched() {
		m.fs.waiting.mu.Lock()
		now = len(m.fs.waiting.all)
		m.fs.waiting.mu.Unlock()
		if now == n {
			return
		}
	}
	t.Fatalf("%d wait for a lock, want %d", now, n)
}

// twoMounts mounts one drive twice, and makes a file in it.
func twoMounts(t *testing.T) (m *Mount, one, other string) {
	t.Helper()
	store := memstore.New()
	open := func() blobstore.Drive {
		drive, err := store.Open(context.Background(), auth.Session{User: "alice", Role: auth.RoleUser})
		must(t, err)
		return drive
	}
	m, dir := mount(t, open(), Options{})
	_, second := mount(t, open(), Options{})
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o666))
	return m, filepath.Join(dir, "file"), filepath.Join(second, "file")
}

func TestLocksExcludeInTheMountAndBetweenMounts(t *testing.T) {
	needRoot(t)
	_, one, other := twoMounts(t)
	for _, kind := range []string{"fcntl", "flock"} {
		for _, path := range []string{one, other} {
			p, q := lockerOn(t, one), lockerOn(t, path)
			p.does(kind+" write", "ok")
			q.does(kind+" read", "EAGAIN")
			p.does(kind+" read", "ok")
			q.does(kind+" read", "ok")
			q.does(kind+" write", "EAGAIN")
			p.does(kind+" unlock", "ok")
			q.does(kind+" write", "ok")
			p.does(kind+" read", "EAGAIN")
			q.end()
			p.tell(kind + " wait write") // an ended process holds nothing, once the kernel has said so
			p.says("ok")
			p.end()
		}
	}
}

func TestWhoWaitsGetsTheLock(t *testing.T) {
	needRoot(t)
	m, one, other := twoMounts(t)
	for _, kind := range []string{"fcntl", "flock"} {
		p, q, r := lockerOn(t, one), lockerOn(t, one), lockerOn(t, other)
		p.does(kind+" write", "ok")
		q.tell(kind + " wait write")
		waiting(t, m, 1)
		r.tell(kind + " wait write")
		p.does(kind+" unlock", "ok")
		select {
		case said := <-q.said:
			if said != "ok" {
				t.Fatal(said)
			}
			q.does(kind+" unlock", "ok")
			r.says("ok")
		case said := <-r.said:
			if said != "ok" {
				t.Fatal(said)
			}
			r.does(kind+" unlock", "ok")
			q.says("ok")
		}
		for _, p := range []*lockProcess{p, q, r} {
			p.end()
		}
	}
}

// POSIX has it that closing any descriptor of a file lets go of all that the process has locked of it.
func TestClosingAnyDescriptorEndsTheLocksOfAProcessButNotThoseOfOtherFiles(t *testing.T) {
	needRoot(t)
	_, path, _ := twoMounts(t)
	p, q := lockerOn(t, path), lockerOn(t, path)
	p.does("fcntl write", "ok")
	p.does("close another", "ok")
	q.does("fcntl write", "ok")
	q.does("fcntl unlock", "ok")

	p.does("ofd write", "ok")
	p.does("flock write", "ok")
	p.does("close another", "ok")
	q.does("fcntl read", "EAGAIN")
	q.does("ofd write", "EAGAIN")
	q.does("flock read", "EAGAIN")
	p.end()
	q.tell("fcntl wait write") // the kernel releases the file after it has said that the process has ended
	q.says("ok")
	q.tell("flock wait write")
	q.says("ok")
}

func TestDescriptorsOfOneProcessExcludeByFlockAndOpenFileLocks(t *testing.T) {
	needFuse(t)
	_, path, _ := twoMounts(t)
	var files [2]*os.File
	for i := range files {
		var err error
		files[i], err = os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		t.Cleanup(func() { files[i].Close() })
	}
	for _, command := range []string{"flock write", "ofd write"} {
		must(t, lockCommands[command](files[0], path))
		must(t, lockCommands[command](files[0], path))
		wantErr(t, command+" of a second descriptor", lockCommands[command](files[1], path), unix.EAGAIN)
	}
	must(t, lockCommands["fcntl unlock"](files[0], path)) // it is no lock of the process
	wantErr(t, "ofd write after the process unlocked what it has not locked", lockCommands["ofd write"](files[1], path), unix.EAGAIN)
}

func TestALockThatAForkedProcessInheritedIsHeldWithTheFile(t *testing.T) {
	needRoot(t)
	_, path, _ := twoMounts(t)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	must(t, fcntl(f, unix.F_SETLK, unix.F_WRLCK))
	command := helper(t, 0, "holder")
	command.ExtraFiles = []*os.File{f}
	child := newLockProcess(t, command)
	must(t, f.Close())
	q := lockerOn(t, path)
	q.does("flock read", "EAGAIN")
	q.does("fcntl write", "ok") // those of the process that closed it are over
	child.end()
	q.tell("flock wait write")
	q.says("ok")
}

func TestWaitingForALockEndsWithASignal(t *testing.T) {
	needRoot(t)
	m, path, _ := twoMounts(t)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	must(t, fcntl(f, unix.F_SETLK, unix.F_WRLCK))

	// Perl's handlers are installed without SA_RESTART, so the system call has to end.
	for _, wait := range []string{`fcntl($f, 7, $lock)`, `flock($f, 2)`} { // F_SETLKW, F_WRLCK; LOCK_EX
		command := exec.Command("perl", "-MPOSIX", "-e", `
			$| = 1;
			sigaction(SIGUSR1, POSIX::SigAction->new(sub {}));
			open(my $f, "+<", $ARGV[0]) or die;
			my $lock = pack("s s x4 q q i x4", 1, 0, 0, 0, 0);
			print "ok\n";
			print `+wait+` ? "locked\n" : $! == EINTR ? "EINTR\n" : "$!\n";
			<STDIN>`, path)
		command.Stderr = t.Output()
		p := newLockProcess(t, command)
		waiting(t, m, 1)
		must(t, command.Process.Signal(syscall.SIGUSR1))
		p.says("EINTR")
		waiting(t, m, 0)
		p.end()
	}
}

func TestWaitingForALockEndsWithTheSessionAndWithTheMount(t *testing.T) {
	needRoot(t)
	m, path, _ := twoMounts(t)
	p, q := lockerOn(t, path), lockerOn(t, path)
	p.does("fcntl write", "ok")
	q.tell("fcntl wait write")
	waiting(t, m, 1)
	m.Suspend(auth.ErrExpired)
	q.says("EKEYEXPIRED")
	m.Resume()

	q.tell("fcntl wait write")
	waiting(t, m, 1)
	unmounted := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		unmounted <- m.Unmount(ctx)
	}()
	q.says("EROFS") // in use, it is detached: nothing can be changed any more
	p.end()
	q.end()
	must(t, soon(t, "the end of unmounting", unmounted))
}

func TestAThousandWhoWaitStarveNobody(t *testing.T) {
	needRoot(t)
	m, path, _ := twoMounts(t)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	const many = 1000
	p := newLockProcess(t, helper(t, 0, "waiters", path, strconv.Itoa(many)))
	waiting(t, m, many)
	other := filepath.Join(filepath.Dir(path), "other")
	must(t, os.WriteFile(other, []byte(strings.Repeat("x", 1<<20)), 0o644))
	got, err := os.ReadFile(other)
	must(t, err)
	if len(got) != 1<<20 {
		t.Errorf("read %d bytes", len(got))
	}
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_UN))
	p.says("all")
	waiting(t, m, 0)
}

func TestALockThatIsInTheWayIsTold(t *testing.T) {
	needRoot(t)
	_, one, other := twoMounts(t)
	p := lockerOn(t, one)
	p.does("fcntl read", "ok")
	for path, pid := range map[string]int{one: p.command.Process.Pid, other: 0} {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		t.Cleanup(func() { f.Close() })
		lock := unix.Flock_t{Type: unix.F_WRLCK, Start: 5, Len: 5}
		must(t, unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock))
		if lock.Type != unix.F_RDLCK || int(lock.Pid) != pid || lock.Start != 0 || lock.Len != 0 {
			t.Errorf("got %+v, want a read lock of all the file by process %d", lock, pid)
		}
		lock = unix.Flock_t{Type: unix.F_RDLCK}
		must(t, unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock))
		if lock.Type != unix.F_UNLCK {
			t.Errorf("got %+v, want none", lock)
		}
	}
}

func TestTwoProcessesThatWaitForEachOtherAreTold(t *testing.T) {
	needFuse(t)
	_, path, _ := twoMounts(t)
	p, q := lockerOn(t, path), lockerOn(t, path)
	p.does("fcntl write 0", "ok")
	q.does("fcntl write 1", "ok")
	p.tell("fcntl wait write 1")
	q.tell("fcntl wait write 0")
	// One is told; when it lets go, the other has its lock.
	select {
	case said := <-p.said:
		if said != "EDEADLK" {
			t.Fatal(said)
		}
		p.does("fcntl unlock", "ok")
		q.says("ok")
	case said := <-q.said:
		if said != "EDEADLK" {
			t.Fatal(said)
		}
		q.does("fcntl unlock", "ok")
		p.says("ok")
	}
}

// The kernel says that a file is closed without waiting for the answer. A script that locks again at once finds it free all the same.
func TestALockIsFreeWhenItsFileIsClosed(t *testing.T) {
	needFuse(t)
	_, path, _ := twoMounts(t)
	for i := range 500 {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		if err := errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), f.Close()); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
}

// A drive that keeps no locks leaves them to the kernel.
func TestLocksOfADriveThatKeepsNoneAreTheKernels(t *testing.T) {
	needRoot(t)
	m, dir := mount(t, struct{ blobstore.Drive }{newDrive(t)}, Options{})
	path := filepath.Join(dir, "file")
	must(t, os.WriteFile(path, nil, 0o644))
	p, q := lockerOn(t, path), lockerOn(t, path)
	for _, kind := range []string{"fcntl", "flock"} {
		p.does(kind+" write", "ok")
		q.does(kind+" read", "EAGAIN")
	}
	if m.fs.locks {
		t.Error("the kernel asks for locks")
	}
}
