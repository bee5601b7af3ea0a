package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// A target is a column of the table.
type target interface {
	// fresh makes an empty place for the run of this number.
	fresh(ctx context.Context, run int) error
	// forget empties the target's caches and the kernel's.
	forget(ctx context.Context) error
	// do does a step; false if the step has no meaning here.
	do(ctx context.Context, s *step, d *data) (amount int, does bool, err error)
	// clear takes away what the run has made.
	clear(ctx context.Context) error
	// close ends the target.
	close() error
}

// A folder is a target that is a folder of any file system that is there already: a plain one, or another program's mount.
type folder struct {
	root string // where each run has a folder
	name string // for coldCommand
	dir  string // that of this run

	caches caches

	// coldCommand is a program that empties a peer's caches, called with the peer's name and folder; "": there is none.
	coldCommand string
}

func (f *folder) path() string { return f.dir }

func (f *folder) fresh(_ context.Context, run int) (err error) {
	f.dir = filepath.Join(f.root, fmt.Sprintf("mediafs-bench-%d-%d", os.Getpid(), run))
	return os.Mkdir(f.dir, 0o755)
}

func (f *folder) forget(ctx context.Context) error {
	if f.coldCommand != "" {
		out, err := exec.CommandContext(ctx, f.coldCommand, f.name, f.root).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %s %s: %w\n%s", f.coldCommand, f.name, f.root, err, out)
		}
	}
	return f.caches.drop()
}

func (f *folder) do(ctx context.Context, s *step, d *data) (int, bool, error) {
	amount, err := s.files(ctx, f.dir, d)
	return amount, true, err
}

func (f *folder) clear(context.Context) error { return os.RemoveAll(f.dir) }

func (f *folder) close() error {
	if f.dir == "" {
		return nil
	}
	return os.RemoveAll(f.dir)
}

// A mount is a target that this program mounts.
type mount struct {
	folder
	start  func(ctx context.Context, mountpoint string) (*server, error)
	server *server // nil while it is not mounted
}

func (m *mount) fresh(ctx context.Context, run int) error {
	if m.server == nil {
		if err := m.mount(ctx); err != nil {
			return err
		}
	}
	return m.folder.fresh(ctx, run)
}

func (m *mount) mount(ctx context.Context) (err error) {
	m.server, err = m.start(ctx, m.root)
	return err
}

func (m *mount) unmount() error {
	if m.server == nil {
		return nil
	}
	s := m.server
	m.server = nil
	return s.stop()
}

// forget mounts it anew, in a new process, with the kernel's caches dropped between the two.
func (m *mount) forget(ctx context.Context) error {
	if err := m.unmount(); err != nil {
		return err
	}
	if err := m.folder.forget(ctx); err != nil {
		return err
	}
	return m.mount(ctx)
}

func (m *mount) close() error {
	if m.server == nil {
		return nil
	}
	return errors.Join(m.folder.close(), m.unmount())
}

// newLoopback is go-fuse's loopback of a folder in work.
func newLoopback(work string, caches caches) (*mount, error) {
	behind := filepath.Join(work, "behind-loopback")
	if err := os.Mkdir(behind, 0o755); err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	start := func(ctx context.Context, mountpoint string) (*server, error) {
		return serve(ctx, mountpoint, filepath.Join(work, "loopback.log"), os.Environ(), program, loopbackArgument, behind, mountpoint)
	}
	return &mount{folder: folder{root: filepath.Join(work, "loopback"), caches: caches}, start: start}, nil
}

// A store is a store of mediafs, with the program that mounts it.
type store struct {
	program string // the built mediafs
	address string // what --store takes
	work    string
	caches  caches
}

// environment is that of the program: nothing of the caller's configuration, and all it keeps is in work.
func (s *store) environment() []string {
	home := filepath.Join(s.work, "home")
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "MEDIAFS_RUNTIME_DIR=" + s.runtime(), "XDG_STATE_HOME=" + home, "TMPDIR=" + os.TempDir(),
		"GORACE=atexit_sleep_ms=0"}
}

// runtime is the folder for sockets, whose paths must not be long: one for all stores.
func (s *store) runtime() string { return filepath.Join(filepath.Dir(s.work), "run") }

func (s *store) mediafs(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.program, args...)
	cmd.Env = s.environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("mediafs %s: %w\n%s", args[0], err, stderr.String())
	}
	return stdout.String(), nil
}

func newStore(ctx context.Context, program, address, work string, caches caches) (*store, error) {
	s := &store{program: program, address: address, work: work, caches: caches}
	for _, dir := range []string{filepath.Join(work, "home"), s.runtime()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	_, err := s.mediafs(ctx, "init", "--store", address)
	return s, err
}

// drive adds a user and returns the mount of their drive.
func (s *store) drive(ctx context.Context, user string, options ...string) (*mount, error) {
	token, err := s.mediafs(ctx, "user", "add", "--store", s.address, user)
	if err != nil {
		return nil, err
	}
	tokenFile := filepath.Join(s.work, user+".token")
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		return nil, err
	}
	start := func(ctx context.Context, mountpoint string) (*server, error) {
		argv := append([]string{s.program, "mount", "--store", s.address, "--token-file", tokenFile}, options...)
		return serve(ctx, mountpoint, filepath.Join(s.work, user+".log"), s.environment(), append(argv, mountpoint)...)
	}
	return &mount{folder: folder{root: filepath.Join(s.work, user), caches: s.caches}, start: start}, nil
}
