package dirstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
)

// quotaFile is an SQLite database beside the store, which all processes that use it share: the limits of drives, and for drives that have one, what they
// hold. Unlike the index it can't be found out anew, so one that is broken is an error. It is there once a limit was set: a store without costs a
// look for it each second. It is no part of the index for another reason, too: following the audit log holds that for long.
//
// What a drive holds is counted when its first limit is set, and then by each mount as it changes: what a change may add at most is charged before, which
// is refused if it does not fit, and what it did add is known after, from the blocks of the file; the difference goes with the next charge. So a
// mount that is killed leaves too much charged, never too little. Other programs write into the folders without asking, and so do files that the kernel has
// been handed (FUSE passthrough) before there was a limit: what they do is found by counting anew, from time to time and when something was refused.
const quotaFile = "quota.sqlite"

const quotaVersion = 1

const quotaSchema = `
	create table quotas (
		drive text primary key, max_bytes integer not null, max_files integer not null, -- 0: no limit
		bytes integer not null, files integer not null,
		changes integer not null -- of what is counted, so that who counts anew sees whether anything has come between
	) without rowid;`

const (
	limitsLast   = time.Second      // how long a drive goes by the limits that it knows
	recountEvery = 10 * time.Minute // how often what a limited drive holds is counted anew
	recountApart = time.Second      // how long a difference has to last
	recountTries = 5                // a drive that changes all the time is not counted anew
)

// recountPause is how long after a count one is made because something was refused.
const recountPause = 10 * time.Second

// quotas is a store's quotaFile, opened when it is first needed.
type quotas struct {
	path string

	mu     sync.Mutex // guards the rest
	db     *sql.DB    // nil: not open
	closed bool
}

var _ blobstore.Quotas = (*Store)(nil)

// open returns the database; nil if there is none and it is not to be made.
func (q *quotas) open(ctx context.Context, anew bool) (*sql.DB, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, blobstore.ErrUnavailable
	}
	if q.db != nil {
		return q.db, nil
	}
	if !anew {
		if _, err := os.Lstat(q.path); err != nil {
			if errors.Is(err, os.ErrNotExist) {
				err = nil
			}
			return nil, err
		}
	}
	db, err := openDatabase(ctx, q.path, quotaSchema, quotaVersion)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", q.path, err)
	}
	q.db = db
	return db, nil
}

func (q *quotas) close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	if q.db == nil {
		return nil
	}
	return q.db.Close()
}

// A holding is what is known of a limited drive.
type holding struct {
	maxBytes, maxFiles   int64
	bytes, files, change int64
}

// of is what is known of a drive, and whether it has a limit.
func (q *quotas) of(ctx context.Context, drive string) (h holding, is bool, err error) {
	db, err := q.open(ctx, false)
	if err != nil || db == nil {
		return h, false, err
	}
	err = db.QueryRowContext(ctx, "select max_bytes, max_files, bytes, files, changes from quotas where drive = ?", drive).
		Scan(&h.maxBytes, &h.maxFiles, &h.bytes, &h.files, &h.change)
	if errors.Is(err, sql.ErrNoRows) {
		return h, false, nil
	}
	return h, err == nil, err
}

// charge adds to what a drive holds. ErrQuota if bytes or files are more than 0 and there is no room for them; earlier is the difference of earlier changes, for which there is.
func (q *quotas) charge(ctx context.Context, drive string, bytes, files, earlier int64) error {
	db, err := q.open(ctx, false)
	if err != nil || db == nil {
		return err
	}
	result, err := db.ExecContext(ctx, `update quotas set bytes = bytes + ?2 + ?4, files = files + ?3, changes = changes + 1 where drive = ?1
		and (?2 <= 0 or max_bytes = 0 or bytes + ?2 + ?4 <= max_bytes) and (?3 <= 0 or max_files = 0 or files + ?3 <= max_files)`, drive, bytes, files, earlier)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); n > 0 || err != nil {
		return err
	}
	if _, is, err := q.of(ctx, drive); err != nil || !is {
		return err // no limit any more
	}
	return blobstore.ErrQuota
}

// Quotas counts what the drives without a limit hold: that takes as long as looking at all their files.
func (s *Store) Quotas(ctx context.Context, session auth.Session) ([]blobstore.Quota, error) {
	if err := checkSession(ctx, session); err != nil {
		return nil, fmt.Errorf("dirstore: list quotas: %w", err)
	}
	if session.Role == auth.RoleGuest {
		return nil, fmt.Errorf("dirstore: list quotas: %w", blobstore.ErrAccess)
	}
	return s.listQuotas(ctx, func(name blobstore.DriveName) bool {
		return session.Role == auth.RoleAdmin || name == blobstore.DriveName(session.User)
	})
}

// Quotas gives those of all drives in root to whoever can read them.
func Quotas(ctx context.Context, root string) ([]blobstore.Quota, error) {
	s, err := Open(root, nil)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.listQuotas(ctx, func(blobstore.DriveName) bool { return true })
}

func (s *Store) listQuotas(ctx context.Context, wanted func(blobstore.DriveName) bool) ([]blobstore.Quota, error) {
	names, err := s.folderNames()
	if err != nil {
		return nil, fmt.Errorf("dirstore: list quotas: %w", sentinel(err))
	}
	var list []blobstore.Quota
	for _, name := range names {
		if !wanted(name) {
			continue
		}
		q := blobstore.Quota{Drive: name, Owner: auth.UserID(name)}
		if name == blobstore.PublicDrive {
			q.Owner = ""
		}
		h, is, err := s.quotas.of(ctx, string(name))
		if err == nil && !is {
			h.bytes, h.files, err = s.count(ctx, string(name))
		}
		if err != nil {
			return nil, fmt.Errorf("dirstore: the quota of %s: %w", name, sentinel(err))
		}
		q.MaxBytes, q.MaxFiles, q.UsedBytes, q.UsedFiles = h.maxBytes, h.maxFiles, h.bytes, h.files
		list = append(list, q)
	}
	slices.SortFunc(list, func(a, b blobstore.Quota) int { return cmp.Compare(a.Drive, b.Drive) })
	return list, nil
}

// SetQuota counts what the drive holds if it had no limit before. Mounts go by the limit within a second.
func (s *Store) SetQuota(ctx context.Context, session auth.Session, drive blobstore.DriveName, maxBytes, maxFiles int64) error {
	if err := checkSession(ctx, session); err != nil {
		return fmt.Errorf("dirstore: set a quota: %w", err)
	}
	if session.Role != auth.RoleAdmin {
		return fmt.Errorf("dirstore: set a quota: %w", blobstore.ErrAccess)
	}
	return s.setQuota(ctx, drive, maxBytes, maxFiles)
}

// SetQuota is Store.SetQuota for whoever may write beside the store in root.
func SetQuota(ctx context.Context, root string, drive blobstore.DriveName, maxBytes, maxFiles int64) error {
	s, err := Open(root, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.setQuota(ctx, drive, maxBytes, maxFiles)
}

func (s *Store) setQuota(ctx context.Context, drive blobstore.DriveName, maxBytes, maxFiles int64) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("dirstore: set the quota of %q: %w", drive, sentinel(err))
		}
	}()
	if maxBytes < blobstore.KeepLimit || maxFiles < blobstore.KeepLimit {
		return blobstore.ErrInvalid
	}
	if auth.UserID(drive).Check() != nil {
		return blobstore.ErrNotExist
	}
	fd, err := s.openFolder(string(drive))
	if err != nil {
		return err
	}
	_ = unix.Close(fd)
	limits := max(maxBytes, 0) > 0 || max(maxFiles, 0) > 0
	db, err := s.quotas.open(ctx, limits)
	if err != nil || db == nil {
		return err
	}
	result, err := db.ExecContext(ctx, `update quotas set max_bytes = case ?1 when -1 then max_bytes else ?1 end, max_files = case ?2 when -1 then max_files else ?2 end
		where drive = ?3`, maxBytes, maxFiles, string(drive))
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err == nil && n == 0 && limits {
		var bytes, files int64
		if bytes, files, err = s.count(ctx, string(drive)); err == nil {
			_, err = db.ExecContext(ctx, `insert into quotas values (?, ?, ?, ?, ?, 0)
				on conflict do update set max_bytes = excluded.max_bytes, max_files = excluded.max_files`, string(drive), max(maxBytes, 0), max(maxFiles, 0), bytes, files)
		}
	}
	if err == nil {
		_, err = db.ExecContext(ctx, "delete from quotas where drive = ? and max_bytes = 0 and max_files = 0", string(drive))
	}
	return err
}

// count counts what a drive holds: the blocks of its files, and its nodes but the root. A file with several names is one.
func (s *Store) count(ctx context.Context, drive string) (bytes, files int64, err error) {
	fd, err := s.openFolder(drive)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(fd)
	var top unix.Statx_t
	if err := statx(fd, "", &top); err != nil {
		return 0, 0, err
	}
	seen := make(map[uint64]bool) // files with several names
	var walk func(folder int) error
	walk = func(folder int) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		listed, err := openat(folder, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		dir := os.NewFile(uintptr(listed), "folder")
		names, err := dir.Readdirnames(-1)
		if err = errors.Join(err, dir.Close()); err != nil {
			return err
		}
		for _, name := range names {
			var st unix.Statx_t
			err := statx(folder, name, &st)
			if errors.Is(err, unix.ENOENT) {
				continue // it went meanwhile
			} else if err != nil {
				return err
			}
			if st.Dev_major != top.Dev_major || st.Dev_minor != top.Dev_minor || st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR && seen[st.Ino] {
				continue
			}
			files++
			bytes += held(&st)
			if st.Mode&unix.S_IFMT != unix.S_IFDIR {
				seen[st.Ino] = seen[st.Ino] || st.Nlink > 1
				continue
			}
			below, err := openPath(folder, name, unix.O_DIRECTORY, beneath)
			if err == nil {
				err = errors.Join(walk(below), unix.Close(below))
			}
			if err != nil && !errors.Is(gone(err), blobstore.ErrStale) {
				return err
			}
		}
		return nil
	}
	err = walk(fd)
	return bytes, files, err
}

// lookAtQuotas asks SQLite whether the file of quotas is whole. What is in it can't be made anew.
func (c *checker) lookAtQuotas(ctx context.Context, found func(blobstore.Finding)) error {
	broken := func(says string) {
		found(blobstore.Finding{Kind: "quota", Name: filepath.Join(ownFolder, quotaFile), Says: says})
	}
	db, err := c.quotas.open(ctx, false)
	var says string
	if err == nil && db != nil {
		err = db.QueryRowContext(ctx, "pragma quick_check(1)").Scan(&says)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		broken(err.Error() + ": take it away and set the quotas anew")
	case db != nil && says != "ok":
		broken("it is broken: " + says + ": take it away and set the quotas anew")
	}
	return nil
}
