package dirstore

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
	"mediafs/blobstore/describe"
)

const (
	// describeBytes is how much content is read at most to describe what is on one page.
	describeBytes = 64 << 20

	// settled is how long content must have been left alone to be described: less than that, and it may change once more within one tick of the clock
	// that mtimes are taken from, which nobody could see.
	settled = 50 * time.Millisecond
)

// describeAt describes a file, the whole or its beginning. nil if it is not there as the catalogue has it, can't be read, or has just been changed.
func (s *Store) describeAt(ctx context.Context, a *listed, whole bool) (*blobstore.Described, error) {
	drive, err := s.openFolder(a.id.drive)
	if err != nil {
		return nil, nil // it has just gone
	}
	defer unix.Close(drive)
	folder, err := descendTo(drive, a.folder)
	if err != nil {
		return nil, nil
	}
	defer unix.Close(folder)
	place, err := openPath(folder, a.name, 0, beneath)
	if err != nil {
		return nil, nil
	}
	at := newDescriptor(place)
	defer at.release()
	facts, size, mtimeNs, err := describeFile(ctx, at, a.id.identity, whole)
	if err != nil || facts == nil || size != a.Size || mtimeNs != a.mtimeNs {
		return nil, err
	}
	return facts, nil
}

// describeFile describes a file by a descriptor of its place. nil if it is another, can't be read, or has just been or is being changed; an error
// if the context has ended.
func describeFile(ctx context.Context, at *descriptor, id identity, whole bool) (facts *blobstore.Described, size, mtimeNs int64, err error) {
	var before, after unix.Statx_t
	if statx(at.fd, "", &before) != nil || identityOf(&before) != id || before.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, 0, 0, nil
	}
	size, mtimeNs = int64(before.Size), nanoseconds(before.Mtime)
	if since := time.Since(time.Unix(0, mtimeNs)); since >= 0 && since < settled {
		return nil, size, mtimeNs, nil
	}
	fd, err := openat(unix.AT_FDCWD, at.path(), unix.O_RDONLY|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) { // only the owner may leave no trace
		fd, err = openat(unix.AT_FDCWD, at.path(), unix.O_RDONLY, 0)
	}
	if err != nil {
		return nil, size, mtimeNs, nil // it can't be read by this user
	}
	defer unix.Close(fd)
	read := describe.Look
	if whole {
		read = describe.Read
	}
	found, err := read(ctx, content(fd), size)
	if ctx.Err() != nil {
		return nil, size, mtimeNs, context.Cause(ctx)
	}
	if err != nil || statx(fd, "", &after) != nil || after.Size != before.Size || after.Mtime != before.Mtime {
		return nil, size, mtimeNs, nil // it changes, or the disk does not give it
	}
	return &found, size, mtimeNs, nil
}

// content is an open file as an io.ReaderAt.
type content int

// ReadAt implements io.ReaderAt.
func (c content) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		var got int
		err := retry(func() (err error) { got, err = unix.Pread(int(c), p[n:], off+int64(n)); return err })
		if err != nil {
			return n, err
		}
		if got == 0 {
			return n, io.EOF
		}
		n += got
	}
	return n, nil
}

// lookAtTypes finds out the types of the files of a drive that nothing is known of and that fit the rest of a query, in batches.
func (s *Store) lookAtTypes(ctx context.Context, drive string, query blobstore.AssetQuery) error {
	query.Types, query.Order = nil, blobstore.ByCreation // which is the order of the index
	f := &finding{store: s, query: query, tops: map[string]unix.Statx_t{drive: {}}}
	for {
		var batch []listed
		err := s.catalog.use(ctx, func(_, read *sql.DB) error {
			batch = nil
			text, args := f.sql([]blobstore.DriveName{blobstore.DriveName(drive)}, access{index: "assets_by_type"})
			rows, err := read.QueryContext(ctx, strings.Replace(text, " order by", " and a.type is null order by", 1)+" limit 1000", args...)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				a, err := scanAsset(rows)
				if err != nil {
					return err
				}
				batch = append(batch, a)
			}
			return rows.Err()
		})
		if err != nil || len(batch) == 0 {
			return err
		}
		all, err := s.beginnings(ctx, batch)
		if err != nil {
			return err
		}
		if err := s.catalog.put(ctx, all); err != nil {
			return err
		}
		f.after, f.begun = batch[len(batch)-1].position(), true
	}
}

// readers is how many files are read at once to find out their types: a disk has something to do while another answers.
const readers = 4

// beginnings describes files by how they begin.
func (s *Store) beginnings(ctx context.Context, batch []listed) (all []found, err error) {
	var reading sync.WaitGroup
	var mu sync.Mutex // guards what is returned
	for first := range readers {
		reading.Go(func() {
			for i := first; i < len(batch); i += readers {
				a := &batch[i]
				if s.catalog.isWaiting(a.id) {
					continue
				}
				facts, failed := s.describeAt(ctx, a, false)
				mu.Lock()
				if failed != nil {
					err = failed
				} else if facts != nil {
					all = append(all, found{a.id, a.Size, a.mtimeNs, *facts})
				}
				mu.Unlock()
				if failed != nil {
					return
				}
			}
		})
	}
	reading.Wait()
	return all, err
}
