package integration

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore/pgstore/pgtest"
)

// A mount that is told to end while it is busy stores what is pending and goes.
func TestASignalInTheMiddleOfACopyDrainsAndUnmounts(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			onEachStore(t, func(t *testing.T, s *store) {
				alice := s.addUser(t, "alice")
				m := s.mount(t, alice)
				c := copyInto(t, m.point)
				c.waitUntilBusy(t)
				check(t, m.cmd.Process.Signal(signal))
				c.done.Wait() // it fails soon
				whole := c.finish(t)
				m.wait(t)
				entries, err := os.ReadDir(m.point)
				check(t, err)
				if len(entries) != 0 {
					t.Errorf("%d files came to be in the folder under the mount", len(entries))
				}

				m = s.mountAt(t, alice, m.point)
				areWhole(t, m.point, whole)
			})
		})
	}
}

// mediafs umount of a drive that is in use stores what was written, takes the drive away from its folder at once, and returns
// when the last file on it is closed. Until then what is open can be read; writing to it fails or, where the kernel writes to a
// plain file by itself, is stored as well.
func TestUmountStoresWhatIsOpenAndWaitsUntilItIsClosed(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		file, err := os.Create(m.path("in use"))
		check(t, err)
		defer file.Close()
		_, err = file.WriteString("written before")
		check(t, err)

		path, err := program()
		check(t, err)
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		umount := s.person.command(ctx, "/", path, "umount", m.point)
		check(t, umount.Start())
		waitUntilUnmounted(t, m.point)
		want := "written before"
		if _, err := file.WriteString(" and after"); err == nil {
			want += " and after"
		}
		got := make([]byte, 100)
		n, err := file.ReadAt(got, 0)
		if !errors.Is(err, io.EOF) || string(got[:n]) != want {
			t.Errorf("read %q, %v", got[:n], err)
		}
		select {
		case <-m.ended:
			t.Error("mediafs mount ended before the file was closed")
		default:
		}
		check(t, file.Close())
		check(t, umount.Wait())
		m.wait(t)

		m = s.mountAt(t, alice, m.point)
		if got := readFile(t, m.path("in use")); got != want {
			t.Errorf("after mounting again it holds %q", got)
		}
	})
}

// waitUntilUnmounted waits for the kernel to say that its mounts have changed, proc_pid_mounts(5), until one is gone.
func waitUntilUnmounted(t *testing.T, point string) {
	t.Helper()
	table, err := os.Open("/proc/self/mounts")
	check(t, err)
	defer table.Close()
	for isMounted(t, point) {
		changed := []unix.PollFd{{Fd: int32(table.Fd()), Events: unix.POLLPRI}}
		n, err := unix.Poll(changed, int(deadline.Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		} else if err == nil && n == 0 {
			t.Fatalf("%s is still mounted after %v", point, deadline)
		}
	}
}

// A mount of a drive in use, which is told to end while its database is away, and killed when it waits for what it asks of itself,
// is gone: those who use it are told so, and none of them waits for ever.
func TestAMountThatIsKilledWhileItUnmountsHoldsNobodyUp(t *testing.T) {
	requireRoot(t) // to see what processes wait for
	t.Parallel()
	cluster := pgtest.NewCluster(t)
	s := bareStore(t, postgres, person{})
	s.database = cluster.URL("postgres")
	s.address = s.database
	s.mediafs(t, "init", "--store", s.address).ok(t)
	m := s.mount(t, s.addUser(t, "alice"), "--timeout", "5s")
	file, err := os.Create(m.path("in use"))
	check(t, err)
	check(t, file.Sync())
	check(t, cluster.Stop(pgtest.Immediate))
	check(t, m.cmd.Process.Signal(syscall.SIGTERM))
	waitFor(t, "the mount waits for an answer of its own", func() bool { return waitsForAMount(m.cmd.Process.Pid) })
	check(t, m.cmd.Process.Kill())
	select {
	case <-m.ended:
	case <-time.After(time.Minute):
		check(t, unix.Unmount(m.point, unix.MNT_FORCE|unix.MNT_DETACH)) // lets everybody go
		t.Fatal("the program does not end after it was killed")
	}
	if err := os.Mkdir(m.path("new"), 0o755); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("making a folder: %v, want ENOTCONN", err)
	}
	_ = file.Close() // says that the drive is gone
	m.clear(t)
	check(t, cluster.Start())
}

// waitsForAMount says whether a thread of a process or one of its children waits for an answer of FUSE.
func waitsForAMount(pid int) bool {
	tasks, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*")
	for _, task := range tasks { // each may end at any time
		if function, err := os.ReadFile(filepath.Join(task, "wchan")); err == nil && string(function) == "request_wait_answer" {
			return true
		}
		children, _ := os.ReadFile(filepath.Join(task, "children"))
		for child := range strings.FieldsSeq(string(children)) {
			if n, err := strconv.Atoi(child); err == nil && waitsForAMount(n) {
				return true
			}
		}
	}
	return false
}
