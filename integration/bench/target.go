package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore/pgstore/pgtest"
)

// A target is a folder in which steps are done.
type target struct {
	name   string
	dir    string
	daemon int                         // the process that serves it; 0: there is none
	cold   func(context.Context) error // has it forget what it has read, as after a restart; nil: nothing but the kernel does
	close  func() error
}

// open makes the targets that the plan names, but for raw.
func (p *plan) open(ctx context.Context) (targets []*target, cluster *pgtest.Cluster, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(targets, cluster))
		}
	}()
	add := func(t *target, err error) error {
		if t != nil {
			targets = append(targets, t)
		}
		return err
	}
	for _, name := range p.targets {
		switch name {
		case "ext4":
			dir := filepath.Join(p.dir, "plain")
			err = add(&target{name: name, dir: dir}, os.Mkdir(dir, 0o755))
		case "loopback":
			err = add(p.loopback(ctx))
		case "folders":
			err = add(p.mediafs(ctx, name, "file://"+filepath.Join(p.dir, name+"-store")))
		case "passthrough":
			err = add(p.mediafs(ctx, name, "file://"+filepath.Join(p.dir, name+"-store"), "--passthrough"))
		case "postgres", "raw":
			if cluster == nil {
				if cluster, err = pgtest.Create(); err != nil {
					return targets, cluster, err
				}
			}
			if name == "postgres" {
				err = add(p.mediafs(ctx, name, cluster.URL("postgres")))
			}
		default:
			err = fmt.Errorf("there is no target %q: take some of %s", name, strings.Join(targetNames, ","))
		}
		if err != nil {
			return targets, cluster, err
		}
	}
	for _, peer := range p.peers {
		name, dir, ok := strings.Cut(peer, "=")
		if !ok {
			return targets, cluster, fmt.Errorf("PEERS: %q is not name=/dir", peer)
		}
		t := &target{name: name, dir: dir}
		if p.peerCold != "" {
			t.cold = func(ctx context.Context) error { return run(ctx, nil, p.peerCold, name, dir) }
		}
		targets = append(targets, t)
	}
	return targets, cluster, nil
}

func closeAll(targets []*target, cluster *pgtest.Cluster) error {
	var errs []error
	for _, t := range targets {
		if t.close != nil {
			errs = append(errs, t.close())
		}
	}
	if cluster != nil {
		errs = append(errs, cluster.Remove())
	}
	return errors.Join(errs...)
}

// run runs a command; its error says what it said.
func run(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return nil
}

// mediafs mounts alice's drive of a new store.
func (p *plan) mediafs(ctx context.Context, name, store string, flags ...string) (*target, error) {
	return p.mount(ctx, name, store, "alice", flags...)
}

func (p *plan) mount(ctx context.Context, name, store, user string, flags ...string) (*target, error) {
	program, err := filepath.Abs(p.program)
	if err != nil {
		return nil, err
	}
	env := []string{"MEDIAFS_STORE=" + store, "XDG_RUNTIME_DIR=" + p.dir}
	if err := run(ctx, env, program, "init"); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "user", "add", user)
	cmd.Env = append(os.Environ(), env...)
	token, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("mediafs user add: %w", err)
	}
	t := &target{name: name, dir: filepath.Join(p.dir, name+"-"+user)}
	tokenFile := t.dir + ".token"
	if err := errors.Join(os.WriteFile(tokenFile, token, 0o600), os.Mkdir(t.dir, 0o755)); err != nil {
		return nil, err
	}
	attach := func(ctx context.Context) error {
		args := append([]string{"mount", "--token-file", tokenFile, "--daemon"}, flags...)
		if err := run(ctx, env, program, append(args, t.dir)...); err != nil {
			return err
		}
		t.daemon = find(program, "mount", t.dir)
		return nil
	}
	detach := func(ctx context.Context) error { return run(ctx, env, program, "umount", t.dir) }
	t.cold = func(ctx context.Context) error {
		if err := detach(ctx); err != nil {
			return err
		}
		return attach(ctx)
	}
	t.close = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		return detach(ctx)
	}
	return t, attach(ctx)
}

// find gives the process that was started with these arguments, among others; 0 if there is none.
func find(args ...string) int {
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
next:
	for _, path := range processes {
		line, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for _, arg := range args {
			if !strings.Contains("\x00"+string(line), "\x00"+arg+"\x00") {
				continue next
			}
		}
		var pid int
		if _, err := fmt.Sscanf(path, "/proc/%d/", &pid); err == nil {
			return pid
		}
	}
	return 0
}

// makeCold has a target read everything anew: what serves it is restarted and the kernel's caches are dropped, which only root may do.
func (t *target) makeCold(ctx context.Context) error {
	if t.cold != nil {
		if err := t.cold(ctx); err != nil {
			return err
		}
	}
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return fmt.Errorf("caches can't be dropped, which the cold steps need: run this as root: %w", err)
	}
	return nil
}
