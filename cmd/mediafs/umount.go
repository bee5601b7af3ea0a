package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// goneDeadline is how long a mount that said it is unmounted may stay in the kernel's table.
const goneDeadline = 10 * time.Second

func umountCommand() *cli.Command {
	return &cli.Command{
		Name:      "umount",
		Usage:     "store what is pending and unmount a drive",
		UsageText: "mediafs umount MOUNTPOINT",
		Description: "Returns when the drive is unmounted and everything written to it is stored. A mount whose process is gone is\n" +
			"unmounted too.\n\n" +
			"Example:\n\n  mediafs umount ~/drive",
		Action: runUmount,
	}
}

func runUmount(c *cli.Context) error {
	args, err := arguments(c, "MOUNTPOINT")
	if err != nil {
		return err
	}
	mountpoint, err := resolveMountpoint(args[0])
	if err != nil {
		return explain("mountpoint "+args[0], err, exitMountpoint)
	}
	folder, err := runtimeFolder()
	if err != nil {
		return err
	}
	// Longer than the mount's own deadlines, for unmounting and for closing the drive.
	ctx, cancel := context.WithTimeout(c.Context, 2*drainDeadline+goneDeadline)
	defer cancel()
	found, err := findMounts(ctx, folder)
	if err != nil {
		return explain("runtime folder "+folder, err, exitFailed)
	}
	for client, status := range found {
		if status.Mountpoint != mountpoint {
			continue
		}
		err := client.unmount(ctx)
		var told *failure
		switch {
		case err == nil:
			return waitUntilGone(ctx, mountpoint)
		case errors.As(err, &told):
			return told
		case ctx.Err() != nil:
			return &failure{code: exitFailed, what: "umount " + mountpoint, why: err, way: fmt.Sprintf("see what process %d does", status.PID)}
		}
		// It died over this. What it leaves is unmounted below.
	}
	mounts, err := ourMounts()
	if err != nil {
		return explain("", err, exitFailed)
	}
	if _, ok := mounts[mountpoint]; !ok {
		return &failure{code: exitMountpoint, what: "umount " + mountpoint, why: errors.New("no drive is mounted there"), way: "see `mediafs status`"}
	}
	if err := detach(ctx, mountpoint); err != nil {
		return err
	}
	tell(c.App.ErrWriter, "no mediafs of yours answered for "+mountpoint+": its process is gone, or another user's; it was unmounted all the same")
	return waitUntilGone(ctx, mountpoint)
}

// detach unmounts a drive without its process. A mount whose process is gone is detached even if something in it is open: nothing
// can be lost there any more.
func detach(ctx context.Context, mountpoint string) error {
	err := unmountNow(ctx, mountpoint, false)
	if err != nil && isDead(mountpoint) {
		err = unmountNow(ctx, mountpoint, true)
	}
	if err != nil {
		return &failure{code: exitMountpoint, what: "umount " + mountpoint, why: err, way: "end the programs that use it (see fuser -vm) and try again"}
	}
	return nil
}

func unmountNow(ctx context.Context, mountpoint string, lazy bool) error {
	flags, option := unix.UMOUNT_NOFOLLOW, "-u"
	if lazy {
		flags, option = unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH, "-uz"
	}
	if os.Geteuid() == 0 {
		return unix.Unmount(mountpoint, flags)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "fusermount3", option, mountpoint)
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}

// isDead says whether nobody serves a mount any more: the kernel says "Transport endpoint is not connected".
func isDead(mountpoint string) bool {
	var st unix.Stat_t
	return errors.Is(unix.Stat(mountpoint, &st), unix.ENOTCONN)
}

// waitUntilGone returns when the kernel's table has no drive at the mountpoint.
func waitUntilGone(ctx context.Context, mountpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, goneDeadline)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		mounts, err := ourMounts()
		if err != nil {
			return explain("", err, exitFailed)
		}
		if _, ok := mounts[mountpoint]; !ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return &failure{code: exitMountpoint, what: "umount " + mountpoint, why: errors.New("another drive is mounted there"), way: "unmount it too"}
		case <-again.C:
		}
	}
}
