package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"mediafs/blobstore/pgstore/pgtest"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == loopbackArgument { // this binary is the program whose child serves the loopback
		exit(serveLoopback(os.Args[2], os.Args[3]))
	}
	dir, err := os.MkdirTemp("", "bench-built")
	if err != nil {
		exit(err)
	}
	built = dir
	code := m.Run()
	if err := os.RemoveAll(built); err != nil {
		exit(err)
	}
	os.Exit(code)
}

// small is as much as shows that everything works.
var small = []string{"-scale", "0.003", "-runs", "1", "-drop-caches=false"}

// built is the folder of mediafs as it is tested.
var built string

// program builds mediafs, once.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(built, "mediafs")
	out, err := exec.Command("go", "build", "-o", path, "mediafs/cmd/mediafs").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, err
})

// missing skips a test on a machine that lacks what it needs; in CI nothing may be lacking.
func missing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// measure runs the program and returns what it prints.
func measure(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	err := run(t.Context(), args, &stdout, &stderr)
	if errors.Is(err, pgtest.ErrMissing) {
		missing(t, err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	return stdout.String()
}

// prepare makes a folder for all that is temporary, which has to be empty in the end, with nothing mounted in it, and returns the arguments
// of every test.
func prepare(t *testing.T) (args []string) {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		missing(t, err)
	}
	path, err := program()
	check(t, err)
	dir, err := os.MkdirTemp("", "bench")
	check(t, err)
	check(t, os.Chmod(dir, 0o755))
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		left, err := filepath.Glob(filepath.Join(dir, "*"))
		check(t, err)
		mounts, err := os.ReadFile("/proc/self/mounts")
		check(t, err)
		if len(left) > 0 || strings.Contains(string(mounts), dir+"/") {
			t.Fatalf("left behind: %q; mounted:\n%s", left, mounts)
		}
		check(t, os.Remove(dir))
	})
	return append(slices.Clone(small), "-mediafs", path)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rows finds the rows of all tables whose first cell is this.
func rows(text, first string) (found [][]string) {
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if strings.TrimSpace(cells[0]) == first {
			found = append(found, cells)
		}
	}
	return found
}

func TestTheTableHasEveryStepOfEveryTarget(t *testing.T) {
	args := prepare(t)
	samples := filepath.Join(t.TempDir(), "samples.json")
	peer := t.TempDir()
	t.Setenv("PEERS", "juicefs="+peer)
	stdout := measure(t, append(args, "-json", samples)...)
	targets := 6
	if os.Geteuid() == 0 {
		targets++ // passthrough
	}
	for _, s := range steps {
		found := rows(stdout, s.name)
		if len(found) != 2 {
			t.Errorf("%s has %d rows, want one of rates and one of ratios", s.name, len(found))
			continue
		}
		if cells := found[0][2:]; len(cells) != targets || slices.Contains(cells, "–") {
			t.Errorf("%s has the rates %q, want one of each of %d targets", s.name, cells, targets)
		}
		if cells := found[1][1:6]; slices.Contains(cells, "–") {
			t.Errorf("%s has the ratios %q, want all of them", s.name, cells)
		}
		if _, ok := demands[s.name]; !ok {
			t.Errorf("nothing is demanded of %s", s.name)
		}
	}
	text, err := os.ReadFile(samples)
	check(t, err)
	var all []sample
	check(t, json.Unmarshal(text, &all))
	if want := len(steps) * targets; len(all) != want {
		t.Errorf("%d samples, want %d", len(all), want)
	}
	left, err := os.ReadDir(peer)
	check(t, err)
	if len(left) > 0 {
		t.Errorf("left in the peer's folder: %v", left)
	}
}

func TestClientsAtTheSameTimeOnBothStores(t *testing.T) {
	args := append([]string{"concurrency"}, prepare(t)...)
	stdout := measure(t, append(args, "-targets", "folders|postgres")...)
	for _, s := range clientSteps {
		if found := rows(stdout, s.name); len(found) != 4 {
			t.Errorf("%s has %d rows, want two for each store", s.name, len(found))
		}
	}
}

func TestCPUIsThatOfTheDaemonThePostgresAndTheClient(t *testing.T) {
	args := append([]string{"cpu"}, prepare(t)...)
	samples := filepath.Join(t.TempDir(), "samples.json")
	// Enough for the clock by which the kernel counts, of 10 ms.
	measure(t, append(args, "-targets", "postgres", "-steps", copyVideo, "-scale", "0.06", "-json", samples)...)
	text, err := os.ReadFile(samples)
	check(t, err)
	var all []sample
	check(t, json.Unmarshal(text, &all))
	if len(all) != 1 || all[0].CPU == nil {
		t.Fatalf("samples: %s", text)
	}
	for who, spent := range map[string]spent{"daemon": all[0].CPU.Daemon, "Postgres": all[0].CPU.Postgres, "client": all[0].CPU.Client} {
		if spent.User+spent.System <= 0 {
			t.Errorf("the %s has spent nothing", who)
		}
	}
}

// A cancelling writer ends the run at the first line of progress.
type cancelling struct {
	once   sync.Once
	cancel context.CancelFunc
}

func (c *cancelling) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, []byte("run ")) {
		c.once.Do(c.cancel)
	}
	return len(p), nil
}

func TestAnInterruptedRunLeavesNothing(t *testing.T) {
	args := prepare(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stdout bytes.Buffer
	err := run(ctx, args, &stdout, &cancelling{cancel: cancel})
	if errors.Is(err, pgtest.ErrMissing) {
		missing(t, err)
	}
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want that it was cancelled", err)
	}
}
