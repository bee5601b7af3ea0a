package main

import (
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// serveLoopback is the child process that mounts go-fuse's loopback of a folder, with the options of its own example program, until it is
// unmounted. It says when it is mounted.
func serveLoopback(folder, mountpoint string) error {
	root, err := fs.NewLoopbackRoot(folder)
	if err != nil {
		return err
	}
	second := time.Second
	server, err := fs.Mount(mountpoint, root, &fs.Options{
		AttrTimeout:     &second,
		EntryTimeout:    &second,
		NullPermissions: true,
		MountOptions:    fuse.MountOptions{FsName: folder, Name: "loopback"},
	})
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	go func() {
		for range signals {
			_ = server.Unmount() // busy: whoever asked asks again
		}
	}()
	if _, err := fmt.Printf("mounted %s at %s\n", folder, mountpoint); err != nil {
		return err
	}
	server.Wait()
	return nil
}
