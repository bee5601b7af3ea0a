package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"mediafs/fusefs"
)

// checkMount says whether a drive can be mounted there. Package fusefs says so too, but when the drive is open already: a
// user's first mount would then have made a drive, though it failed.
func checkMount(mountpoint string) error {
	if err := checkMountpoint(mountpoint); err != nil {
		return err
	}
	return aboutMountpoint(mountpoint, mounterError())
}

// checkMountpoint says whether anything can be mounted there.
func checkMountpoint(mountpoint string) error {
	return aboutMountpoint(mountpoint, mountpointError(mountpoint))
}

func aboutMountpoint(mountpoint string, err error) error {
	if err == nil {
		return nil
	}
	return explain("", fmt.Errorf("mountpoint %s: %w", mountpoint, err), exitMountpoint)
}

// mounterError says why this process can't mount anything.
func mounterError() error {
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: it is closed to you: `chmod 666 /dev/fuse` opens it", fusefs.ErrNoFuse)
	case err != nil:
		return fmt.Errorf("%w: load the kernel module with `modprobe fuse`, or give the container the device (%w)", fusefs.ErrNoFuse, err)
	}
	device.Close()
	if _, err := exec.LookPath("fusermount3"); err != nil && os.Geteuid() != 0 {
		return fmt.Errorf("%w: fusermount3 is missing: install it with `apt-get install fuse3`", fusefs.ErrNotMounter)
	}
	return nil
}

// mountpointError says why nothing can be mounted on a folder.
func mountpointError(path string) error {
	// Even a dead mount says without a sync whether it is the root of one.
	var stx unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, 0, &stx)
	switch {
	case errors.Is(err, unix.ENOENT):
		return fusefs.ErrMountpointMissing
	case errors.Is(err, unix.ENOTDIR):
		return fusefs.ErrMountpointNotDir
	case errors.Is(err, unix.ENOTCONN):
		return fusefs.ErrStaleMount
	case err != nil:
		return fmt.Errorf("%w: %w", fusefs.ErrNotMounter, err)
	}
	if stx.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		// Without a sync the kernel answers from memory for a while after the program has died.
		err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_FORCE_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &stx)
		if errors.Is(err, unix.ENOTCONN) {
			return fusefs.ErrStaleMount
		}
		return fusefs.ErrMounted
	}
	folder, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	switch {
	case errors.Is(err, unix.ENOTDIR):
		return fusefs.ErrMountpointNotDir
	case err != nil:
		return fmt.Errorf("%w: %w", fusefs.ErrNotMounter, err)
	}
	defer folder.Close()
	if _, err := folder.Readdirnames(1); err == nil {
		return fusefs.ErrMountpointNotEmpty
	} else if !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", fusefs.ErrNotMounter, err)
	}
	if err := unix.Access(path, unix.W_OK); err != nil { // fusermount3 asks for it
		return fmt.Errorf("%w: the folder must be writable by you: %w", fusefs.ErrNotMounter, err)
	}
	return nil
}
