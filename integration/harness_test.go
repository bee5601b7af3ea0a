// Package integration tests the program as its users have it: built, run as processes of its own, and mounted by the kernel,
// on both kinds of store. What it uses drives with is what anybody has: cp, git, sqlite3, rsync and so on.
//
// The harness builds the program (here), makes stores and their users (store_test.go) and mounts drives (mount_test.go).
package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mediafs/blobstore/pgstore/pgtest"
)

// deadline is for one command, however busy the machine is. Only what hangs takes that long.
var deadline = size(5*time.Minute, time.Hour)

// work is a folder for what all tests share; everybody may read it.
var work string

func TestMain(m *testing.M) {
	if code, is := runHelper(); is {
		os.Exit(code)
	}
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	// Files of the tests have the modes that the tests give, and other users reach what they should.
	syscall.Umask(0o022)
	dir, err := os.MkdirTemp("", "integration-")
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "home"), 0o700))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	work = dir
	defer func() {
		if err := os.RemoveAll(work); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}()
	return pgtest.Run(m)
}

// program builds mediafs, once, and returns the path of the file.
var program = sync.OnceValues(func() (string, error) { return build("mediafs", buildFlags...) })

// lean is the program as it is shipped, for tests of how much memory it takes.
var lean = sync.OnceValues(func() (string, error) { return build("mediafs-lean") })

func build(name string, flags ...string) (string, error) {
	// A cached result of a test holds as long as the files that the test itself looked at stay as they were, so look at
	// all that the program is built from.
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != ".." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "var"):
			return filepath.SkipDir
		case entry.IsDir():
			return nil
		}
		_, err = os.Stat(path)
		return err
	})
	if err != nil {
		return "", err
	}
	path := filepath.Join(work, name)
	args := append([]string{"build", "-o", path}, flags...)
	out, err := exec.Command("go", append(args, "mediafs/cmd/mediafs")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return path, nil
}

// A result is how a command ended.
type result struct {
	command        string
	stdout, stderr string
	code           int // -1 if a signal ended it
}

func (r result) String() string {
	return fmt.Sprintf("%s\nexit code %d\n--- stdout\n%s--- stderr\n%s", r.command, r.code, r.stdout, r.stderr)
}

// ok fails the test unless the command succeeded, and returns what it printed.
func (r result) ok(t testing.TB) string {
	t.Helper()
	if r.code != 0 {
		t.Fatal(r)
	}
	return r.stdout
}

// A person is who runs a command: us (the zero person) or another user of the system.
type person struct {
	uid, gid uint32
	home     string // a folder of theirs
}

// nobody is an ordinary user that every Linux has.
func nobody(t testing.TB) person {
	t.Helper()
	if os.Geteuid() != 0 {
		return person{}
	}
	p := person{uid: 65534, gid: 65534, home: tempDir(t)}
	give(t, p, p.home)
	return p
}

// tempDir makes a folder that other users reach, unlike t.TempDir, and in which the path of a socket is not too long.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(work, "test")
	check(t, err)
	check(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	return dir
}

// give makes a file somebody's.
func give(t testing.TB, p person, path string) {
	t.Helper()
	if p.uid == 0 {
		return
	}
	check(t, os.Chown(path, int(p.uid), int(p.gid)))
}

// command prepares a command with an environment that holds nothing of the caller's.
func (p person) command(ctx context.Context, dir string, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	home := p.stateFolder()
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + home,
		"XDG_RUNTIME_DIR=" + home,
		"XDG_STATE_HOME=" + home,
		"TMPDIR=" + os.TempDir(),
		"LC_ALL=C.UTF-8",
		"TZ=UTC",
		"GIT_CONFIG_NOSYSTEM=1",
		"GORACE=atexit_sleep_ms=0", // a program that ends has no race to wait for
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: p.uid, Gid: p.gid}
	}
	return cmd
}

// stateFolder is the person's home, where their programs keep everything.
func (p person) stateFolder() string {
	if p.home == "" {
		return filepath.Join(work, "home")
	}
	return p.home
}

// run runs a command to its end.
func (p person) run(t testing.TB, dir string, argv ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	return finish(t, ctx, p.command(ctx, dir, argv...))
}

// shell runs a script that ends at its first error.
func (p person) shell(t testing.TB, dir, script string) result {
	t.Helper()
	return p.run(t, dir, "bash", "-euo", "pipefail", "-c", script)
}

func finish(t testing.TB, ctx context.Context, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// For processes that hold its output: left behind by it, or forked by another test and on the way into a busy drive.
	cmd.WaitDelay = time.Minute
	err := cmd.Run()
	r := result{command: strings.Join(cmd.Args, " "), stdout: stdout.String(), stderr: stderr.String()}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		t.Fatalf("gave up after %v on %v", deadline, r)
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		t.Fatalf("%v: %v", r, err)
	}
	return r
}

// check fails the test if there is an error.
func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// requireRoot is for what only root may do. CI is root.
func requireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "only root may do this")
	}
}

// missing skips a test on a machine that lacks what it needs; in CI nothing may be lacking.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// sources is Go's own source tree: over ten thousand files.
var sources = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	return filepath.Join(strings.TrimSpace(string(out)), "src"), err
})

func goSources(t testing.TB) string {
	t.Helper()
	dir, err := sources()
	check(t, err)
	return dir
}
