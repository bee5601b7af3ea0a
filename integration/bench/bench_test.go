package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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
	os.Exit(m.Run())
}

// small is as much as shows that everything works.
var small = []string{"-scale", "0.003", "-runs", "2", "-drop-caches=false"}

// prepare builds the program and makes a folder for all that is temporary, which has to be empty in the end, with nothing mounted in it.
func prepare(t *testing.T) (args []string) {
	t.Helper()
	missing := t.Skip
	if os.Getenv("CI") == "true" {
		missing = t.Fatal
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		missing(err)
	}
	cluster, err := pgtest.Create()
	if errors.Is(err, pgtest.ErrMissing) {
		missing(err)
	}
	check(t, err)
	check(t, cluster.Remove())
	program := filepath.Join(t.TempDir(), "mediafs")
	if out, err := exec.Command("go", "build", "-o", program, "mediafs/cmd/mediafs").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
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
	return append(slices.Clone(small), "-mediafs", program)
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
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), append(args, "-json", samples), &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	targets := 6
	if os.Geteuid() == 0 {
		targets++ // passthrough
	}
	for _, s := range steps {
		found := rows(stdout.String(), s.name)
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
	if want := len(steps) * targets * 2; len(all) != want {
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
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), append(args, "-targets", "folders|postgres", "-runs", "1"), &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	for _, s := range clientSteps {
		if found := rows(stdout.String(), s.name); len(found) != 4 {
			t.Errorf("%s has %d rows, want two for each store", s.name, len(found))
		}
	}
}

func TestCPUIsThatOfTheDaemonThePostgresAndTheClient(t *testing.T) {
	args := append([]string{"cpu"}, prepare(t)...)
	samples := filepath.Join(t.TempDir(), "samples.json")
	var stdout, stderr bytes.Buffer
	// Enough for the clock by which the kernel counts, of 10 ms.
	args = append(args, "-targets", "postgres", "-steps", copyVideo, "-scale", "0.1", "-runs", "1", "-json", samples)
	if err := run(t.Context(), args, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
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
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want that it was cancelled", err)
	}
}
