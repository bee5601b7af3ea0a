package fusefs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Why a drive can't be mounted. New wraps each with the mountpoint.
var (
	ErrNoFuse             = errors.New("/dev/fuse can't be opened")
	ErrNotMounter         = errors.New("not permitted to mount here")
	ErrMountpointMissing  = errors.New("no such folder: make it with mkdir")
	ErrMountpointNotDir   = errors.New("not a folder")
	ErrMountpointNotEmpty = errors.New("is not empty: what is in it would be hidden")
	ErrMounted            = errors.New("something is mounted there already")
	ErrStaleMount         = errors.New("a dead mount is there: run `mediafs umount` on it")
)

const (
	fuseDevice = "/dev/fuse"
	fuseConf   = "/etc/fuse.conf" // fusermount3(1)
)

// checkMounter says whether this process can mount at all: itself when it is root, otherwise with the help of fusermount3,
// which opens the device with the user's own rights.
func checkMounter(privileged bool) error {
	device, err := os.OpenFile(fuseDevice, os.O_RDWR, 0)
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: it is closed to you: `chmod 666 %s` opens it", ErrNoFuse, fuseDevice)
	case err != nil:
		return fmt.Errorf("%w: load the kernel module with `modprobe fuse`, or give the container the device (%w)", ErrNoFuse, err)
	}
	if err := device.Close(); err != nil {
		return fmt.Errorf("%w (%w)", ErrNoFuse, err)
	}
	if privileged {
		return nil
	}
	if _, err := exec.LookPath(fusermount); err != nil {
		return fmt.Errorf("%w: %s is missing: install it with `apt-get install fuse3`", ErrNotMounter, fusermount)
	}
	return nil
}

// checkMountpoint says whether a drive can be mounted on path. It changes nothing.
func checkMountpoint(path string) error {
	// Asked for nothing and without a sync, even a folder in a dead mount, or in somebody else's, says whether it is
	// the root of a mount.
	var stx unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, 0, &stx)
	switch {
	case errors.Is(err, unix.ENOENT):
		return ErrMountpointMissing
	case errors.Is(err, unix.ENOTDIR):
		return ErrMountpointNotDir
	case errors.Is(err, unix.ENOTCONN):
		return ErrStaleMount
	case err != nil:
		return fmt.Errorf("%w: %w", ErrNotMounter, err)
	}
	if stx.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_FORCE_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &stx)
		if errors.Is(err, unix.ENOTCONN) {
			return ErrStaleMount
		}
		return ErrMounted
	}
	return checkEmptyFolder(path)
}

// checkEmptyFolder says whether path is a folder of ours with nothing in it.
func checkEmptyFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotMounter, err)
	}
	defer folder.Close()
	info, err := folder.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotMounter, err)
	}
	if !info.IsDir() {
		return ErrMountpointNotDir
	}
	if _, err := folder.Readdirnames(1); err == nil {
		return ErrMountpointNotEmpty
	} else if !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", ErrNotMounter, err)
	}
	// fusermount3 asks for the same, and says so less clearly.
	if err := unix.Access(path, unix.W_OK); err != nil {
		return fmt.Errorf("%w: the folder must be writable by you: %w", ErrNotMounter, err)
	}
	return nil
}

// mountError gives an error of mount(2) or of fusermount3 its way out.
func mountError(err error, privileged bool) error {
	switch {
	case !privileged:
		return fmt.Errorf("%w: %s refused: %w", ErrNotMounter, fusermount, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: root lacks CAP_SYS_ADMIN here, as in most containers: %w", ErrNotMounter, err)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w (%w)", ErrNoFuse, err)
	}
	return err
}

// userAllowOther gives an error, in words for the user, unless the configuration of fusermount3 lets users mount with
// allow_other.
func userAllowOther(conf string) error {
	file, err := os.Open(conf)
	if err != nil {
		return fmt.Errorf("%s does not have the line user_allow_other (%w)", conf, err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if strings.TrimSpace(line) == "user_allow_other" {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s can't be read: %w", conf, err)
	}
	return fmt.Errorf("%s does not have the line user_allow_other, which only root can add", conf)
}
