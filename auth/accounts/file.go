package accounts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockRetry is how often a lock that another process holds is tried again. flock(2) can wait by itself, but not be told to
// stop waiting.
const lockRetry = 20 * time.Millisecond

// stat returns the version of a file.
func stat(path string) (version, error) {
	info, err := os.Stat(path)
	if err != nil {
		return version{}, err
	}
	st := info.Sys().(*syscall.Stat_t)
	return version{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}, nil
}

// readFile reads and parses the file.
func readFile(path string) ([]account, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	list, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("accounts: %s is damaged: %w: repair it or put back a copy", path, err)
	}
	return list, nil
}

// replaceFile puts data in the place of the file, whole and durable: after a crash the file is the one before or the one after.
func replaceFile(path string, data []byte) (err error) {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	file, err := os.CreateTemp(folder.Name(), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreGone(os.Remove(file.Name())))
		}
	}()
	defer file.Close()
	if err := giveAway(file, folder); err != nil {
		return err
	}
	if _, err := file.Write(data); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return folder.Sync()
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// giveAway makes the owner of the folder own the file. It matters when root adds users to the store of somebody else, who
// could otherwise no longer read the accounts.
func giveAway(file, folder *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := folder.Stat()
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	return file.Chown(int(st.Uid), int(st.Gid))
}

// lock takes the lock that one who changes the accounts holds, and returns what lets it go. The lock file stays: were it
// removed, one process could hold the old file's lock and another the new one's.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := giveAway(file, folder); err != nil {
		file.Close()
		return nil, err
	}
	retry := time.NewTicker(lockRetry)
	defer retry.Stop()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { file.Close() }, nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			file.Close()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("%s: another mediafs holds it: %w", path, context.Cause(ctx))
		case <-retry.C:
		}
	}
}
