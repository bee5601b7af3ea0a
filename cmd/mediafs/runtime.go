package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// runtimeFolder returns the folder in which the mounts of this user are found by `status` and `umount`, and makes it if it is
// not there: $MEDIAFS_RUNTIME_DIR, else $XDG_RUNTIME_DIR/mediafs, else /run/mediafs for root and /tmp/mediafs-UID for others.
func runtimeFolder() (string, error) {
	uid := os.Geteuid()
	folder := "/tmp/mediafs-" + strconv.Itoa(uid) // whatever TMPDIR is, which may differ from one shell to the next
	forbidden := fs.FileMode(0o077)               // anybody may make a folder in /tmp, so one that others can use may be somebody's trap
	switch {
	case os.Getenv("MEDIAFS_RUNTIME_DIR") != "":
		folder, forbidden = os.Getenv("MEDIAFS_RUNTIME_DIR"), 0o022
	case os.Getenv("XDG_RUNTIME_DIR") != "":
		folder, forbidden = filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "mediafs"), 0o022
	case uid == 0:
		folder, forbidden = "/run/mediafs", 0o022
	}
	folder, err := filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	if err := checkPrivate(folder, forbidden); err != nil {
		return "", &failure{code: exitFailed, what: "runtime folder", why: err, way: "set MEDIAFS_RUNTIME_DIR to a folder of yours"}
	}
	return folder, nil
}

// checkPrivate makes a folder for us alone or, if it is there, checks that it is ours and without the forbidden modes.
func checkPrivate(folder string, forbidden fs.FileMode) error {
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(folder)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder", folder)
	case int(owner) != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d", folder, owner)
	case info.Mode().Perm()&forbidden != 0:
		return fmt.Errorf("%s is open to others (mode %04o)", folder, info.Mode().Perm())
	}
	return nil
}
