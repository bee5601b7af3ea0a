package dirstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// changesFolder is where, in ownFolder, drives say which of their files they have changed in place: the times of a folder say nothing of that, and who
// searches may be another program. Each open drive adds to a file of its own, in the folder of the drive, and holds a lock (flock) on it as long as it does;
// whoever searches takes what is new into the catalogue (catalog.follow), and a file that nobody holds and that has been read away. A record is the number
// and the birth of a file. It takes one system call, and nobody who writes waits for the catalogue.
const changesFolder = "changes"

const (
	// changesRecord is the length of a record.
	changesRecord = 16

	// changesSize is how long a file of records becomes. Then the drive begins another, and takes the old one into the catalogue itself.
	changesSize = 1 << 20

	// noted is for how long one record stands for all that is changed after it. Who searches looks at a file for as long again after it has met the record
	// (changesKept), and so after the last of those changes.
	noted       = time.Second
	changesKept = 2 * noted
)

// changes says what a drive has changed in place.
type changes struct {
	drive *Drive
	task  sync.WaitGroup // takes what is full into the catalogue

	mu     sync.Mutex // guards the rest
	closed bool
	fd     int // -1: none is open
	size   int64
	begun  bool // something was noted
	told   bool // that it can't be done
}

// note says that a file has been changed. That it can't be said keeps nobody from changing it: then it is found when the whole folder is looked at again.
func (c *changes) note(id identity) {
	if c.drive.store.bare {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	err := c.add(id)
	if err != nil && !c.told {
		c.told = true
		c.drive.store.log.Debug("that files are changed in place can't be noted; searches find it later", "drive", c.drive.name, "error", err)
	}
}

// noteUnlessNew notes a change of a file, unless it is so young that every search looks at it by itself.
func (c *changes) noteUnlessNew(id identity) {
	if time.Since(time.Unix(0, id.birth)) >= noted {
		c.note(id)
	}
}

// add adds a record. With mu.
func (c *changes) add(id identity) (err error) {
	if c.fd < 0 {
		if c.fd, err = c.begin(); err != nil {
			return err
		}
		c.begun = true
	}
	var record [changesRecord]byte
	binary.LittleEndian.PutUint64(record[:8], id.number)
	binary.LittleEndian.PutUint64(record[8:], uint64(id.birth))
	n, err := unix.Write(c.fd, record[:])
	if err == nil && n == changesRecord {
		if c.size += changesRecord; c.size < changesSize {
			return nil
		}
	}
	// It is full, or ends within a record.
	_ = unix.Close(c.fd)
	c.fd, c.size = -1, 0
	if err != nil || n < changesRecord {
		return errors.Join(err, unix.ENOSPC)
	}
	c.task.Go(func() { c.takeIn(c.drive.quota.life) })
	return nil
}

// begin makes a file of records that nobody else adds to.
func (c *changes) begin() (int, error) {
	own, err := openBelow(c.drive.store.root.fd, ownFolder)
	if err != nil {
		return -1, err
	}
	var st unix.Statx_t
	err = statx(own, "", &st)
	folder := own // makeOwn closes it
	for _, name := range []string{changesFolder, c.drive.name} {
		if err == nil {
			folder, err = makeOwn(folder, name, &st)
		}
	}
	defer func() { _ = unix.Close(folder) }()
	for err == nil {
		var random [8]byte
		_, _ = rand.Read(random[:]) // never fails
		fd, openErr := openat(folder, hex.EncodeToString(random[:]), unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
		if openErr != nil {
			return -1, openErr
		}
		if os.Geteuid() == 0 {
			err = unix.Fchown(fd, int(st.Uid), int(st.Gid))
		}
		if err == nil {
			err = retry(func() error { return unix.Flock(fd, unix.LOCK_EX) })
		}
		var is unix.Statx_t
		if err == nil {
			err = statx(fd, "", &is)
		}
		if err == nil && is.Nlink > 0 {
			return fd, nil
		}
		_ = unix.Close(fd) // a search has found it before it was locked, and taken it away
	}
	return -1, err
}

// makeOwn opens a folder of the store's own in another, which it closes, and makes it the first time, owned as st says.
func makeOwn(parent int, name string, st *unix.Statx_t) (int, error) {
	defer unix.Close(parent)
	err := unix.Mkdirat(parent, name, 0o700)
	if err == nil && os.Geteuid() == 0 {
		err = unix.Fchownat(parent, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// close ends the noting. What was noted is taken into the catalogue, so that files of records do not pile up where nobody searches.
func (c *changes) close(ctx context.Context) {
	c.mu.Lock()
	c.closed = true
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
		c.fd = -1
	}
	c.mu.Unlock()
	c.task.Wait()
	if c.begun {
		c.takeIn(ctx)
	}
}

func (c *changes) takeIn(ctx context.Context) {
	if _, err := c.drive.store.catalog.follow(ctx, c.drive.name); err != nil && ctx.Err() == nil {
		c.drive.store.log.Debug("what was changed in place stays to be taken in by a search", "drive", c.drive.name, "error", err)
	}
}

// follow takes into the catalogue what drives have said of their changes. It says whether it can't: then all is to be looked at.
func (c *catalog) follow(ctx context.Context, drive string) (blind bool, err error) {
	folder, err := openBelow(c.store.root.fd, ownFolder, changesFolder, drive)
	if errors.Is(err, unix.ENOENT) || isDenied(err) {
		return isDenied(err), nil // ENOENT: nothing was changed
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(folder)
	names, err := namesIn(folder)
	if err != nil || len(names) == 0 {
		return false, err
	}
	err = c.use(ctx, func(write, read *sql.DB) error {
		if c.isAside() { // what is taken in here others would not hear of
			blind = true
			return nil
		}
		for _, name := range names {
			err := followFile(ctx, write, read, drive, folder, name)
			if errors.Is(err, errBlind) {
				blind = true
				continue
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
	return blind, err
}

// errBlind is of a file of records that this user may not read.
var errBlind = errors.New("it may not be read")

// followFile takes in one file of records.
func followFile(ctx context.Context, write, read *sql.DB, drive string, folder int, name string) error {
	fd, err := openat(folder, name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if isDenied(err) {
		fd, err = openat(folder, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil // another search has taken it in
	case isDenied(err):
		return errBlind
	case err != nil:
		return err
	}
	defer unix.Close(fd)
	over := retry(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) }) == nil // asked first: then nothing is added any more
	var st unix.Statx_t
	if err := statx(fd, "", &st); err != nil {
		return err
	}
	end := int64(st.Size) / changesRecord * changesRecord
	var known int64
	err = read.QueryRowContext(ctx, "select length from followed where drive = ? and name = ?", drive, name).Scan(&known)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if known < end {
		if err := takeRecords(ctx, write, drive, name, fd, known, end); err != nil {
			return err
		}
	}
	if !over || st.Nlink == 0 {
		return nil
	}
	if err := unix.Unlinkat(folder, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		if isDenied(err) {
			return nil
		}
		return err
	}
	_, err = write.ExecContext(ctx, "delete from followed where drive = ? and name = ?", drive, name)
	return err
}

// takeRecords takes in what is between two positions of a file of records, unless another program does.
func takeRecords(ctx context.Context, write *sql.DB, drive, name string, fd int, from, to int64) error {
	records := make([]byte, to-from)
	if n, err := content(fd).ReadAt(records, from); err != nil || int64(n) < to-from {
		return errors.Join(err, unix.EIO)
	}
	tx, err := write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	note, err := tx.PrepareContext(ctx, `insert into changed (drive, ino, born_ns, until_ns) values (?, ?, ?, ?)
		on conflict do update set until_ns = max(until_ns, excluded.until_ns)`)
	if err != nil {
		return err
	}
	defer note.Close()
	until := time.Now().Add(changesKept).UnixNano()
	for r := records; len(r) > 0; r = r[changesRecord:] {
		_, err := note.ExecContext(ctx, drive, int64(binary.LittleEndian.Uint64(r)), int64(binary.LittleEndian.Uint64(r[8:])), until)
		if err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, "insert into followed (drive, name, length) values (?, ?, ?) on conflict do update set length = max(length, excluded.length)", drive, name, to)
	if err != nil {
		return err
	}
	return tx.Commit()
}

// noting is what an open file knows of when its changes were noted last.
type noting struct{ last atomic.Int64 } // nanoseconds since started

// started is when this process began to measure time.
var started = time.Now()

// at says that changes from then on are noted for a time: they have been, or the file is new and looked at by itself.
func (n *noting) at(when time.Time) { n.last.Store(int64(when.Sub(started))) }

// written notes a change of an open file that was just made, if it was not noted shortly before.
func (f *file) written() {
	if now := time.Now(); now.Sub(started)-time.Duration(f.noting.last.Load()) >= noted {
		f.drive.inPlace.note(f.node.id)
		f.noting.at(now)
	}
}
