package integration

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A mount is a drive mounted by a mediafs in the foreground.
type mount struct {
	s      *store
	point  string
	line   string // what it printed when it was ready
	cmd    *exec.Cmd
	stderr *output
	ended  chan struct{} // closed when the program has ended
	code   int           // how it ended
}

// An output collects what a program that still runs prints.
type output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// mount mounts a user's drive on a new folder. When the test ends it is unmounted, if it still is mounted.
func (s *store) mount(t testing.TB, u user, options ...string) *mount {
	t.Helper()
	return s.mountAt(t, u, s.mountpoint(t), options...)
}

// mountpoint makes a folder to mount on.
func (s *store) mountpoint(t testing.TB) string {
	t.Helper()
	point, err := os.MkdirTemp(s.dir, "mnt")
	check(t, err)
	give(t, s.person, point)
	return point
}

func (s *store) mountAt(t testing.TB, u user, point string, options ...string) *mount {
	t.Helper()
	path, err := program()
	check(t, err)
	return s.mountWith(t, path, u, point, options...)
}

// mountWith mounts with a certain build of the program.
func (s *store) mountWith(t testing.TB, path string, u user, point string, options ...string) *mount {
	t.Helper()
	return s.mountAs(t, path, point, append([]string{"--token-file", u.tokenFile}, options...)...)
}

// mountAs mounts what the options say.
func (s *store) mountAs(t testing.TB, path, point string, options ...string) *mount {
	t.Helper()
	args := append([]string{path, "mount", "--store", s.address}, options...)
	m := &mount{s: s, point: point, stderr: &output{}, ended: make(chan struct{})}
	m.cmd = s.person.command(context.Background(), s.dir, append(args, point)...)
	m.cmd.Stderr = m.stderr
	// A drive that outlives a killed test would be in the way: end as by Ctrl-C.
	m.cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	stdout, err := m.cmd.StdoutPipe()
	check(t, err)
	check(t, m.cmd.Start())
	lines := make(chan string, 1)
	go func() {
		defer close(m.ended)
		r := bufio.NewReader(stdout)
		line, _ := r.ReadString('\n') // at its end what is there
		lines <- strings.TrimSpace(line)
		_, _ = io.Copy(io.Discard, r) // until the program ends
		_ = m.cmd.Wait()              // the code tells
		m.code = m.cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() { m.cleanUp(t) })
	select {
	case m.line = <-lines:
	case <-time.After(deadline):
		t.Fatalf("mount %s: not ready after %v\n%s", point, deadline, m.stderr)
	}
	if !strings.HasPrefix(m.line, "mounted ") {
		<-m.ended
		t.Fatalf("mount %s: exit code %d, printed %q\n%s", point, m.code, m.line, m.stderr)
	}
	return m
}

// path is the path of something on the drive.
func (m *mount) path(elements ...string) string {
	return filepath.Join(append([]string{m.point}, elements...)...)
}

// unmount unmounts with mediafs umount, which drains what is pending, and waits until the program has ended well.
func (m *mount) unmount(t testing.TB) {
	t.Helper()
	m.s.mediafs(t, "umount", m.point).ok(t)
	m.wait(t)
}

// wait waits for the program, which has been told to end, and for an end without errors.
func (m *mount) wait(t testing.TB) {
	t.Helper()
	m.waitForEnd(t)
	if m.code != 0 {
		t.Errorf("mediafs mount ended with code %d\n%s", m.code, m.stderr)
	}
	if isMounted(t, m.point) {
		t.Errorf("%s is still mounted", m.point)
	}
	m.checkRaces(t)
}

// waitForEnd waits for the program, however it ends.
func (m *mount) waitForEnd(t testing.TB) {
	t.Helper()
	select {
	case <-m.ended:
	case <-time.After(deadline):
		m.quit(t)
		t.Fatalf("mediafs mount still runs %v after it was told to end\n%s", deadline, m.stderr)
	}
}

// quit ends a program that hangs, and has it say where.
func (m *mount) quit(t testing.TB) {
	t.Helper()
	if err := m.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Error(err)
	}
	select {
	case <-m.ended:
	case <-time.After(deadline):
		_ = m.cmd.Process.Kill()
		<-m.ended
	}
}

func (m *mount) checkRaces(t testing.TB) {
	t.Helper()
	if strings.Contains(m.stderr.String(), "DATA RACE") {
		t.Errorf("mediafs mount: %s", m.stderr)
	}
}

// kill ends the program as kill -9 does. What is left of the mount is there until it is cleared.
func (m *mount) kill(t testing.TB) {
	t.Helper()
	check(t, m.cmd.Process.Kill())
	<-m.ended
	m.checkRaces(t)
}

// clear takes away what a killed program has left of a mount.
func (m *mount) clear(t testing.TB) {
	t.Helper()
	if isMounted(t, m.point) {
		m.s.mediafs(t, "umount", m.point).ok(t)
	}
	if isMounted(t, m.point) {
		t.Fatalf("%s is still mounted after its program was killed and mediafs umount succeeded", m.point)
	}
}

func (m *mount) cleanUp(t testing.TB) {
	select {
	case <-m.ended:
	default:
		if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		select {
		case <-m.ended:
			m.checkRaces(t)
			if m.code != 0 {
				t.Errorf("mediafs mount, told to end, ended with code %d\n%s", m.code, m.stderr)
			}
		case <-time.After(time.Minute):
			m.quit(t)
			t.Errorf("mediafs mount does not end\n%s", m.stderr)
		}
	}
	if t.Failed() {
		t.Logf("mediafs mount %s said:\n%s", m.point, m.stderr)
	}
	if isMounted(t, m.point) {
		t.Errorf("%s was still mounted after its program ended", m.point)
		// Nothing of the drive may be there when the test's folder is removed.
		if out, err := exec.Command("umount", "-l", m.point).CombinedOutput(); err != nil {
			t.Errorf("umount -l: %v: %s", err, out)
		}
	}
}

// A mountEntry is a line of /proc/self/mounts, see fstab(5).
type mountEntry struct {
	source, fstype string
	options        []string
}

// mounted returns what is mounted on a folder last, or nil.
func mounted(t testing.TB, point string) *mountEntry {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	check(t, err)
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var last *mountEntry
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) >= 4 && unescape.Replace(fields[1]) == point {
			last = &mountEntry{unescape.Replace(fields[0]), fields[2], strings.Split(fields[3], ",")}
		}
	}
	return last
}

func isMounted(t testing.TB, point string) bool {
	t.Helper()
	return mounted(t, point) != nil
}

// peakMemory is the most memory that the program has had so far, in bytes: VmHWM of proc_pid_status(5).
func (m *mount) peakMemory(t testing.TB) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.cmd.Process.Pid))
	check(t, err)
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmHWM:" {
			kilobytes, err := strconv.ParseInt(fields[1], 10, 64)
			check(t, err)
			return kilobytes << 10
		}
	}
	t.Fatalf("no VmHWM in %s", status)
	return 0
}
