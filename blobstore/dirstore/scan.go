package dirstore

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// A scan brings what the catalogue knows of the folders of a drive up to what is there. Each file costs one system call, and those that have changed a few
// more. What can't be looked at is passed over, as if it was not there.
type scan struct {
	ctx         context.Context
	drive       string
	top         unix.Statx_t // of the drive's folder
	write, read *sql.DB
	known       *sql.Stmt // the rows of a folder, by name
	put, gone   []row     // to be stored
	visited     map[string]bool
	lost        bool // something that was known is not there any more
}

// row is one of the table assets, without its drive.
type row struct {
	folder, name                          string
	ino, born, size, mtime, ctime, nlinks int64
	job                                   string
}

// scanBatch is how many changes are stored in one transaction.
const scanBatch = 2000

// scan looks at a folder of a drive, and at those in it unless shallow. It returns what the drive's own folder is; ErrNotExist if there is no such drive.
func (c *catalog) scan(ctx context.Context, drive, folder string, shallow bool) (top unix.Statx_t, err error) {
	err = c.use(ctx, func(write, read *sql.DB) error {
		s := &scan{ctx: ctx, drive: drive, write: write, read: read, visited: make(map[string]bool)}
		err := s.run(c.store, folder, shallow)
		top = s.top
		return err
	})
	return top, err
}

func (s *scan) run(store *Store, folder string, shallow bool) error {
	fd, err := store.openFolder(s.drive)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := statx(fd, "", &s.top); err != nil {
		return err
	}
	if s.known, err = s.read.PrepareContext(s.ctx, "select name, ino, born_ns, size, mtime_ns, ctime_ns, nlink from assets where drive = ? and folder = ? order by name"); err != nil {
		return err
	}
	defer s.known.Close()
	place, err := descendTo(fd, folder)
	switch {
	case err == nil:
		err = s.folder(place, folder, shallow)
		_ = unix.Close(place)
	case errors.Is(gone(err), blobstore.ErrStale), errors.Is(err, unix.EACCES): // there is no such folder
		err = nil
	}
	if err == nil {
		err = s.forgetFolders(folder, shallow)
	}
	if err == nil {
		err = s.store()
	}
	if err == nil && s.lost && folder == "" && !shallow {
		_, err = s.write.ExecContext(s.ctx, `delete from facts where drive = ?
			and not exists (select 1 from assets a where a.drive = facts.drive and a.ino = facts.ino and a.born_ns = facts.born_ns)`, s.drive)
	}
	return err
}

// descendTo opens a folder beneath another as a place, step by step.
func descendTo(fd int, path string) (int, error) {
	at, err := openPath(fd, ".", unix.O_DIRECTORY, beneath)
	for name := range strings.SplitSeq(path, "/") {
		if err != nil || name == "" {
			break
		}
		next, openErr := openPath(at, name, unix.O_DIRECTORY, beneath)
		_ = unix.Close(at)
		at, err = next, openErr
	}
	return at, err
}

// folder compares a folder, given by a descriptor of its place, with what is known of it.
func (s *scan) folder(place int, path string, shallow bool) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	s.visited[path] = true
	names, err := namesIn(place)
	if err != nil && !isDenied(err) && !errors.Is(err, unix.ENOENT) {
		return err
	}
	known, err := s.known.QueryContext(s.ctx, s.drive, []byte(path))
	if err != nil {
		return err
	}
	defer known.Close()
	old, err := nextKnown(known)
	var folders []string
	var st unix.Statx_t
	for _, name := range names {
		if err != nil {
			return err
		}
		if statx(place, name, &st) != nil || st.Dev_major != s.top.Dev_major || st.Dev_minor != s.top.Dev_minor || st.Mnt_id != s.top.Mnt_id {
			continue
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			folders = append(folders, name)
			continue
		case unix.S_IFREG:
		default:
			continue
		}
		for old != nil && old.name < name && err == nil {
			s.forget(path, old)
			old, err = nextKnown(known)
		}
		now := rowOf(path, name, &st)
		if err == nil && old != nil && old.name == name {
			before := *old
			old, err = nextKnown(known)
			if before.folder = path; before == now {
				continue
			}
		}
		now.job = jobAt(place, name)
		s.put = append(s.put, now)
	}
	for old != nil && err == nil {
		s.forget(path, old)
		old, err = nextKnown(known)
	}
	if err == nil {
		err = known.Close()
	}
	if err == nil && len(s.put)+len(s.gone) >= scanBatch {
		err = s.store()
	}
	if err != nil || shallow {
		return err
	}
	for _, name := range folders {
		next, err := openPath(place, name, unix.O_DIRECTORY, beneath)
		if err != nil {
			continue
		}
		err = s.folder(next, join(path, name), false)
		_ = unix.Close(next)
		if err != nil {
			return err
		}
	}
	return nil
}

// join is the path of an entry of a folder.
func join(folder, name string) string {
	if folder == "" {
		return name
	}
	return folder + "/" + name
}

func rowOf(folder, name string, st *unix.Statx_t) row {
	id := identityOf(st)
	return row{
		folder: folder, name: name, ino: int64(id.number), born: id.birth, size: int64(st.Size), mtime: nanoseconds(st.Mtime),
		ctime: nanoseconds(st.Ctime), nlinks: int64(st.Nlink),
	}
}

// nextKnown is the next row of a folder, without folder and job; nil after the last.
func nextKnown(rows *sql.Rows) (*row, error) {
	if !rows.Next() {
		return nil, rows.Err()
	}
	var r row
	var name sql.RawBytes
	err := rows.Scan(&name, &r.ino, &r.born, &r.size, &r.mtime, &r.ctime, &r.nlinks)
	r.name = string(name)
	return &r, err
}

// jobAt is the job of a file; "" if it has none or can't be asked.
func jobAt(folder int, name string) string {
	fd, err := openPath(folder, name, 0, beneath)
	if err != nil {
		return ""
	}
	d := newDescriptor(fd)
	defer d.release()
	return jobOf(d)
}

// forget notes that a name is not there any more.
func (s *scan) forget(folder string, r *row) {
	r.folder = folder
	s.gone = append(s.gone, *r)
	s.lost = true
}

// forgetFolders takes away what is known of a folder and, unless shallow, of those beneath it, where they are not there any more.
func (s *scan) forgetFolders(beneath string, shallow bool) error {
	from, to := foldersIn(beneath)
	rows, err := s.read.QueryContext(s.ctx, "select distinct folder from assets where drive = ? and folder >= ? and folder < ?", s.drive, from, to)
	if err != nil {
		return err
	}
	defer rows.Close()
	var lost [][]byte
	for rows.Next() {
		var folder []byte
		if err := rows.Scan(&folder); err != nil {
			return err
		}
		if path := string(folder); !s.visited[path] && isIn(path, beneath) && (!shallow || path == beneath) {
			lost = append(lost, folder)
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, folder := range lost {
		s.lost = true
		if _, err := s.write.ExecContext(s.ctx, "delete from assets where drive = ? and folder = ?", s.drive, folder); err != nil {
			return err
		}
	}
	return nil
}

// foldersIn is where among all folders by name a folder and all beneath it are; others may be there too, see isIn.
func foldersIn(folder string) (from, to []byte) {
	if folder == "" {
		return []byte{}, bytes.Repeat([]byte{0xff}, blobstore.MaxNameLen+1) // after every path: the first name in it is shorter
	}
	return []byte(folder), []byte(folder + "0") // '0' comes after '/'
}

// isIn says whether a folder is another or beneath it.
func isIn(path, folder string) bool {
	return folder == "" || path == folder || strings.HasPrefix(path, folder+"/")
}

// store stores what has changed.
func (s *scan) store() error {
	if len(s.put)+len(s.gone) == 0 {
		return nil
	}
	tx, err := s.write.BeginTx(s.ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	remove, err := tx.PrepareContext(s.ctx, "delete from assets where drive = ? and folder = ? and name = ? and ino = ? and born_ns = ?")
	if err != nil {
		return err
	}
	defer remove.Close()
	for _, r := range s.gone {
		if _, err := remove.ExecContext(s.ctx, s.drive, []byte(r.folder), []byte(r.name), r.ino, r.born); err != nil {
			return err
		}
	}
	put, err := tx.PrepareContext(s.ctx, "insert or replace into assets (drive, folder, name, ino, born_ns, size, mtime_ns, ctime_ns, nlink, job) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		return err
	}
	defer put.Close()
	for _, r := range s.put {
		_, err := put.ExecContext(s.ctx, s.drive, []byte(r.folder), []byte(r.name), r.ino, r.born, r.size, r.mtime, r.ctime, r.nlinks, r.job)
		if err != nil {
			return err
		}
	}
	s.put, s.gone = s.put[:0], s.gone[:0]
	return tx.Commit()
}

// forgetDrives takes away what is known of drives that are not there any more.
func (c *catalog) forgetDrives(ctx context.Context, there []blobstore.DriveName) error {
	return c.use(ctx, func(write, read *sql.DB) error {
		rows, err := read.QueryContext(ctx, "select distinct drive from assets union select distinct drive from facts")
		if err != nil {
			return err
		}
		defer rows.Close()
		var lost []string
		for rows.Next() {
			var drive string
			if err := rows.Scan(&drive); err != nil {
				return err
			}
			if _, ok := slices.BinarySearch(there, blobstore.DriveName(drive)); !ok {
				lost = append(lost, drive)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		for _, drive := range lost {
			for _, table := range []string{"assets", "facts"} {
				if _, err := write.ExecContext(ctx, "delete from "+table+" where drive = ?", drive); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
