package dirstore

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// A scan brings what the catalogue knows of the folders of a drive up to what is there. A folder whose times are those it had when it was read last has the
// same names in it, so it costs a look at itself alone. One that has changed, or is due, is read, and all its files are looked at: so a file that took the name
// and the number of another is found. What drives have changed in place they say (changes), and a few folders have their turn in any case. What
// can't be looked at is passed over, as if it was not there.
//
// Several programs scan at once. What a program found in a folder is stored only if no other has stored anything of it since it asked what was known.
type scan struct {
	ctx         context.Context
	catalog     *catalog
	drive       string
	top         unix.Statx_t // of the drive's folder
	write, read *sql.DB
	known       *sql.Stmt             // the rows of a folder, by name
	folders     map[string]*folderRow // of the part of the drive that is looked at
	below       map[string][]string   // the names of the folders in a folder
	all         bool                  // all folders are read
	small       bool                  // all folders have their turn
	readings    []*reading            // to be stored
	changes     int                   // in them
	reads, seen int                   // how many folders were read, and files looked at
	again       bool                  // another program has stored a folder meanwhile
	lost        []identity            // that have lost a name, maybe the last
}

// terms say how long what was seen is gone by.
type terms struct {
	// quiet is how long ago something must have been changed to be believed unchanged as long as its times are the same: a change in the same tick of the
	// file system's clock is not seen. The longest tick is that of FAT, 2 s.
	quiet time.Duration
	// old is how long ago a file must have been changed for its folder not to be due for it: it may be in the making.
	old time.Duration
	// whole is for how long a folder is not due.
	whole time.Duration
	// turn is how many files are looked at in the folders whose turn it is.
	turn int
}

var usualTerms = terms{quiet: 2 * time.Second, old: 10 * time.Minute, whole: 24 * time.Hour, turn: 2000}

// due is when the folder of a file that was changed at ctime and is looked at now is to be read again: once it was left alone for as long again. 0 is at once.
func (t terms) due(ctime int64, now time.Time) int64 {
	switch age := now.Sub(time.Unix(0, ctime)); {
	case age < t.quiet: // or it comes from a clock that goes ahead
		return 0
	case age < t.old:
		return now.Add(age).UnixNano()
	}
	return now.Add(t.whole).UnixNano()
}

// row is one of the table assets, without its drive.
type row struct {
	folder, name                          string
	ino, born, size, mtime, ctime, nlinks int64
	job                                   string
}

func (r *row) identity() identity { return identity{uint64(r.ino), r.born} }

// folderRow is one of the table folders.
type folderRow struct {
	path                                                  string
	ino, born, mtime, ctime, looked, due, files, revision int64
	visited, turn                                         bool
}

// isAs says whether a folder is the same, and has the same times.
func (f *folderRow) isAs(is *folderRow) bool {
	return f.ino == is.ino && f.born == is.born && f.mtime == is.mtime && f.ctime == is.ctime
}

// reading is what was found in a folder.
type reading struct {
	folder    *folderRow
	now       folderRow
	put, gone []row
	folders   []string // that are in it
}

// scanBatch is how many changes are stored in one transaction.
const scanBatch = 10000

// scan looks at a folder of a drive, and at those in it unless shallow. It returns what the drive's own folder is; ErrNotExist if there is no such drive.
func (c *catalog) scan(ctx context.Context, drive, folder string, shallow bool) (top unix.Statx_t, err error) {
	blind, err := c.follow(ctx, drive)
	if err != nil {
		return top, err
	}
	err = c.use(ctx, func(write, read *sql.DB) error {
		s := &scan{ctx: ctx, catalog: c, drive: drive, write: write, read: read, all: blind || c.isAside()}
		err := s.run(folder, shallow)
		top = s.top
		return err
	})
	return top, err
}

// compare looks at files of a drive that are known, which are to be shown.
func (c *catalog) compare(ctx context.Context, drive string, rows []row) (here []*row, err error) {
	err = c.use(ctx, func(write, read *sql.DB) error {
		s := &scan{ctx: ctx, catalog: c, drive: drive, write: write, read: read}
		fd, err := c.store.openFolder(drive)
		if err != nil {
			here = make([]*row, len(rows)) // it has just gone
			return unlessGone(err)
		}
		defer unix.Close(fd)
		if err := statx(fd, "", &s.top); err != nil {
			return err
		}
		here, err = s.compare(fd, rows)
		return err
	})
	return here, err
}

func (s *scan) run(folder string, shallow bool) error {
	began := time.Now()
	fd, err := s.catalog.store.openFolder(s.drive)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := statx(fd, "", &s.top); err != nil {
		return err
	}
	s.known, err = s.read.PrepareContext(s.ctx, `select name, ino, born_ns, size, mtime_ns, ctime_ns, nlink from assets
		where drive = ? and folder = ? order by name`)
	if err != nil {
		return err
	}
	defer s.known.Close()
	for s.again = true; s.again; { // whenever another program was faster, it has got on
		s.again = false
		if err := s.walk(fd, folder, shallow); err != nil {
			return err
		}
	}
	if err := s.lookAtChanged(fd, folder, shallow); err != nil {
		return err
	}
	if err := s.forgetFacts(); err != nil {
		return err
	}
	s.catalog.store.log.Debug("looked at a drive", "drive", s.drive, "folders", len(s.folders), "read", s.reads, "files", s.seen, "took", time.Since(began))
	return nil
}

// walk goes through the folders.
func (s *scan) walk(fd int, folder string, shallow bool) error {
	if err := s.load(folder); err != nil {
		return err
	}
	s.takeTurns(folder, shallow)
	place, err := descendTo(fd, folder)
	switch {
	case err == nil:
		err = s.folder(place, folder, shallow)
		_ = unix.Close(place)
	case errors.Is(gone(err), blobstore.ErrStale), errors.Is(err, unix.EACCES): // there is no such folder
		err = nil
	}
	if err == nil {
		err = s.store()
	}
	if err != nil {
		return err
	}
	return s.forgetFolders(folder, shallow)
}

// forgetFolders takes away what is known of folders that were not met. One that may be there, and only can't be opened, stays one that is to be read.
func (s *scan) forgetFolders(folder string, shallow bool) error {
	var lost []string
	for path, f := range s.folders {
		if !f.visited && (!shallow || path == folder) {
			lost = append(lost, path)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	return s.inTransaction(func(tx *sql.Tx) error {
		for _, path := range lost {
			parent, _ := split(path)
			above := s.folders[parent]
			keep := path == folder || above != nil && above.visited
			if keep && s.folders[path].revision == 0 {
				continue
			}
			if err := s.forgetFolder(tx, path, keep); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *scan) inTransaction(do func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(s.ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// load asks what is known of the folders.
func (s *scan) load(folder string) error {
	s.folders, s.below = make(map[string]*folderRow), make(map[string][]string)
	from, to := foldersIn(folder)
	rows, err := s.read.QueryContext(s.ctx, `select path, ino, born_ns, mtime_ns, ctime_ns, looked_ns, due_ns, files, revision from folders
		where drive = ? and path >= ? and path < ? order by path`, s.drive, from, to)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		f := new(folderRow)
		if err := rows.Scan((*text)(&f.path), &f.ino, &f.born, &f.mtime, &f.ctime, &f.looked, &f.due, &f.files, &f.revision); err != nil {
			return err
		}
		if !isIn(f.path, folder) {
			continue
		}
		s.folders[f.path] = f
		if f.path != folder {
			parent, name := split(f.path)
			s.below[parent] = append(s.below[parent], name)
		}
	}
	return rows.Err()
}

// takeTurns chooses the folders that are read whatever their times are, of those that have files: the ones that were read longest ago, as far as terms.turn goes. So
// of a small drive all files are looked at by each search, and of a large one by many.
func (s *scan) takeTurns(folder string, shallow bool) {
	var all []*folderRow
	for _, f := range s.folders {
		if f.files > 0 && (!shallow || f.path == folder) {
			all = append(all, f)
		}
	}
	slices.SortFunc(all, func(a, b *folderRow) int { return cmp.Compare(a.looked, b.looked) })
	left := int64(s.catalog.terms.turn)
	s.small = true
	for _, f := range all {
		if f.turn = f.files <= left; !f.turn {
			s.small = false
			continue
		}
		left -= f.files
	}
}

// split is the other way of join.
func split(path string) (folder, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

// folder compares a folder, given by a descriptor of its place, with what is known of it.
func (s *scan) folder(place int, path string, shallow bool) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	f := s.folders[path]
	if f == nil {
		f = &folderRow{path: path}
		s.folders[path] = f
	}
	f.visited = true
	now := time.Now()
	var st unix.Statx_t
	if err := statx(place, "", &st); err != nil {
		return err
	}
	id := identityOf(&st)
	is := folderRow{path: path, ino: int64(id.number), born: id.birth, mtime: nanoseconds(st.Mtime), ctime: nanoseconds(st.Ctime), looked: now.UnixNano()}
	is.due = now.Add(s.catalog.terms.whole).UnixNano()
	if now.Sub(time.Unix(0, is.ctime)) < s.catalog.terms.quiet {
		is.due = 0
	}
	subs := s.below[path]
	if s.all || f.revision == 0 || f.turn || f.due <= is.looked || is.looked < f.looked || !f.isAs(&is) {
		r, err := s.readFolder(place, f, is)
		if err != nil {
			return err
		}
		same := f.revision != 0 && f.isAs(&is) && len(r.put)+len(r.gone) == 0
		if !same || (f.due != 0 || r.now.due != 0) && (!s.small || f.due <= is.looked) {
			s.readings, s.changes = append(s.readings, r), s.changes+1+len(r.put)+len(r.gone)
		}
		subs = r.folders
		if s.changes >= scanBatch {
			if err := s.store(); err != nil {
				return err
			}
		}
	}
	if shallow {
		return nil
	}
	for _, name := range subs {
		next, err := openPath(place, name, unix.O_DIRECTORY, beneath)
		if err != nil {
			continue // what is known of it is taken away; once it can be opened it is read
		}
		err = s.folder(next, join(path, name), false)
		_ = unix.Close(next)
		if err != nil {
			return err
		}
	}
	return nil
}

// readFolder compares what is in a folder with what is known of it.
func (s *scan) readFolder(place int, f *folderRow, is folderRow) (*reading, error) {
	s.reads++
	r := &reading{folder: f, now: is}
	names, err := namesIn(place)
	if err != nil && !isDenied(err) && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	if err != nil {
		r.now.due = 0
	}
	known, err := s.known.QueryContext(s.ctx, s.drive, []byte(f.path))
	if err != nil {
		return nil, err
	}
	defer known.Close()
	old, err := nextKnown(known)
	now := time.Now()
	for i, name := range names {
		if err != nil {
			return nil, err
		}
		if i%1000 == 999 {
			if s.ctx.Err() != nil {
				return nil, context.Cause(s.ctx)
			}
			now = time.Now()
		}
		s.seen++
		var st unix.Statx_t
		if statx(place, name, &st) != nil {
			continue
		}
		kind := st.Mode & unix.S_IFMT
		if kind == unix.S_IFDIR {
			r.folders = append(r.folders, name) // also one that something is mounted over: that may go
			continue
		}
		if kind != unix.S_IFREG || !s.isHere(&st) {
			continue
		}
		for old != nil && old.name < name && err == nil {
			r.forget(old)
			old, err = nextKnown(known)
		}
		is := rowOf(f.path, name, &st)
		r.now.files++
		r.now.due = min(r.now.due, s.catalog.terms.due(is.ctime, now))
		if err == nil && old != nil && old.name == name {
			before := *old
			old, err = nextKnown(known)
			if before.folder = f.path; before == is {
				continue
			}
		}
		is.job = jobAt(place, name)
		r.put = append(r.put, is)
	}
	for old != nil && err == nil {
		r.forget(old)
		old, err = nextKnown(known)
	}
	return r, err
}

// forget notes that a name is not there any more.
func (r *reading) forget(old *row) {
	old.folder = r.folder.path
	r.gone = append(r.gone, *old)
}

// isHere says whether something is on the drive's file system and mount.
func (s *scan) isHere(st *unix.Statx_t) bool { return onSameMount(st, &s.top) }

// onSameMount says whether two files are on one file system and mount.
func onSameMount(a, b *unix.Statx_t) bool {
	return a.Dev_major == b.Dev_major && a.Dev_minor == b.Dev_minor && a.Mnt_id == b.Mnt_id
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

// jobAt is the job of a file in a folder; "" if it has none or can't be asked.
func jobAt(folder int, name string) string {
	path := "/proc/self/fd/" + strconv.Itoa(folder) + "/" + name
	job, err := readSized(func(buf []byte) (int, error) { return unix.Lgetxattr(path, blobstore.XattrJob, buf) })
	if err != nil || blobstore.CheckJob(string(job)) != nil {
		return ""
	}
	return string(job)
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

// strayAfter is how long after its change a file is waited for that nothing is known of. A first look that is under way has it soon.
const strayAfter = time.Hour

// lookAtChanged looks at the files that drives have changed in place.
func (s *scan) lookAtChanged(fd int, folder string, shallow bool) error {
	rows, err := s.read.QueryContext(s.ctx, `select c.ino, c.born_ns, c.until_ns, a.folder, a.name, a.size, a.mtime_ns, a.ctime_ns, a.nlink, a.job
		from changed c left join assets a on a.drive = c.drive and a.ino = c.ino and a.born_ns = c.born_ns where c.drive = ? order by a.folder, a.name`, s.drive)
	if err != nil {
		return err
	}
	defer rows.Close()
	now := time.Now()
	var look []row
	type mark struct{ ino, born, until int64 }
	done := make(map[mark]bool)
	for rows.Next() {
		var m mark
		var path, name, job sql.NullString
		var size, mtime, ctime, nlinks sql.NullInt64
		if err := rows.Scan(&m.ino, &m.born, &m.until, &path, &name, &size, &mtime, &ctime, &nlinks, &job); err != nil {
			return err
		}
		switch {
		case !path.Valid:
			if now.Sub(time.Unix(0, m.until)) > strayAfter {
				done[m] = true
			}
			continue
		case !isIn(path.String, folder) || shallow && path.String != folder:
			continue
		case now.UnixNano() > m.until:
			done[m] = true
		}
		look = append(look, row{path.String, name.String, m.ino, m.born, size.Int64, mtime.Int64, ctime.Int64, nlinks.Int64, job.String})
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	if _, err := s.compare(fd, look); err != nil || len(done) == 0 {
		return err
	}
	return s.inTransaction(func(tx *sql.Tx) error {
		for m := range done {
			_, err := tx.ExecContext(s.ctx, "delete from changed where drive = ? and ino = ? and born_ns = ? and until_ns = ?", s.drive, m.ino, m.born, m.until)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// compare looks at files that are known and stores what has changed. It returns what they are now, in their order; nil is one that is not there any more: the next
// scan reads its folder.
func (s *scan) compare(fd int, rows []row) ([]*row, error) {
	here := make([]*row, len(rows))
	var put []*row
	gone := make(map[string]bool)
	place, at := -1, "/" // which no folder is called
	defer func() { _ = unix.Close(place) }()
	for i := range rows {
		before := &rows[i]
		if before.folder != at {
			_ = unix.Close(place)
			var err error
			if place, err = descendTo(fd, before.folder); err != nil {
				place = -1
			}
			at = before.folder
		}
		s.seen++
		var st unix.Statx_t
		if place < 0 || statx(place, before.name, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || !s.isHere(&st) || identityOf(&st) != before.identity() {
			gone[before.folder] = true
			continue
		}
		is := rowOf(before.folder, before.name, &st)
		is.job = before.job
		if is != *before {
			is.job = jobAt(place, before.name)
			put = append(put, &is)
		}
		here[i] = &is
	}
	if len(put)+len(gone) == 0 {
		return here, nil
	}
	return here, s.inTransaction(func(tx *sql.Tx) error {
		p, err := newPutter(s.ctx, tx, s.drive)
		if err != nil {
			return err
		}
		defer p.close()
		for _, r := range put {
			if err := p.file(r); err != nil {
				return err
			}
		}
		for folder := range gone {
			if _, err := tx.ExecContext(s.ctx, "update folders set due_ns = 0 where drive = ? and path = ?", s.drive, []byte(folder)); err != nil {
				return err
			}
		}
		return nil
	})
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
