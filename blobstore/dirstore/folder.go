package dirstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// A folder is a folder of this machine that belongs to no store, as a drive.
type folder struct {
	*Drive
	store *Store // which has this drive alone
}

// OpenFolder opens a folder of this machine as if it were a drive, with the rights of whoever runs this program: what is in it is reached in the same
// ways, which lead out of it nowhere. It belongs to no store, so there is no session, nothing is recorded, and its files are no assets. Its owner is whoever runs this program.
func OpenFolder(path string) (blobstore.Drive, error) {
	failed := func(err error) (blobstore.Drive, error) {
		return nil, fmt.Errorf("open the folder %s: %w", path, sentinel(err))
	}
	resolved, err := filepath.Abs(path)
	if err == nil {
		resolved, err = filepath.EvalSymlinks(resolved)
	}
	if err != nil {
		return failed(err)
	}
	name := filepath.Base(resolved)
	if resolved == "/" {
		name = "."
	}
	parent, err := openat(unix.AT_FDCWD, filepath.Dir(resolved), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return failed(err)
	}
	s := newStore(parent, filepath.Dir(resolved), slog.New(slog.DiscardHandler))
	s.bare = true
	s.root.acquire() // can't fail: it is new
	drive, err := s.openDrive(name, false)
	if err != nil {
		s.root.release()
		return failed(errors.Join(err, s.Close()))
	}
	drive.uid, drive.gid = uint32(os.Geteuid()), uint32(os.Getegid())
	return &folder{drive, s}, nil
}

// Close writes what was changed to the disk and lets the folder go.
func (f *folder) Close(ctx context.Context) error {
	return errors.Join(f.Drive.Close(ctx), f.store.Close())
}
