package fusefs

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
)

// eventually asks until got gives want, as the kernel's cache of attributes ends by itself.
func eventually(t *testing.T, what string, want error, got func() error) {
	t.Helper()
	var err error
	for begun := time.Now(); time.Since(begun) < patience; {
		if err = got(); err == want { //nolint:errorlint // an errno, or nil
			return
		}
	}
	t.Errorf("%s: got error %v, want %v", what, err, want)
}

func TestASuspendedMountAnswersNothingUntilItResumes(t *testing.T) {
	for reason, errno := range map[error]error{auth.ErrExpired: unix.EKEYEXPIRED, auth.ErrRevoked: unix.EKEYREVOKED} {
		m, dir := mount(t, newDrive(t), Options{})
		path := filepath.Join(dir, "file")
		must(t, os.WriteFile(path, []byte("content"), 0o600))
		fd, err := unix.Open(path, unix.O_RDWR, 0)
		must(t, err)
		read := func() error {
			_, err := unix.Pread(fd, make([]byte, 16), 0)
			return err
		}
		stat := func() error {
			var st unix.Stat_t
			return unix.Stat(path, &st)
		}
		must(t, read()) // now the kernel has it

		m.Suspend(reason)
		if err := read(); err != errno { //nolint:errorlint // an errno
			t.Errorf("read an open file that the kernel had cached: got error %v, want %v", err, errno)
		}
		if _, err := unix.Pwrite(fd, []byte("x"), 0); err != errno { //nolint:errorlint // an errno
			t.Errorf("write: got error %v, want %v", err, errno)
		}
		wantErr(t, "mkdir", unix.Mkdir(filepath.Join(dir, "new"), 0o700), errno)
		_, err = os.ReadDir(dir)
		wantErr(t, "list", err, errno)
		eventually(t, "stat", errno, stat)

		m.Resume()
		eventually(t, "stat after resuming", nil, stat)
		eventually(t, "read after resuming", nil, read)
		must(t, unix.Close(fd))
		unmount(t, m)
	}
}
