package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// loopbackCommand has this program serve go-fuse's loopback file system instead of measuring.
const loopbackCommand = "loopback"

// serveLoopback shows a folder at a mountpoint with go-fuse's own loopback file system, as its example program does: with timeouts of a second, and
// without checks of permissions, until it is unmounted. It says so once it is ready.
func serveLoopback(folder, mountpoint string) error {
	root, err := fs.NewLoopbackRoot(folder)
	if err != nil {
		return err
	}
	second := time.Second
	server, err := fs.Mount(mountpoint, root, &fs.Options{
		EntryTimeout: &second, AttrTimeout: &second, NullPermissions: true,
		MountOptions: fuse.MountOptions{FsName: folder, Name: "loopback", DirectMount: true},
	})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	server.Wait()
	return nil
}

// loopback starts it in a process of its own.
func (p *plan) loopback(ctx context.Context) (*target, error) {
	folder, t := filepath.Join(p.dir, "loopback-folder"), &target{name: "loopback", dir: filepath.Join(p.dir, "loopback")}
	if err := errors.Join(os.Mkdir(folder, 0o755), os.Mkdir(t.dir, 0o755)); err != nil {
		return nil, err
	}
	var serving *exec.Cmd
	attach := func(context.Context) error {
		serving = exec.Command("/proc/self/exe", loopbackCommand, folder, t.dir)
		serving.Stderr = os.Stderr
		out, err := serving.StdoutPipe()
		if err == nil {
			err = serving.Start()
		}
		if err != nil {
			return err
		}
		t.daemon = serving.Process.Pid
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			return fmt.Errorf("loopback: %q: %w", line, errors.Join(err, serving.Wait()))
		}
		return nil
	}
	detach := func() error {
		if err := unix.Unmount(t.dir, 0); err != nil {
			return &os.PathError{Op: "unmount", Path: t.dir, Err: err}
		}
		return serving.Wait()
	}
	t.close = detach
	t.cold = func(ctx context.Context) error { return errors.Join(detach(), attach(ctx)) }
	return t, attach(ctx)
}
