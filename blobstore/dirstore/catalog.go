package dirstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"mediafs/blobstore"
)

// catalogFile is an SQLite database beside the store, which several processes use at once. It keeps where files are, as they were found by the last look at
// their folders, and what their content was found to say. Nothing is in it alone: files have their ids from themselves (assetID) and carry their jobs as
// extended attributes. One that is missing or broken is made anew, and fills as folders are looked at.
//
// It is a file of its own beside indexFile: whoever looks at a large drive writes for seconds, and nobody who counts should wait for that.
const catalogFile = "assets.sqlite"

// catalogVersion is the version of the schema (user_version). One of version 1 keeps what it knows of content alone; one of a later version is left to the
// programs of that version.
const catalogVersion = 2

// catalogCache is how much memory each of its connections has for pages, in KiB.
const catalogCache = 2048

const catalogSchema = `
	drop table if exists assets;
	create table assets ( -- a name of a file
		drive text not null, folder blob not null, name blob not null, -- folder: from the drive's root, '' for that itself
		ino integer not null, born_ns integer not null, size integer not null, mtime_ns integer not null, ctime_ns integer not null,
		nlink integer not null, job text not null, type text, -- type: what facts say of this content; null: nothing
		primary key (drive, folder, name)
	);
	create index assets_by_node on assets (drive, ino, born_ns);
	create index assets_by_birth on assets (drive, born_ns);
	create index assets_by_type on assets (drive, type, born_ns);
	create index assets_by_job on assets (drive, job, born_ns) where job <> '';
	create table folders ( -- a folder as it was before it was read last
		drive text not null, path blob not null, ino integer not null, born_ns integer not null, mtime_ns integer not null, ctime_ns integer not null,
		looked_ns integer not null, due_ns integer not null, -- when it was read, and when it is to be read again whatever its times are; 0: at once
		files integer not null, revision integer not null, -- revision: another after each time; 0: nothing is known of what is in it
		primary key (drive, path)
	) without rowid;
	create table changed ( -- a file that was changed in place, and until when it is looked at by each search
		drive text not null, ino integer not null, born_ns integer not null, until_ns integer not null, primary key (drive, ino, born_ns)
	) without rowid;
	create table followed ( -- how far a file of changesFolder was taken in
		drive text not null, name text not null, length integer not null, primary key (drive, name)
	) without rowid;
	create table if not exists facts ( -- what the content of a file said when it had this size and mtime
		drive text not null, ino integer not null, born_ns integer not null, size integer not null, mtime_ns integer not null,
		type text not null, sha256 blob, width integer not null, height integer not null, taken_ns integer, -- sha256: null until all was read
		primary key (drive, ino, born_ns)
	) without rowid;`

// catalog is a store's catalogFile, opened when it is first needed; where that can't be used, one of this process's own, which goes with it.
type catalog struct {
	store *Store
	path  string
	terms terms

	mu      sync.Mutex // guards the rest
	closed  bool
	aside   string      // the folder of a catalogue of this process's own; "": it is the store's
	file    os.FileInfo // the store's, as it was opened
	old     []*sql.DB   // of a file that somebody has taken away meanwhile
	write   *sql.DB     // nil: not open
	read    *sql.DB
	waiting map[fileID]int // files that are to be described again, whatever is known of them
}

// fileID is a file, whatever its names are and whatever is in it.
type fileID struct {
	drive string
	identity
}

func newCatalog(s *Store, root string) *catalog {
	return &catalog{store: s, path: filepath.Join(root, ownFolder, catalogFile), waiting: make(map[fileID]int), terms: usualTerms}
}

func (c *catalog) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return c.letGo()
}

// letGo closes the databases. With mu.
func (c *catalog) letGo() error {
	var err error
	for _, db := range append(c.old, c.read, c.write) {
		if db != nil {
			err = errors.Join(err, db.Close())
		}
	}
	if c.aside != "" {
		err = errors.Join(err, os.RemoveAll(c.aside))
	}
	c.write, c.read, c.aside, c.old = nil, nil, "", nil
	return err
}

// use calls do with the databases to write to and to read from. A catalogue that is broken is made anew, and do called once more.
func (c *catalog) use(ctx context.Context, do func(write, read *sql.DB) error) error {
	for again := true; ; again = false {
		write, read, err := c.open(ctx)
		if err == nil {
			err = do(write, read)
		}
		if !again || !isBroken(err) {
			return err
		}
		c.store.log.Warn("what is known of files is broken; finding it out anew", "error", err)
		c.mu.Lock()
		_ = c.letGo()
		removeDatabase(c.path)
		c.mu.Unlock()
	}
}

func (c *catalog) open(ctx context.Context) (write, read *sql.DB, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, fmt.Errorf("the store is closed: %w", blobstore.ErrUnavailable)
	}
	if c.write != nil && c.aside == "" {
		if is, err := os.Lstat(c.path); err != nil || !os.SameFile(is, c.file) { // what others find out goes to the new one
			c.old = append(c.old, c.read, c.write)
			c.write, c.read = nil, nil
		}
	}
	if c.write != nil {
		return c.write, c.read, nil
	}
	err = c.openAt(ctx, c.path)
	if isDenied(err) || errors.Is(err, errIndexVersion) {
		c.store.log.Debug("what is known of files can't be kept beside the store; finding it out for this program alone", "error", err)
		if c.aside, err = os.MkdirTemp("", "mediafs-"); err != nil {
			return nil, nil, err
		}
		err = c.openAt(ctx, filepath.Join(c.aside, catalogFile))
	}
	return c.write, c.read, err
}

// isAside says whether the catalogue is this process's own. What drives say of their changes is taken into that of the store alone.
func (c *catalog) isAside() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.aside != ""
}

// openAt opens a catalogue, and makes it the first time. With mu.
func (c *catalog) openAt(ctx context.Context, path string) (err error) {
	if err := makeDatabase(path); err != nil {
		return err
	}
	if c.file, err = os.Lstat(path); err != nil {
		return err
	}
	if c.write, err = connect(path, lockAtOnce, catalogCache); err != nil {
		return err
	}
	if c.read, err = connect(path, lockLater, catalogCache); err != nil {
		return errors.Join(err, c.letGo())
	}
	c.write.SetMaxOpenConns(1)
	c.read.SetMaxOpenConns(4)
	err = whileBusy(ctx, func() error {
		var version int // asked first without a lock, so that nobody who only searches waits for who writes
		if err := c.read.QueryRowContext(ctx, "pragma user_version").Scan(&version); err != nil || version == catalogVersion {
			return err
		}
		return prepareDatabase(ctx, c.write, catalogSchema, catalogVersion, 1)
	})
	if err != nil {
		return errors.Join(err, c.letGo())
	}
	return nil
}

// isDenied says whether an error is that this program may not write.
func isDenied(err error) bool {
	var e *sqlite.Error
	if errors.As(err, &e) {
		switch e.Code() & 0xff { // without what extends the code
		case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
			return true
		}
	}
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS)
}

// setWaiting says that a file is to be described again, or with -1, that this has been done.
func (c *catalog) setWaiting(id fileID, by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting[id] += by; c.waiting[id] == 0 {
		delete(c.waiting, id)
	}
}

func (c *catalog) isWaiting(id fileID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting[id] > 0
}

// found is what was found out about a file whose content had a size and an mtime.
type found struct {
	id            fileID
	size, mtimeNs int64
	blobstore.Described
}

// put keeps what was found out. What is known of the whole of the same content is not replaced by what is known of its beginning.
func (c *catalog) put(ctx context.Context, all []found) error {
	if len(all) == 0 {
		return nil
	}
	return c.use(ctx, func(write, _ *sql.DB) error {
		tx, err := write.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		put, err := tx.PrepareContext(ctx, `insert into facts as f (drive, ino, born_ns, size, mtime_ns, type, sha256, width, height, taken_ns)
			values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			on conflict do update set size = excluded.size, mtime_ns = excluded.mtime_ns, type = excluded.type, sha256 = excluded.sha256,
				width = excluded.width, height = excluded.height, taken_ns = excluded.taken_ns
			where excluded.sha256 is not null or f.sha256 is null or f.size <> excluded.size or f.mtime_ns <> excluded.mtime_ns`)
		if err != nil {
			return err
		}
		defer put.Close()
		typed, err := tx.PrepareContext(ctx, "update assets set type = ? where drive = ? and ino = ? and born_ns = ? and size = ? and mtime_ns = ?")
		if err != nil {
			return err
		}
		defer typed.Close()
		for _, f := range all {
			var taken, sum any
			if !f.Taken.IsZero() {
				taken = f.Taken.UnixNano()
			}
			if f.SHA256 != nil {
				sum = f.SHA256
			}
			_, err := put.ExecContext(ctx, f.id.drive, int64(f.id.number), f.id.birth, f.size, f.mtimeNs, f.Type, sum, f.Width, f.Height, taken)
			if err == nil {
				_, err = typed.ExecContext(ctx, f.Type, f.id.drive, int64(f.id.number), f.id.birth, f.size, f.mtimeNs)
			}
			if err != nil {
				return err
			}
		}
		return tx.Commit()
	})
}

// knownOf is what is known of a file whose content has a size and an mtime; described says whether that is all there is to know.
func (c *catalog) knownOf(ctx context.Context, id fileID, size, mtimeNs int64) (facts blobstore.Described, described bool, err error) {
	if c.isWaiting(id) {
		return facts, false, nil
	}
	err = c.use(ctx, func(_, read *sql.DB) error {
		var taken sql.NullInt64
		err := read.QueryRowContext(ctx, `select type, sha256, width, height, taken_ns from facts
			where drive = ? and ino = ? and born_ns = ? and size = ? and mtime_ns = ?`, id.drive, int64(id.number), id.birth, size, mtimeNs).
			Scan(&facts.Type, &facts.SHA256, &facts.Width, &facts.Height, &taken)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		described = err == nil && facts.SHA256 != nil
		facts.Taken = timeOf(taken)
		return err
	})
	return facts, described, err
}

func timeOf(ns sql.NullInt64) time.Time {
	if !ns.Valid {
		return time.Time{}
	}
	return time.Unix(0, ns.Int64)
}
