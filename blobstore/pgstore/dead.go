package pgstore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A mount that is killed can't say so, and the database learns it from its silence, 30 or 60 seconds later. Until then its locks count: a
// program that meets them takes the killed one's for those of a program that runs, and what it has left behind for sound (SQLite
// would trust the index of a journal that was never written out). So a mount holds a lock, flock(2), on a file of this machine as
// long as it lives. Whoever mounts the drive next and finds a file that nobody locks knows that its mount is dead, and has the database know.

// livesFolder is where these files are, in Options.Spool: a file for each mount, named by the drive's uuid and the mount's.
const livesFolder = "mounts"

// live buries the dead of this machine and says that this mount lives.
func (s *spool) live(ctx context.Context, d *Drive) error {
	root, err := openPrivate(unix.AT_FDCWD, s.root, true)
	if err != nil {
		return err
	}
	defer root.Close()
	dir, err := openPrivate(int(root.Fd()), livesFolder, true)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	prefix := fmt.Sprintf("%x-", s.header.drive)
	for _, name := range names {
		if mount, ok := strings.CutPrefix(name, prefix); ok {
			if err := d.bury(ctx, dir, name, mount); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	// Locked before it has the name that others look for: they never find it unlocked while this mount lives.
	at, name := int(dir.Fd()), prefix+s.mount
	fd, err := unix.Openat(at, "."+name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	s.alive = os.NewFile(uintptr(fd), name)
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = unix.Renameat(at, "."+name, at, name)
	}
	if err != nil {
		_ = unix.Unlinkat(at, "."+name, 0)
	}
	return err
}

// bury has the database know that a mount is dead, if nobody locks its file.
func (d *Drive) bury(ctx context.Context, dir *os.File, name, mount string) error {
	at := int(dir.Fd())
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	} else if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	} else if err != nil {
		return err
	}
	id, err := hex.DecodeString(mount)
	if err != nil || len(id) != len(d.mount) {
		return errors.New("no mount is called that")
	}
	err = d.run(ctx, "bury a mount", repeating, statement{
		sql:  "delete from mediafs.locks where drive_id = $1 and mount_id = $2",
		args: []any{d.id, [16]byte(id)},
	}, statement{
		sql:  "delete from mediafs.mounts where drive_id = $1 and mount_id = $2",
		args: []any{d.id, [16]byte(id)},
	})
	if err != nil {
		return err
	}
	return unix.Unlinkat(at, name, 0)
}

// die takes back that this mount lives, which the database knows by now, or learns from the next mount.
func (s *spool) die(known bool) {
	if s == nil || s.alive == nil {
		return
	}
	if known {
		if root, err := openPrivate(unix.AT_FDCWD, s.root, false); err == nil {
			_ = unix.Unlinkat(int(root.Fd()), livesFolder+"/"+s.alive.Name(), 0) // if it stays, the next mount takes it away
			_ = root.Close()
		}
	}
	_ = s.alive.Close()
	s.alive = nil
}
