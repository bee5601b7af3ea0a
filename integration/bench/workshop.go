package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"mediafs/blobstore/pgstore/pgtest"
)

// A workshop has all that is made for measuring, and takes it away.
type workshop struct {
	options options
	program string // the built mediafs
	dir     string
	cluster *pgtest.Cluster // nil until it is needed
	made    []target
}

func newWorkshop(o options) (*workshop, error) {
	program, err := filepath.Abs(o.mediafs)
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: run `make build`, or name the program with -mediafs", err)
	}
	dir, err := os.MkdirTemp("", "mediafs-bench-")
	if err != nil {
		return nil, err
	}
	return &workshop{options: o, program: program, dir: dir}, os.Chmod(dir, 0o755)
}

func (w *workshop) close() (err error) {
	for _, t := range slices.Backward(w.made) {
		err = errors.Join(err, t.close())
	}
	if w.cluster != nil {
		err = errors.Join(err, w.cluster.Remove())
	}
	if err != nil {
		return err // what is mounted still is not to be removed
	}
	return os.RemoveAll(w.dir)
}

// postgres is the cluster of both kinds of target that are in Postgres.
func (w *workshop) postgres() (_ *pgtest.Cluster, err error) {
	if w.cluster == nil {
		w.cluster, err = pgtest.Create()
	}
	return w.cluster, err
}

// A maker makes a target that is selected.
type maker struct {
	key, heading string
	make         func(ctx context.Context) (target, error)
}

// settle waits for what goes on in the background, and has the databases, the peers' too if there is a program for that, and the kernel write out what they
// have, so that the next step does not pay for what came before it: a checkpoint that a large file has set off goes on for minutes.
func (w *workshop) settle(ctx context.Context) error {
	for _, t := range w.made {
		if l, ok := t.(*library); ok {
			if err := l.settle(ctx); err != nil {
				return err
			}
		}
	}
	if w.cluster != nil {
		if err := statement(ctx, w.cluster.URL("postgres"), "CHECKPOINT"); err != nil {
			return err
		}
	}
	if program := os.Getenv("PEER_SETTLE"); program != "" {
		if out, err := exec.CommandContext(ctx, program).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", program, err, out)
		}
	}
	w.options.caches.settle()
	return nil
}

// columns makes the targets.
func (w *workshop) columns(ctx context.Context) (columns []column, err error) {
	makers := []maker{
		{plainKey, w.fileSystem(), w.plain},
		{loopbackKey, "go-fuse loopback", func(context.Context) (target, error) { return newLoopback(w.dir, w.options.caches) }},
		{foldersKey, "mediafs folders", w.folders()},
	}
	if os.Geteuid() == 0 {
		makers = append(makers, maker{passthroughKey, "mediafs folders, passthrough", w.folders("--passthrough")})
	}
	makers = append(makers, maker{postgresKey, "mediafs Postgres", w.inPostgres}, maker{rawKey, "raw Postgres", w.raw})
	for peer := range strings.FieldsSeq(os.Getenv("PEERS")) {
		name, dir, ok := strings.Cut(peer, "=")
		if !ok || !filepath.IsAbs(dir) {
			return nil, fmt.Errorf("PEERS has %q: want name=/dir", peer)
		}
		makers = append(makers, maker{name, name, func(context.Context) (target, error) {
			return &folder{root: dir, name: name, coldCommand: os.Getenv("PEER_COLD"), caches: w.options.caches}, nil
		}})
	}
	for _, m := range makers {
		if !w.options.targets.MatchString(m.key) {
			continue
		}
		t, err := m.make(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.heading, err)
		}
		w.made = append(w.made, t)
		columns = append(columns, column{m.key, m.heading, t})
	}
	if len(columns) == 0 {
		return nil, fmt.Errorf("-targets %v selects none", w.options.targets)
	}
	return columns, nil
}

func (w *workshop) plain(context.Context) (target, error) {
	dir := filepath.Join(w.dir, "plain")
	return &folder{root: dir, caches: w.options.caches}, os.Mkdir(dir, 0o755)
}

func (w *workshop) folders(options ...string) func(context.Context) (target, error) {
	return func(context.Context) (target, error) {
		return &library{program: w.program, work: w.dir, place: inFolder, options: options, caches: w.options.caches}, nil
	}
}

func (w *workshop) inPostgres(context.Context) (target, error) {
	cluster, err := w.postgres()
	if err != nil {
		return nil, err
	}
	return &library{program: w.program, work: w.dir, place: inCluster(cluster), caches: w.options.caches}, nil
}

func (w *workshop) raw(ctx context.Context) (target, error) {
	cluster, err := w.postgres()
	if err != nil {
		return nil, err
	}
	if err := statement(ctx, cluster.URL("postgres"), "CREATE DATABASE raw"); err != nil {
		return nil, err
	}
	return &rawDatabase{url: cluster.URL("raw"), caches: w.options.caches}, nil
}

// fileSystem is what the plain folder is on.
func (w *workshop) fileSystem() string {
	var s unix.Statfs_t
	if unix.Statfs(w.dir, &s) == nil {
		switch s.Type {
		case unix.EXT4_SUPER_MAGIC:
			return "ext4"
		case unix.XFS_SUPER_MAGIC:
			return "xfs"
		case unix.BTRFS_SUPER_MAGIC:
			return "btrfs"
		case unix.TMPFS_MAGIC:
			return "tmpfs"
		}
	}
	return "plain folder"
}

// machine says what was measured on, and how.
func (w *workshop) machine(o options) string {
	var name unix.Utsname
	kernel := "unknown"
	if unix.Uname(&name) == nil {
		kernel = unix.ByteSliceToString(name.Release[:])
	}
	postgres := ""
	if w.cluster != nil {
		if version, err := w.cluster.Run(context.Background(), "postgres", "--version"); err == nil {
			postgres = ", " + strings.TrimSpace(version)
		}
	}
	cold := ", kernel caches dropped where it says cold"
	if !w.options.caches.dropped() {
		cold = ", kernel caches not dropped"
	}
	load, _ := os.ReadFile("/proc/loadavg") // nothing is said of it then
	return fmt.Sprintf("%d cores (%s), %s of memory, Linux %s, %s%s%s; medians of %d runs (lowest–highest), scale %v; load at the end %s",
		runtime.NumCPU(), processor(), memory(), kernel, runtime.Version(), postgres, cold, o.runs, o.scale, strings.Join(strings.Fields(string(load))[:min(3, len(strings.Fields(string(load))))], " "))
}

// processor is its name.
func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return runtime.GOARCH
}

// memory is how much there is.
func memory() string {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return "an unknown amount"
	}
	return fmt.Sprintf("%d GB", (info.Totalram*uint64(info.Unit)+(1<<29))>>30)
}
