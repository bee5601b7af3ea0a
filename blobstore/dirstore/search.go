package dirstore

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
)

var _ blobstore.Assets = (*Store)(nil)

// position is where a page of assets ended.
type position struct {
	Drive        string
	Folder, Name []byte
	Born         int64
}

// pageSize is how many assets a page has that does not say.
const pageSize = 1000

// FindAssets looks at what is there when it gives the first page (see scan), and answers that and the pages that follow from the catalogue. Of what nobody has
// described yet it finds out the types, if it is asked for some, or else describes those on the page, as far as describeBytes go.
func (s *Store) FindAssets(ctx context.Context, session auth.Session, query blobstore.AssetQuery) (blobstore.AssetPage, error) {
	page, err := s.findAssets(ctx, session, query)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // rather than what the database makes of it
	}
	if err != nil {
		return blobstore.AssetPage{}, fmt.Errorf("dirstore: find assets: %w", sentinel(err))
	}
	return page, nil
}

func (s *Store) findAssets(ctx context.Context, session auth.Session, query blobstore.AssetQuery) (page blobstore.AssetPage, err error) {
	if err := checkSession(ctx, session); err != nil {
		return page, err
	}
	if _, err := path.Match(query.Name, ""); err != nil {
		return page, fmt.Errorf("%q is no pattern: %w", query.Name, blobstore.ErrInvalid)
	}
	var after position
	if query.After != "" {
		cursor, err := base64.RawURLEncoding.DecodeString(query.After)
		if err == nil {
			err = json.Unmarshal(cursor, &after)
		}
		if err != nil {
			return page, fmt.Errorf("%q is no cursor: %w", query.After, blobstore.ErrInvalid)
		}
	}
	if query.Limit <= 0 {
		query.Limit = pageSize
	}
	query.Folder = strings.Trim(query.Folder, "/")
	drives, err := s.drivesFor(ctx, session, query.Drives, query.After == "")
	if err != nil {
		return page, err
	}
	f := &finding{store: s, query: query, after: after, begun: query.After != "", tops: make(map[string]unix.Statx_t)}
	for _, drive := range drives {
		if query.Order == blobstore.ByPath && string(drive) < after.Drive {
			continue
		}
		if err := f.look(ctx, string(drive)); err != nil {
			return page, err
		}
		if query.Order == blobstore.ByPath {
			if more, err := f.take(ctx, []blobstore.DriveName{drive}); err != nil || more {
				return f.page, err
			}
		}
	}
	if query.Order == blobstore.ByCreation {
		_, err = f.take(ctx, drives)
	}
	return f.page, err
}

// drivesFor are the drives that a session may see, of those that are asked for, by name.
func (s *Store) drivesFor(ctx context.Context, session auth.Session, wanted []blobstore.DriveName, tidy bool) ([]blobstore.DriveName, error) {
	var drives []blobstore.DriveName
	switch session.Role {
	case auth.RoleAdmin:
		all, err := s.folderNames()
		if err != nil {
			return nil, err
		}
		if drives = all; tidy && wanted == nil {
			if err := s.catalog.forgetDrives(ctx, all); err != nil {
				return nil, err
			}
		}
	case auth.RoleGuest:
		drives = []blobstore.DriveName{blobstore.PublicDrive}
	default:
		drives = []blobstore.DriveName{blobstore.DriveName(session.User)}
	}
	if wanted != nil {
		drives = slices.DeleteFunc(drives, func(drive blobstore.DriveName) bool { return !slices.Contains(wanted, drive) })
	}
	return drives, nil
}

// finding is a page in the making.
type finding struct {
	store *Store
	query blobstore.AssetQuery
	after position
	begun bool                    // after is where the page before, or what there is of this one, has ended
	tops  map[string]unix.Statx_t // the folders of the drives that were looked at
	page  blobstore.AssetPage
	bytes int64 // read to describe what is on the page
}

// look sees to it that the catalogue knows of a drive what is needed for the query, when the first page of the drive is asked for.
func (f *finding) look(ctx context.Context, drive string) error {
	if f.query.After != "" && (f.query.Order == blobstore.ByCreation || drive == f.after.Drive) {
		top, err := f.store.topOf(drive)
		if err == nil {
			f.tops[drive] = top
		}
		return unlessGone(err)
	}
	top, err := f.store.catalog.scan(ctx, drive, f.query.Folder, f.query.Shallow)
	if err != nil {
		return unlessGone(err)
	}
	f.tops[drive] = top
	if f.query.Types == nil {
		return nil
	}
	return f.store.lookAtTypes(ctx, drive, f.query)
}

// topOf is what the folder of a drive is.
func (s *Store) topOf(drive string) (top unix.Statx_t, err error) {
	fd, err := s.openFolder(drive)
	if err != nil {
		return top, err
	}
	defer unix.Close(fd)
	return top, statx(fd, "", &top)
}

// unlessGone is an error, unless it says that there is no such drive: nobody has opened it yet, or somebody has taken it away.
func unlessGone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	return err
}

// assetColumns are those of the table assets, a, and, where they are of the content as it is, of facts, f.
const assetColumns = `a.drive, a.folder, a.name, a.ino, a.born_ns, a.size, a.mtime_ns, a.ctime_ns, a.nlink, a.job, f.type, f.sha256, f.width, f.height, f.taken_ns
	from assets a %s left join facts f on f.drive = a.drive and f.ino = a.ino and f.born_ns = a.born_ns and f.size = a.size and f.mtime_ns = a.mtime_ns`

// take fills the page with what is known of drives, and says whether there is more than fits. What is not there any more makes room for what follows.
func (f *finding) take(ctx context.Context, drives []blobstore.DriveName) (more bool, err error) {
	drives = slices.DeleteFunc(slices.Clone(drives), func(drive blobstore.DriveName) bool { _, ok := f.tops[string(drive)]; return !ok })
	if len(drives) == 0 {
		return false, nil
	}
	var described []found
	for more = true; more && len(f.page.Assets) < f.query.Limit; {
		var assets []listed
		if assets, more, err = f.read(ctx, drives); err != nil {
			return false, err
		}
		if len(assets) > 0 {
			f.after, f.begun = assets[len(assets)-1].position(), true
		}
		if assets, err = f.verify(ctx, assets); err != nil {
			return false, err
		}
		if err := f.count(ctx, assets); err != nil {
			return false, err
		}
		for i := range assets {
			facts, err := f.complete(ctx, &assets[i])
			if err != nil {
				return false, err
			}
			if facts != nil {
				described = append(described, *facts)
			}
			if !assets[i].other || f.fitsFacts(&assets[i]) {
				f.page.Assets = append(f.page.Assets, assets[i].Asset)
			}
		}
	}
	if more {
		f.page.Next = f.cursor(f.after)
	}
	return more, f.store.catalog.put(ctx, described)
}

// read is what is known of drives and fits in the rest of the page, and whether there is more.
func (f *finding) read(ctx context.Context, drives []blobstore.DriveName) (assets []listed, more bool, err error) {
	err = f.store.catalog.use(ctx, func(_, read *sql.DB) error {
		assets, more = nil, false
		by, err := f.narrowest(ctx, read, drives)
		if err != nil {
			return err
		}
		text, args := f.sql(drives, by)
		rows, err := read.QueryContext(ctx, text, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			a, err := scanAsset(rows)
			if err != nil {
				return err
			}
			if ok, err := f.fits(ctx, read, &a); err != nil {
				return err
			} else if !ok {
				continue
			}
			if more = len(f.page.Assets)+len(assets) == f.query.Limit; more {
				return nil
			}
			assets = append(assets, a)
		}
		return rows.Err()
	})
	return assets, more, err
}

func (f *finding) cursor(at position) string {
	text, err := json.Marshal(at)
	if err != nil {
		panic(err) // it is bytes and numbers
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// verify looks at what is to be shown, and leaves out what is not there any more. What has changed since it was looked at is as it is now.
func (f *finding) verify(ctx context.Context, assets []listed) (there []listed, err error) {
	for len(assets) > 0 { // of one drive at once
		drive, n := assets[0].id.drive, 1
		for n < len(assets) && assets[n].id.drive == drive {
			n++
		}
		rows := make([]row, n)
		for i := range rows {
			a := &assets[i]
			rows[i] = row{
				folder: a.folder, name: a.name, ino: int64(a.id.number), born: a.id.birth, size: a.Size, mtime: a.mtimeNs, ctime: a.ctimeNs, nlinks: a.links,
				job: a.Job,
			}
		}
		here, err := f.store.catalog.compare(ctx, drive, rows)
		if err != nil {
			return nil, err
		}
		for i, is := range here {
			if is == nil {
				continue
			}
			a := assets[i]
			if a.Job != is.job {
				a.Job, a.other = is.job, true
			}
			if a.Size != is.size || a.mtimeNs != is.mtime {
				a.other = true
				a.Size, a.mtimeNs, a.Changed, a.known, a.Described = is.size, is.mtime, time.Unix(0, is.mtime), false, false
				a.Type, a.SHA256, a.Width, a.Height, a.Taken = "", nil, 0, 0, time.Time{}
			}
			there = append(there, a)
		}
		assets = assets[n:]
	}
	return there, nil
}

// fitsFacts says whether an asset still is what is asked for, after it was looked at.
func (f *finding) fitsFacts(a *listed) bool {
	q := &f.query
	if q.Job != "" && a.Job != q.Job || a.Size < q.MinSize || q.MaxSize != 0 && a.Size > q.MaxSize {
		return false
	}
	return q.Types == nil || slices.ContainsFunc(q.Types, func(t string) bool {
		kind, all := strings.CutSuffix(t, "*")
		return a.Type == t || all && strings.HasPrefix(a.Type, kind)
	})
}

// candidates is how many rows are sorted at most rather than read in their order.
const candidates = 5000

// An access is an index by which assets are looked up, and the condition that it answers.
type access struct {
	index, condition string
	args             []any
}

// narrowest is an index by which few assets are left, which then are sorted; that of no name if there is none: then they are read in their order, and reading ends with the page.
func (f *finding) narrowest(ctx context.Context, read *sql.DB, drives []blobstore.DriveName) (best access, err error) {
	q := &f.query
	if len(drives) != 1 {
		return best, nil
	}
	drive := string(drives[0])
	born, times := "", []any(nil)
	if !q.Since.IsZero() {
		born, times = born+" and born_ns >= ?", append(times, q.Since.UnixNano())
	}
	if !q.Until.IsZero() {
		born, times = born+" and born_ns < ?", append(times, q.Until.UnixNano())
	}
	var all []access
	if len(q.Types) == 1 {
		kind, isKind := strings.CutSuffix(q.Types[0], "*")
		if !isKind {
			all = append(all, access{"assets_by_type", "drive = ? and type = ?" + born, append([]any{drive, q.Types[0]}, times...)})
		} else {
			all = append(all, access{"assets_by_type", "drive = ? and type >= ? and type < ?" + born, append([]any{drive, kind, kind + "\xff"}, times...)})
		}
	}
	if q.Job != "" {
		all = append(all, access{"assets_by_job", "drive = ? and job = ? and job <> ''" + born, append([]any{drive, q.Job}, times...)})
	}
	if born != "" {
		all = append(all, access{"assets_by_birth", "drive = ?" + born, append([]any{drive}, times...)})
	}
	least := candidates + 1
	for _, a := range all {
		var n int
		err := read.QueryRowContext(ctx, fmt.Sprintf("select count(*) from (select 1 from assets indexed by %s where %s limit %d)", a.index, a.condition, least), a.args...).Scan(&n)
		if err != nil {
			return best, err
		}
		if n < least {
			best, least = a, n
		}
	}
	if best.index == "" && q.Order == blobstore.ByCreation {
		best.index = "assets_by_birth"
		switch {
		case q.Job != "":
			best.index = "assets_by_job"
		case len(q.Types) == 1 && !strings.HasSuffix(q.Types[0], "*"):
			best.index = "assets_by_type"
		}
	}
	return best, nil
}

// sql is the query of what of the drives comes after the position, without what SQL can't say (fits), by an index if one is given.
func (f *finding) sql(drives []blobstore.DriveName, by access) (text string, args []any) {
	var b strings.Builder
	and := func(condition string, values ...any) {
		b.WriteString(" and " + condition)
		args = append(args, values...)
	}
	q := &f.query
	index := ""
	if by.index != "" {
		index = "indexed by " + by.index
	}
	columns := fmt.Sprintf(assetColumns, index)
	if len(drives) == 1 {
		b.WriteString("select " + columns + " where a.drive = ?")
		args = append(args, string(drives[0]))
	} else {
		names, err := json.Marshal(drives)
		if err != nil {
			panic(err) // they are strings
		}
		b.WriteString("select " + columns + " where a.drive in (select value from json_each(?))")
		args = append(args, string(names))
	}
	switch from, to := foldersIn(q.Folder); {
	case q.Shallow:
		and("a.folder = ?", []byte(q.Folder))
	case q.Folder != "":
		and("a.folder >= ? and a.folder < ?", from, to)
	}
	if q.Types != nil {
		conditions, values := []string{"false"}, []any(nil)
		for _, t := range q.Types {
			if kind, ok := strings.CutSuffix(t, "*"); ok {
				conditions, values = append(conditions, "a.type >= ? and a.type < ?"), append(values, kind, kind+"\xff")
			} else {
				conditions, values = append(conditions, "a.type = ?"), append(values, t)
			}
		}
		and("("+strings.Join(conditions, " or ")+")", values...)
	}
	if q.Job != "" {
		and("a.job = ? and a.job <> ''", q.Job)
	}
	if !q.Since.IsZero() {
		and("a.born_ns >= ?", q.Since.UnixNano())
	}
	if !q.Until.IsZero() {
		and("a.born_ns < ?", q.Until.UnixNano())
	}
	if q.MinSize > 0 {
		and("a.size >= ?", q.MinSize)
	}
	if q.MaxSize != 0 {
		and("a.size <= ?", q.MaxSize)
	}
	after := f.after
	switch {
	case q.Order == blobstore.ByCreation:
		if f.begun {
			and("(-a.born_ns, a.drive, a.folder, a.name) > (?, ?, ?, ?)", -after.Born, after.Drive, after.Folder, after.Name)
			and("a.born_ns <= ?", after.Born)
		}
		b.WriteString(" order by a.born_ns desc, a.drive, a.folder, a.name")
	default:
		if after.Drive == string(drives[0]) {
			and("(a.folder, a.name) > (?, ?)", after.Folder, after.Name)
		}
		b.WriteString(" order by a.folder, a.name")
	}
	return b.String(), args
}

// listed is an asset as the catalogue has it.
type listed struct {
	blobstore.Asset
	folder, name string
	id           fileID
	mtimeNs      int64
	ctimeNs      int64
	links        int64
	known        bool // of its content more than nothing is known
	other        bool // it is not as the catalogue has it
}

func (a *listed) position() position {
	return position{Drive: string(a.Drive), Folder: []byte(a.folder), Name: []byte(a.name), Born: a.id.birth}
}

func scanAsset(rows *sql.Rows) (a listed, err error) {
	var ino int64
	var mime sql.NullString
	var width, height, taken sql.NullInt64
	err = rows.Scan(&a.id.drive, (*text)(&a.folder), (*text)(&a.name), &ino, &a.id.birth, &a.Size, &a.mtimeNs, &a.ctimeNs, &a.links, &a.Job,
		&mime, &a.SHA256, &width, &height, &taken)
	a.id.number = uint64(ino)
	a.Drive, a.Path, a.ID = blobstore.DriveName(a.id.drive), join(a.folder, a.name), assetID(a.id)
	a.Changed, a.Created = time.Unix(0, a.mtimeNs), time.Unix(0, a.id.birth)
	a.known, a.Described = mime.Valid, a.SHA256 != nil
	a.Type, a.Width, a.Height, a.Taken = mime.String, int(width.Int64), int(height.Int64), timeOf(taken)
	return a, err
}

// text is bytes of a database that become a string.
type text string

// Scan implements sql.Scanner.
func (t *text) Scan(value any) error {
	b, ok := value.([]byte)
	if !ok {
		return fmt.Errorf("got %T for a name", value)
	}
	*t = text(b)
	return nil
}

// fits says whether an asset is one that the query asks for, and this the first of its names that does.
func (f *finding) fits(ctx context.Context, read *sql.DB, a *listed) (bool, error) {
	if !f.fitsName(a.folder, a.name) {
		return false, nil
	}
	if a.links < 2 {
		return true, nil
	}
	rows, err := read.QueryContext(ctx, `select folder, name, size, mtime_ns, ctime_ns, nlink, job from assets
		where drive = ? and ino = ? and born_ns = ? and (folder, name) < (?, ?)`, a.id.drive, int64(a.id.number), a.id.birth, []byte(a.folder), []byte(a.name))
	if err != nil {
		return false, err
	}
	defer rows.Close()
	var others []row
	for rows.Next() {
		r := row{ino: int64(a.id.number), born: a.id.birth}
		if err := rows.Scan((*text)(&r.folder), (*text)(&r.name), &r.size, &r.mtime, &r.ctime, &r.nlinks, &r.job); err != nil {
			return false, err
		}
		if f.fitsName(r.folder, r.name) {
			others = append(others, r)
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(others) == 0 {
		return true, err
	}
	here, err := f.store.catalog.compare(ctx, a.id.drive, others) // one may have gone since
	return !slices.ContainsFunc(here, func(r *row) bool { return r != nil }), err
}

func (f *finding) fitsName(folder, name string) bool {
	if f.query.Shallow && folder != f.query.Folder || !isIn(folder, f.query.Folder) {
		return false
	}
	if f.query.Name == "" {
		return true
	}
	ok, err := path.Match(strings.ToLower(f.query.Name), strings.ToLower(name))
	return ok && err == nil
}

// count gives assets their numbers, and adds how often they were opened. Where the store's index can't be used, which that has said, they count nothing.
func (f *finding) count(ctx context.Context, assets []listed) error {
	for i := range assets {
		assets[i].Ino = inoOf(assets[i].id.number, f.tops[assets[i].id.drive].Ino)
	}
	err := f.store.index.use(ctx, func(db *sql.DB) error {
		count, err := db.PrepareContext(ctx, "select count, at_ns from accesses where drive = ? and ino = ? and generation = ?")
		if err != nil {
			return err
		}
		defer count.Close()
		for i := range assets {
			a := &assets[i]
			var at int64
			err := count.QueryRowContext(ctx, a.id.drive, int64(a.Ino), a.id.birth).Scan(&a.AccessCount, &at)
			if errors.Is(err, sql.ErrNoRows) {
				continue
			}
			if err != nil {
				return err
			}
			a.LastAccessed = time.Unix(0, at)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// complete describes an asset of the page if nobody has, within bounds: that is returned, to be kept.
func (f *finding) complete(ctx context.Context, a *listed) (*found, error) {
	if f.store.catalog.isWaiting(a.id) { // what is known may be of what it was
		a.Described, a.Type, a.SHA256, a.Width, a.Height, a.Taken = false, "", nil, 0, 0, time.Time{}
		return nil, nil
	}
	whole := f.bytes+a.Size <= describeBytes
	if a.Described || a.known && !whole {
		return nil, nil
	}
	facts, err := f.store.describeAt(ctx, a, whole)
	if err != nil || facts == nil {
		return nil, err
	}
	if whole {
		f.bytes += a.Size
	}
	a.Described, a.Type, a.SHA256 = facts.SHA256 != nil, facts.Type, facts.SHA256
	a.Width, a.Height, a.Taken = facts.Width, facts.Height, facts.Taken
	return &found{a.id, a.Size, a.mtimeNs, *facts}, nil
}

// inoOf is Drive.ino for a drive whose folder has the number top.
func inoOf(number, top uint64) blobstore.Ino {
	switch number {
	case top:
		return blobstore.RootIno
	case uint64(blobstore.RootIno):
		return blobstore.Ino(top)
	}
	return blobstore.Ino(number)
}

// folderPosition is where a page of folders ended.
type folderPosition struct {
	Drive string
	Name  []byte
}

// FindFolders looks at the folder itself, not at the catalogue.
func (s *Store) FindFolders(ctx context.Context, session auth.Session, query blobstore.FolderQuery) (blobstore.FolderPage, error) {
	page, err := s.findFolders(ctx, session, query)
	if err != nil {
		return blobstore.FolderPage{}, fmt.Errorf("dirstore: find folders: %w", sentinel(err))
	}
	return page, nil
}

func (s *Store) findFolders(ctx context.Context, session auth.Session, query blobstore.FolderQuery) (page blobstore.FolderPage, err error) {
	if err := checkSession(ctx, session); err != nil {
		return page, err
	}
	var after folderPosition
	if query.After != "" {
		cursor, err := base64.RawURLEncoding.DecodeString(query.After)
		if err == nil {
			err = json.Unmarshal(cursor, &after)
		}
		if err != nil {
			return page, fmt.Errorf("%q is no cursor: %w", query.After, blobstore.ErrInvalid)
		}
	}
	limit := query.Limit
	if limit <= 0 {
		limit = pageSize
	}
	drives, err := s.drivesFor(ctx, session, query.Drives, false)
	if err != nil {
		return page, err
	}
	in := strings.Trim(query.Folder, "/")
	there, missing := in == "" || query.After != "", blobstore.ErrNotExist
	for _, drive := range drives {
		if ctx.Err() != nil {
			return page, context.Cause(ctx)
		}
		if string(drive) < after.Drive {
			continue
		}
		folders, err := s.foldersAt(drive, in)
		switch {
		case errors.Is(err, unix.ENOENT):
			continue
		case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
			missing = blobstore.ErrNotDir
			continue
		case err != nil:
			return page, err
		}
		there = true
		for _, folder := range folders {
			if string(drive) == after.Drive && path.Base(folder.Path) <= string(after.Name) {
				continue
			}
			if len(page.Folders) == limit {
				last := page.Folders[limit-1]
				text, err := json.Marshal(folderPosition{string(last.Drive), []byte(path.Base(last.Path))})
				page.Next = base64.RawURLEncoding.EncodeToString(text)
				return page, err
			}
			page.Folders = append(page.Folders, folder)
		}
	}
	if !there {
		return page, missing
	}
	return page, nil
}

// foldersAt are the folders in a folder of a drive, by name. What something is mounted over is no part of the drive.
func (s *Store) foldersAt(drive blobstore.DriveName, in string) (folders []blobstore.Folder, err error) {
	fd, err := s.openFolder(string(drive))
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var top, st unix.Statx_t
	if err := statx(fd, "", &top); err != nil {
		return nil, err
	}
	at, err := descendTo(fd, in)
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	names, err := namesIn(at)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if statx(at, name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && onSameMount(&st, &top) {
			folders = append(folders, blobstore.Folder{Drive: drive, Path: join(in, name), Changed: time.Unix(0, nanoseconds(st.Mtime))})
		}
	}
	return folders, nil
}
