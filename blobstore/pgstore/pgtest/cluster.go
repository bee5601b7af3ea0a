package pgtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A StopMode says how a server is told to stop; see "Shutting Down the Server" in the manual of Postgres.
type StopMode syscall.Signal

// The modes of Stop.
const (
	Smart     = StopMode(syscall.SIGTERM) // waits for all clients to leave
	Fast      = StopMode(syscall.SIGINT)  // ends the clients' connections
	Immediate = StopMode(syscall.SIGQUIT) // ends at once and recovers at the next start
)

var (
	// ErrMissing is that Postgres is not on this machine.
	ErrMissing = errors.New("postgres is not installed (apt-get install postgresql)")
	errRunning = errors.New("the server runs already")
	errStopped = errors.New("the server does not run")
)

// maxSocketPath is how long the path of a Unix socket may be: sun_path of unix(7) less the NUL.
const maxSocketPath = 107

// A Cluster is a Postgres server that can be stopped, killed and started again. That of NewCluster commits durably, as Postgres
// does unless told otherwise. Its methods are not called by two goroutines at once.
type Cluster struct {
	dir    string // holds the data and the socket; named in URLs
	bin    string // where the programs are
	login  *syscall.Credential
	server *server // nil while stopped

	settings []string // beside those of every cluster: name=value
}

// hasty is what makes a cluster that never waits for the disk: it outlives its server, but not its machine. Making and dropping
// databases, which tests do all the time, is ten times as fast.
var hasty = []string{"shared_buffers=256MB", "fsync=off", "full_page_writes=off"}

// durable is what the other clusters of tests have.
var durable = []string{"shared_buffers=256MB"}

// A server is one run of the program.
type server struct {
	process *os.Process
	ready   chan struct{} // closed when clients may connect
	ended   chan struct{} // closed when the server and everything it started are gone
	log     tail
}

// Create makes a cluster for a program that is no test, and starts it: one with Postgres's own settings. The program takes it away with
// Remove; if the program is killed, the server ends by itself.
func Create() (*Cluster, error) {
	clearEnvironment()
	return create("")
}

// create makes a cluster in a new folder of parent, or of the temporary folder if that is empty, and starts it.
func create(parent string, settings ...string) (c *Cluster, err error) {
	c = &Cluster{settings: settings}
	if c.bin, err = findPrograms(); err != nil {
		return nil, err
	}
	if c.login, err = credential(); err != nil {
		return nil, err
	}
	if c.dir, err = os.MkdirTemp(parent, "pg"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(c.dir) // the first error counts
		}
	}()
	if socket := filepath.Join(c.dir, ".s.PGSQL.5432"); len(socket) > maxSocketPath {
		return nil, fmt.Errorf("%s: too long for a socket: set TMPDIR to a shorter folder", socket)
	}
	// The mount's ordinary users have to reach the socket too.
	if err := os.Chmod(c.dir, 0o755); err != nil {
		return nil, err
	}
	if c.login != nil {
		if err := os.Chown(c.dir, int(c.login.Uid), int(c.login.Gid)); err != nil {
			return nil, err
		}
	}
	args := []string{"--pgdata=data", "--auth=trust", "--username=" + Superuser, "--encoding=UTF8", "--locale=C"}
	if parent == "" {
		args = append(args, "--no-sync") // what is lost when the machine crashes while the cluster is made is only a test's
	} else {
		args = append(args, "--data-checksums")
	}
	initdb := c.command(context.Background(), "initdb", args...)
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb in %s: %w\n%s", c.dir, err, out)
	}
	return c, c.Start()
}

// findPrograms returns the folder of the newest Postgres. Debian keeps the programs out of PATH.
func findPrograms() (string, error) {
	type version struct {
		number int
		dir    string
	}
	var found []version
	for _, path := range glob("/usr/lib/postgresql/*/bin/initdb") {
		dir := filepath.Dir(path)
		if n, err := strconv.Atoi(filepath.Base(filepath.Dir(dir))); err == nil {
			found = append(found, version{n, dir})
		}
	}
	if len(found) > 0 {
		return slices.MaxFunc(found, func(a, b version) int { return a.number - b.number }).dir, nil
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dir := strings.TrimSpace(string(out))
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
			return dir, nil
		}
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	return "", ErrMissing
}

func glob(pattern string) []string {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		panic(err) // the pattern is wrong
	}
	return paths
}

// credential is whom the server runs as: the package's system user if we are root, as which Postgres refuses to run, and
// otherwise ourselves.
func credential() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("postgres does not run as root: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// command runs one of Postgres's programs in the cluster's folder, as the cluster's user.
func (c *Cluster) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, program), args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=" + c.bin + ":/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.login}
	return cmd
}

// Run runs one of Postgres's programs to its end, in the cluster's folder and as its user, and returns what it prints. It finds the
// server by itself.
func (c *Cluster) Run(ctx context.Context, program string, args ...string) (string, error) {
	cmd := c.command(ctx, program, args...)
	cmd.Env = append(cmd.Env, "PGHOST="+c.dir, "PGUSER="+Superuser, "PGDATABASE=postgres", "PGDATA=data")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// URL is the address of a database of the cluster, with the superuser's login. It stays the same over restarts.
func (c *Cluster) URL(database string) string {
	return databaseURL(database, url.Values{"host": {c.dir}, "user": {Superuser}})
}

// databaseURL puts an address together. In it %20 is a space and + is a plus, unlike in an address of the web.
func databaseURL(database string, parameters url.Values) string {
	u := url.URL{Scheme: "postgres", Path: "/" + database}
	u.RawQuery = strings.ReplaceAll(parameters.Encode(), "+", "%20")
	return u.String()
}

// Start starts the server and waits until it takes connections.
func (c *Cluster) Start() error {
	if c.Runs() {
		return fmt.Errorf("start postgres in %s: %w", c.dir, errRunning)
	}
	args := []string{"-D", "data",
		"-c", "listen_addresses=",
		"-c", "unix_socket_directories=" + c.dir,
		"-c", "max_connections=100",
		"-c", "logging_collector=off"}
	for _, setting := range c.settings {
		args = append(args, "-c", setting)
	}
	cmd := c.command(context.Background(), "postgres", args...)
	s := &server{ready: make(chan struct{}), ended: make(chan struct{})}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stderr = w
	started := make(chan error)
	go func() {
		defer close(s.ended)
		defer r.Close()
		// The kernel sends the signal when the thread that started the server ends (PR_SET_PDEATHSIG of prctl(2)),
		// so that thread has to be ours until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd.SysProcAttr.Pdeathsig = syscall.Signal(Immediate)
		// A terminal's Ctrl-C is for the tests, which then stop the server.
		cmd.SysProcAttr.Setpgid = true
		err := cmd.Start()
		w.Close()
		if err == nil {
			s.process = cmd.Process
		}
		started <- err
		if err != nil {
			return
		}
		// All processes of the server hold the pipe's other end, so reading ends when the last of them has: only
		// then can a server that was killed be started again.
		s.read(r)
		_ = cmd.Wait() // it was told to end, by whatever signal
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	timeout := time.NewTimer(deadline)
	defer timeout.Stop()
	select {
	case <-s.ready:
		c.server = s
		return nil
	case <-s.ended:
		return fmt.Errorf("postgres in %s did not start:\n%s", c.dir, s.log.String())
	case <-timeout.C:
		_ = s.process.Kill() // it may just have ended
		<-s.ended
		return fmt.Errorf("postgres in %s did not start within %v:\n%s", c.dir, deadline, s.log.String())
	}
}

// read follows the server's log to its end.
func (s *server) read(log io.Reader) {
	lines := bufio.NewReader(log)
	ready := false
	for {
		line, err := lines.ReadString('\n')
		s.log.add(line)
		if !ready && strings.Contains(line, "database system is ready to accept") {
			ready = true
			close(s.ready)
		}
		if err != nil {
			return
		}
	}
}

// Stop stops the server and waits until it is gone.
func (c *Cluster) Stop(mode StopMode) error {
	return c.end(syscall.Signal(mode))
}

// Runs says whether the server runs: it may have ended by itself.
func (c *Cluster) Runs() bool {
	if c.server == nil {
		return false
	}
	select {
	case <-c.server.ended:
		c.server = nil
		return false
	default:
		return true
	}
}

// StartInRecovery is Start for a server that is a standby, which nobody may write to, until it is promoted (pg_promote).
func (c *Cluster) StartInRecovery() error {
	if err := os.WriteFile(filepath.Join(c.dir, "data", "standby.signal"), nil, 0o600); err != nil {
		return err
	}
	if c.login != nil {
		if err := os.Chown(filepath.Join(c.dir, "data", "standby.signal"), int(c.login.Uid), int(c.login.Gid)); err != nil {
			return err
		}
	}
	return c.Start()
}

// Kill ends the server as a crash does. It may be started again.
func (c *Cluster) Kill() error {
	return c.end(syscall.SIGKILL)
}

// Log is the last of what the server has logged, tailLines lines at most. The server runs.
func (c *Cluster) Log() string { return c.server.log.String() }

// Restart stops the server, ending its clients' connections, and starts it.
func (c *Cluster) Restart() error {
	if err := c.Stop(Fast); err != nil {
		return err
	}
	return c.Start()
}

func (c *Cluster) end(signal syscall.Signal) error {
	s := c.server
	if s == nil {
		return fmt.Errorf("stop postgres in %s: %w", c.dir, errStopped)
	}
	if err := s.process.Signal(signal); err != nil {
		return fmt.Errorf("stop postgres in %s: %w", c.dir, err)
	}
	timeout := time.NewTimer(deadline)
	defer timeout.Stop()
	select {
	case <-s.ended:
		c.server = nil
		return nil
	case <-timeout.C:
		return fmt.Errorf("postgres in %s did not stop within %v of %v:\n%s", c.dir, deadline, signal, s.log.String())
	}
}

// Pid is the process of the server, which runs, and from which its other processes come.
func (c *Cluster) Pid() int { return c.server.process.Pid }

// Remove stops the server, if it runs, and takes the cluster away.
func (c *Cluster) Remove() error {
	if c.Runs() {
		if err := c.Stop(Immediate); err != nil {
			return err
		}
	}
	return os.RemoveAll(c.dir)
}

// A tail keeps the last lines of a log.
type tail struct {
	mu    sync.Mutex // guards lines
	lines []string
}

const tailLines = 200

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lines = append(t.lines, line); len(t.lines) > tailLines {
		t.lines = slices.Delete(t.lines, 0, len(t.lines)-tailLines)
	}
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "")
}
