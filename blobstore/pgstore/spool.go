package pgstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
)

// A spool is where one drive's pending bytes are kept on this machine's disk: a folder named by the drive's uuid, and in it a file
// for each mount that has kept something (spoolfile.go). A mount locks its file, flock(2), as long as it lives; a file that nobody
// locks is replayed by whoever opens the drive as the same user, and locked meanwhile.
//
// Writing a file replaces the one before whole. It goes once all in it is stored. Should that not come about, because the program is
// killed between the two, replaying it does no harm: mediafs.put_kept takes nothing that may be older than what is there.
//
// The methods take a nil spool: nothing is kept then.
type spool struct {
	root   string // Options.Spool
	folder string // in it
	header keptHeader
	mount  string
	alive  *os.File    // says that this mount lives (dead.go); nil: it could not be made
	left   atomic.Bool // another's file is there, or one that could not be replayed

	mu    sync.Mutex // guards the rest; taken before drive.mu
	file  *os.File   // this mount's, locked; nil: nothing is kept
	count int        // of files that were left to be replayed
	blobs []*blob    // with bytes in file
}

const (
	spoolNew     = ".new"     // ends the name of a file that is being written
	spoolDamaged = ".damaged" // and of one that can't be read
)

// lostAndFound is the folder for what can't go back into its file.
const lostAndFound = "lost+found"

// openSpool finds the drive's folder and stores what is kept there for the user. That it can't be stored is no error: it stays.
func (d *Drive) openSpool(ctx context.Context, user auth.UserID) error {
	s := &spool{root: d.store.spool, header: keptHeader{chunk: d.chunk, user: string(user)}, mount: fmt.Sprintf("%x", d.mount)}
	err := d.run(ctx, "open drive", reading, statement{
		sql:  "select uuid from mediafs.drives where drive_id = $1",
		args: []any{d.id},
		each: func(r pgx.Rows) error { return r.Scan(&s.header.drive) },
	})
	if err != nil {
		return err
	}
	s.folder = filepath.Join(s.root, fmt.Sprintf("%x", s.header.drive))
	d.spool = s
	if err := s.live(ctx, d); err != nil {
		d.log.Warn("should this mount be killed, its locks are held for half a minute", "folder", s.root, "error", err)
	}
	if err := d.replay(ctx); err != nil {
		d.log.Warn("could not store what was kept on disk; trying again later", "folder", s.folder, "error", err)
	}
	return nil
}

// open opens the drive's folder, and makes it if create is set. It refuses a folder that others may enter.
func (s *spool) open(create bool) (*os.File, error) {
	root, err := openPrivate(unix.AT_FDCWD, s.root, create)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return openPrivate(int(root.Fd()), filepath.Base(s.folder), create)
}

func openPrivate(at int, name string, create bool) (*os.File, error) {
	if create {
		if err := unix.Mkdirat(at, name, 0o700); err == nil {
			if parent, err := unix.Openat(at, filepath.Dir(name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
				_ = unix.Fsync(parent)
				_ = unix.Close(parent)
			}
		} else if !errors.Is(err, unix.EEXIST) {
			return nil, &os.PathError{Op: "mkdir", Path: name, Err: err}
		}
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	dir := os.NewFile(uintptr(fd), name)
	if err := checkPrivate(dir); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// checkPrivate gives an error unless a file or folder is ours alone.
func checkPrivate(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	switch {
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d, not to %d who runs this program: %w", f.Name(), st.Uid, os.Geteuid(), blobstore.ErrAccess)
	case st.Mode&0o077 != 0:
		return fmt.Errorf("%s is open to others (mode %04o): chmod go= it: %w", f.Name(), st.Mode&0o7777, blobstore.ErrAccess)
	}
	return nil
}

// Preserve implements blobstore.Preserver. It needs Options.Spool, else ErrNotSupported. If it fails, what was kept before is
// still there, and memory has everything.
func (d *Drive) Preserve(ctx context.Context) error {
	s := d.spool
	if s == nil {
		return fmt.Errorf("pgstore: keep what was written: no folder is set for it: %w", blobstore.ErrNotSupported)
	}
	s.tidy()
	s.mu.Lock()
	defer s.mu.Unlock()
	blobs := d.pendingBlobs()
	if len(blobs) == 0 {
		return nil
	}
	before := s.blobs
	s.blobs = slices.Concat(before, blobs)
	file, err := s.write(ctx, blobs)
	if err != nil {
		return fmt.Errorf("pgstore: keep what was written in %s: %w", s.folder, err)
	}
	if s.file != nil {
		_ = s.file.Close() // replaced
	}
	s.file, s.blobs = file, blobs
	return nil
}

// write makes this mount's file of what is pending now, and returns it locked. With mu.
func (s *spool) write(ctx context.Context, blobs []*blob) (_ *os.File, err error) {
	dir, err := s.open(true)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	at, name := int(dir.Fd()), s.name()
	_ = unix.Unlinkat(at, name+spoolNew, 0)
	fd, err := unix.Openat(at, name+spoolNew, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = unix.Unlinkat(at, name+spoolNew, 0)
		}
	}()
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, err
	}
	w := newSpoolWriter(file, s.header)
	for _, b := range blobs {
		b.keep(w)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	if err := w.end(); err != nil {
		return nil, err
	}
	if err := file.Sync(); err != nil {
		return nil, err
	}
	if err := unix.Renameat(at, name+spoolNew, at, name); err != nil {
		return nil, err
	}
	return file, dir.Sync()
}

// name is that of this mount's file. With mu.
func (s *spool) name() string { return fmt.Sprintf("%s-%06d", s.mount, s.count) }

// keep writes what is pending. Who stores it while that goes on waits.
func (b *blob) keep(w *spoolWriter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.pending() || b.isRemoved() {
		return
	}
	b.kept = true
	f := keptFile{
		ino: b.ino, number: b.number, known: b.stored, storedMtime: b.storedMtime,
		mtimePending: b.mtimePending, mtimeNs: b.attr.MtimeNs, ctimeNs: b.attr.CtimeNs,
	}
	if m := b.making; m != nil {
		f.making = &keptMaking{m.parent, m.name, m.ns, b.attr.AtimeNs, b.attr.Mode, b.attr.UID, b.attr.GID}
	}
	w.file(f)
	pieces := maps.Clone(b.dirty)
	for idx, older := range b.flight {
		newer := pieces[idx]
		if newer == nil {
			pieces[idx] = older
			continue
		}
		both := &piece{data: slices.Clone(older.data), extents: slices.Clone(older.extents)}
		both.lay(newer)
		pieces[idx] = both
	}
	for _, idx := range slices.Sorted(maps.Keys(pieces)) {
		p := pieces[idx]
		for _, e := range p.extents {
			w.piece(keptPiece{idx: idx, off: b.place(idx, p, e), data: p.data[e.from:e.to]})
		}
	}
}

// tidy lets this mount's file go once nothing in it is needed: it is removed, or left to be replayed if another mount has taken a
// file away that has bytes in it.
func (s *spool) tidy() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return
	}
	var lost bool
	for _, b := range s.blobs {
		b.mu.Lock()
		kept, gone := b.kept, b.lost != nil
		b.mu.Unlock()
		if kept && !gone {
			return
		}
		lost = lost || kept
	}
	if lost {
		s.count++
		s.left.Store(true)
	} else {
		dir, err := s.open(false)
		if err == nil {
			err = cmp.Or(unix.Unlinkat(int(dir.Fd()), s.name(), 0), dir.Sync(), dir.Close())
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return // the keeper tries again
		}
	}
	_ = s.file.Close()
	s.file, s.blobs = nil, nil
}

// close leaves what is kept to whoever opens the drive next.
func (s *spool) close() {
	if s == nil {
		return
	}
	s.tidy()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		_ = s.file.Close()
		s.file, s.blobs = nil, nil
	}
}

// isLeft says whether there may be something to replay.
func (s *spool) isLeft() bool { return s != nil && s.left.Load() }

// closeKeeping ends Close where err kept something from being stored.
func (d *Drive) closeKeeping(err error) error {
	n := d.PendingBytes()
	if d.spool == nil || len(d.pendingBlobs()) == 0 {
		d.spool.close()
		return err
	}
	if failed := d.Preserve(context.Background()); failed != nil { // Close's own time may be over: that is why
		return errors.Join(err, failed)
	}
	d.letGo()
	d.spool.close()
	if errors.Is(err, blobstore.ErrStale) { // of some file everything is lost
		return fmt.Errorf("%w (%d bytes of other files are kept in %s and are stored when the drive is mounted again)", err, n, d.spool.folder)
	}
	return fmt.Errorf("%w: %d bytes in %s; they are stored when the drive is mounted again: %w", blobstore.ErrKept, n, d.spool.folder, err)
}

// replay stores what the folder has that no living mount has locked. Nothing there is no error.
func (d *Drive) replay(ctx context.Context) error {
	s := d.spool
	s.left.Store(false)
	dir, err := s.open(false)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names) // of one mount the oldest first
	var errs []error
	for _, name := range names {
		if strings.HasSuffix(name, spoolDamaged) {
			continue
		}
		if err := d.replayFile(ctx, dir, name); err != nil {
			s.left.Store(true)
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// replayFile stores what one file has, and removes it.
func (d *Drive) replayFile(ctx context.Context, dir *os.File, name string) error {
	at := int(dir.Fd())
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	} else if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	if err := checkPrivate(file); err != nil {
		return err
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		if !strings.HasPrefix(name, d.spool.mount) {
			d.spool.left.Store(true) // for when that mount has died
		}
		return nil
	} else if err != nil {
		return err
	}
	var now, then unix.Stat_t
	if err := unix.Fstat(fd, &then); err != nil {
		return err
	}
	if err := unix.Fstatat(at, name, &now, unix.AT_SYMLINK_NOFOLLOW); err != nil || now.Ino != then.Ino {
		return nil // replayed or replaced before it could be locked
	}
	if strings.HasSuffix(name, spoolNew) { // it never came to be whole; the one before it did
		return unix.Unlinkat(at, name, 0)
	}
	header, err := checkSpool(file)
	switch {
	case errors.Is(err, errDamaged):
		d.log.Warn("what was kept on disk can't be read; it is left as it is", "file", filepath.Join(d.spool.folder, name+spoolDamaged), "error", err)
		return unix.Renameat(at, name, at, name+spoolDamaged)
	case err != nil:
		return err
	case header != d.spool.header:
		return nil // another user's
	}
	r := replayer{drive: d, spool: file}
	if err := r.run(ctx); err != nil {
		return err
	}
	d.log.Info("stored what was kept on disk", "file", name)
	return cmp.Or(unix.Unlinkat(at, name, 0), dir.Sync())
}
