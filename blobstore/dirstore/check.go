package dirstore

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/auth/accounts"
	"mediafs/blobstore"
)

// The store's own leftovers of programs that were killed, in ownFolder.
const (
	asidePrefix    = "drive-"          // a drive in the making, see makeFolder
	accountsPrefix = ".accounts.json." // accounts that did not come to take the place of the others
)

// leftAfter is how old a leftover is for certain: making a drive or writing the accounts takes no time.
const leftAfter = time.Hour

// lostFolder is where in ownFolder a repair puts what was in the log and is no record.
const lostFolder = "lost+found"

// Check looks at the whole store in root, as whoever may read its files, and calls take for the first findings of each kind. With repair
// it sets right what is the store's own: modes, leftovers, the log and its index. What is in drives is left as it is. See blobstore.Check.
//
// What other programs change meanwhile may be seen half: a file that is moved can be missed, and its other names be said to be outside.
func Check(ctx context.Context, root string, repair bool, take func(blobstore.Finding)) (blobstore.CheckReport, error) {
	s, err := Open(root, slog.New(slog.DiscardHandler))
	if err != nil {
		return blobstore.CheckReport{}, err
	}
	defer s.Close()
	report, err := blobstore.Check(ctx, &checker{s, root}, repair, take)
	if err != nil {
		return report, fmt.Errorf("check the store %s: %w", root, err)
	}
	return report, nil
}

type checker struct {
	*Store
	path string // of the root
}

// Look implements blobstore.Checker.
func (c *checker) Look(ctx context.Context, found func(blobstore.Finding)) (report blobstore.CheckReport, err error) {
	w := &walk{ctx: ctx, store: c.Store, found: found, links: make(map[inode]*linked)}
	for _, look := range []func() error{w.ownFolder, w.drives, func() error { return c.lookAtAccounts(found) },
		func() error { return c.lookAtLog(ctx, found, nil) }, func() error { return c.lookAtIndex(ctx, found) },
		func() error { return c.lookAtQuotas(ctx, found) }} {
		if err := look(); err != nil {
			return report, err
		}
	}
	w.reportLinks()
	return w.report, ctx.Err()
}

// Repair implements blobstore.Checker.
func (c *checker) Repair(ctx context.Context, drives []blobstore.DriveName) error {
	if !slices.Contains(drives, "") {
		return nil // what is in drives is not the store's to change
	}
	own, err := openBelow(c.root.fd, ownFolder)
	if err != nil {
		return err
	}
	defer unix.Close(own)
	err = eachPrivate(own, func(name string, mode uint32) error {
		fd, err := openPath(own, name, 0, beneath)
		if err != nil {
			return err
		}
		d := newDescriptor(fd)
		defer d.release()
		return unix.Chmod(d.path(), mode&^0o077)
	})
	if err != nil {
		return err
	}
	err = eachLeftover(own, func(name string) error {
		if strings.HasPrefix(name, asidePrefix) {
			return unix.Unlinkat(own, name, unix.AT_REMOVEDIR) // it fails if anything is in it
		}
		return unix.Unlinkat(own, name, 0)
	})
	if err != nil {
		return err
	}
	if err := c.lookAtLog(ctx, func(blobstore.Finding) {}, c.blank); err != nil {
		return err
	}
	broken := false
	if err := c.lookAtIndex(ctx, func(blobstore.Finding) { broken = true }); err != nil || !broken {
		return err
	}
	c.index.mu.Lock()
	c.index.remove()
	c.index.mu.Unlock()
	for more := true; more; {
		err := c.index.use(ctx, func(db *sql.DB) (err error) {
			more, err = c.index.follow(ctx, db)
			return err
		})
		if err != nil {
			return fmt.Errorf("make the index anew: %w", err)
		}
	}
	return nil
}

// eachPrivate calls do for what of the store's own others than its owner may use.
func eachPrivate(own int, do func(name string, mode uint32) error) error {
	for _, name := range []string{".", "accounts.json", auditFolder, changesFolder, indexFile, catalogFile, quotaFile} {
		var st unix.Statx_t
		err := statx(own, name, &st)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err == nil && st.Mode&0o077 != 0 && st.Mode&unix.S_IFMT != unix.S_IFLNK {
			err = do(name, uint32(st.Mode)&permissions)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// eachLeftover calls do for what programs that were killed have left.
func eachLeftover(own int, do func(name string) error) error {
	names, err := namesIn(own)
	if err != nil {
		return err
	}
	for _, name := range names {
		var st unix.Statx_t
		if !strings.HasPrefix(name, asidePrefix) && !strings.HasPrefix(name, accountsPrefix) || strings.HasSuffix(name, ".lock") ||
			statx(own, name, &st) != nil || time.Since(time.Unix(st.Mtime.Sec, 0)) < leftAfter {
			continue
		}
		if err := do(name); err != nil {
			return err
		}
	}
	return nil
}

// namesIn lists a folder that is open for reading, from its beginning.
func namesIn(fd int) ([]string, error) {
	again, err := openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(again), "folder")
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// inode is a file whatever its names are.
type inode struct {
	device [2]uint32
	ino    uint64
}

// linked is a file with several names.
type linked struct {
	names uint32                         // that it says it has
	seen  uint32                         // of them
	paths map[blobstore.DriveName]string // one in each drive
}

// walk looks at the drives.
type walk struct {
	ctx    context.Context
	store  *Store
	found  func(blobstore.Finding)
	report blobstore.CheckReport
	links  map[inode]*linked

	drive blobstore.DriveName // at which it is
	top   unix.Statx_t        // that drive's folder
}

func (w *walk) ownFolder() error {
	own, err := openBelow(w.store.root.fd, ownFolder)
	if err != nil {
		return err
	}
	defer unix.Close(own)
	err = eachPrivate(own, func(name string, mode uint32) error {
		name = filepath.Join(ownFolder, name)
		w.found(blobstore.Finding{Kind: "mode", Name: name, Says: fmt.Sprintf("its mode is %#o: others than its owner may use it", mode)})
		return nil
	})
	if err != nil {
		return err
	}
	return eachLeftover(own, func(name string) error {
		w.found(blobstore.Finding{Kind: "leftover", Name: filepath.Join(ownFolder, name), Says: "a program that was killed has left it"})
		return nil
	})
}

func (w *walk) drives() error {
	root, err := openat(w.store.root.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	names, err := namesIn(root)
	if err != nil {
		return err
	}
	if !slices.Contains(names, publicName) {
		w.found(blobstore.Finding{Kind: "no-public-drive", Name: publicName, Says: "there is no public drive: run `mediafs init` on the store"})
	}
	for _, name := range names {
		if name == ownFolder {
			continue
		}
		if auth.UserID(name).Check() != nil {
			w.found(blobstore.Finding{Kind: "no-drive", Name: name, Says: "it is in the store and no drive: no user has that name"})
			continue
		}
		fd, err := openPath(root, name, unix.O_DIRECTORY, mayMount)
		switch {
		case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
			w.found(blobstore.Finding{Kind: "no-drive", Name: name, Says: "it is in the store and no drive: it is no folder"})
			continue
		case errors.Is(err, unix.ENOENT):
			continue
		case err != nil:
			return err
		}
		w.drive = blobstore.DriveName(name)
		w.report.Drives++
		err = statx(fd, "", &w.top)
		if err == nil {
			err = w.folder(fd, "")
		}
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// folder looks at a folder, given by a descriptor of its place, and all that is in it.
func (w *walk) folder(place int, path string) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	w.report.Nodes++
	fd, err := openat(place, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		w.skip(path, err.Error())
		return nil
	}
	defer unix.Close(fd)
	names, err := namesIn(fd)
	if err != nil {
		w.skip(path, err.Error())
		return nil
	}
	for _, name := range names {
		var st unix.Statx_t
		err := statx(fd, name, &st)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		at := filepath.Join(path, name)
		switch {
		case err != nil:
			w.skip(at, err.Error())
			continue
		case st.Dev_major != w.top.Dev_major || st.Dev_minor != w.top.Dev_minor || st.Mnt_id != w.top.Mnt_id:
			w.skip(at, "something is mounted there")
			continue
		case st.Uid != w.top.Uid:
			w.found(blobstore.Finding{Drive: w.drive, Kind: "foreign-owner", Ino: blobstore.Ino(st.Ino), Name: at,
				Says: fmt.Sprintf("it belongs to the user %d, and the drive to %d", st.Uid, w.top.Uid)})
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			next, err := openPath(fd, name, unix.O_DIRECTORY, beneath)
			if err != nil {
				if !errors.Is(gone(err), blobstore.ErrStale) {
					w.skip(at, err.Error())
				}
				continue
			}
			err = w.folder(next, at)
			_ = unix.Close(next)
			if err != nil {
				return err
			}
			continue
		}
		if w.link(&st, at) {
			w.report.Nodes++
			w.report.Bytes += int64(st.Blocks) * 512
		}
	}
	return nil
}

func (w *walk) skip(path, why string) {
	w.found(blobstore.Finding{Drive: w.drive, Kind: "not-looked-at", Name: path, Says: "it could not be looked at: " + why})
}

// link remembers a name of a file that has several, and says whether it is the first that was seen.
func (w *walk) link(st *unix.Statx_t, path string) (first bool) {
	if st.Nlink < 2 {
		return true
	}
	key := inode{[2]uint32{st.Dev_major, st.Dev_minor}, st.Ino}
	l := w.links[key]
	if first = l == nil; first {
		l = &linked{paths: make(map[blobstore.DriveName]string)}
		w.links[key] = l
	}
	l.names = st.Nlink
	l.seen++
	if l.paths[w.drive] == "" {
		l.paths[w.drive] = path
	}
	return first
}

// reportLinks finds files that are not in one drive alone.
func (w *walk) reportLinks() {
	for key, l := range w.links {
		drives := slices.Sorted(maps.Keys(l.paths))
		for _, drive := range drives {
			f := blobstore.Finding{Drive: drive, Ino: blobstore.Ino(key.ino), Name: l.paths[drive]}
			if len(drives) > 1 {
				f.Kind, f.Says = "shared", fmt.Sprintf("it has names in several drives: %q", drives)
				w.found(f)
			}
			if l.seen < l.names {
				f.Kind, f.Says = "outside", fmt.Sprintf("%d of its %d names are outside of the store", l.names-l.seen, l.names)
				w.found(f)
			}
		}
	}
}

// lookAtAccounts reads the accounts.
func (c *checker) lookAtAccounts(found func(blobstore.Finding)) error {
	if _, err := accounts.Open(AccountsPath(c.path)); err != nil {
		found(blobstore.Finding{Kind: "accounts", Name: filepath.Join(ownFolder, "accounts.json"), Says: err.Error()})
	}
	return nil
}

// lookAtLog finds lines of the audit log that are no records, and calls repair for each, if that is not nil. A record that was cut short is
// none of them: that is what a crash or a full disk leaves, and the record was written again. Nor is what comes after the last line feed.
func (c *checker) lookAtLog(ctx context.Context, found func(blobstore.Finding), repair func(name string, offset int64, line []byte) error) error {
	return c.eachAuditFile(func(name string, f *os.File) error {
		lines := bufio.NewReaderSize(f, 1<<16)
		var offset int64
		for number := 1; ; number++ {
			line, err := lines.ReadBytes('\n')
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if !isRecord(line) {
				found(blobstore.Finding{Kind: "log-line", Name: filepath.Join(ownFolder, auditFolder, name), Says: fmt.Sprintf("line %d is no record", number)})
				if repair != nil {
					if err := repair(name, offset, line); err != nil {
						return err
					}
				}
			}
			offset += int64(len(line))
		}
	})
}

// isRecord says whether a line of the log is a record, what is left of one, or empty.
func isRecord(line []byte) bool {
	line = bytes.TrimSpace(line)
	if len(line) == 0 {
		return true
	}
	var r blobstore.AuditRecord
	err := json.Unmarshal(line, &r)
	var syntax *json.SyntaxError
	return err == nil || line[0] == '{' && errors.As(err, &syntax) && syntax.Offset == int64(len(line))
}

// blank puts a line of the log into lostFolder, and spaces in its place: other programs write at the end of the file, and the index knows how far
// it has followed it.
func (c *checker) blank(name string, offset int64, line []byte) error {
	own, err := openBelow(c.root.fd, ownFolder)
	if err != nil {
		return err
	}
	defer unix.Close(own)
	if err := unix.Mkdirat(own, lostFolder, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	lost, err := openBelow(own, lostFolder)
	if err != nil {
		return err
	}
	defer unix.Close(lost)
	fd, err := openat(lost, fmt.Sprintf("%s-%d", name, offset), unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	kept := os.NewFile(uintptr(fd), name)
	defer kept.Close()
	if _, err := kept.Write(line); err != nil {
		return err
	}
	if err := errors.Join(kept.Sync(), unix.Fsync(lost)); err != nil {
		return err
	}
	logs, err := openBelow(own, auditFolder)
	if err != nil {
		return err
	}
	defer unix.Close(logs)
	if fd, err = openat(logs, name, unix.O_WRONLY|unix.O_NOFOLLOW, 0); err != nil {
		return err
	}
	log := os.NewFile(uintptr(fd), name)
	defer log.Close()
	if _, err := log.WriteAt(bytes.Repeat([]byte(" "), len(line)-1), offset); err != nil {
		return err
	}
	return log.Sync()
}

// lookAtIndex asks SQLite whether the index is whole, and compares it with one made anew from as much of the log as it has followed. Where a part
// of the log is no more, its counts can't be compared.
func (c *checker) lookAtIndex(ctx context.Context, found func(blobstore.Finding)) error {
	broken := func(says string) error {
		found(blobstore.Finding{Kind: "index", Name: filepath.Join(ownFolder, indexFile), Says: says})
		return nil
	}
	path := filepath.Join(c.path, ownFolder, indexFile)
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return nil // nothing was recorded
	}
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(5000)"}}.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	known, err := readIndex(ctx, db)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return broken(err.Error())
	}
	all, ahead := true, ""
	seen := make(map[string]bool)
	err = c.eachAuditFile(func(name string, f *os.File) error {
		seen[name] = true
		info, err := f.Stat()
		if err == nil && info.Size() < known.followed[name] {
			ahead = name
		}
		return err
	})
	for name := range known.followed {
		all = all && seen[name]
	}
	if err != nil || !all {
		return err
	}
	if ahead != "" {
		return broken("it has followed " + ahead + " further than that goes")
	}
	anew, err := c.indexAnew(ctx, known.followed)
	if err != nil {
		return err
	}
	if !maps.Equal(anew.opens, known.opens) {
		return broken("its counts are not those of the log")
	}
	return nil
}

// indexed is what an index has in it.
type indexed struct {
	followed map[string]int64
	opens    map[counted]opens
}

// readIndex reads all of an index, if SQLite finds it whole and it is of this version.
func readIndex(ctx context.Context, db *sql.DB) (x indexed, err error) {
	x = indexed{followed: make(map[string]int64), opens: make(map[counted]opens)}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return x, err
	}
	defer tx.Rollback()
	var says string
	if err := tx.QueryRowContext(ctx, "pragma quick_check(1)").Scan(&says); err != nil {
		return x, err
	}
	var version int
	if err := tx.QueryRowContext(ctx, "pragma user_version").Scan(&version); err != nil {
		return x, err
	}
	switch {
	case says != "ok":
		return x, fmt.Errorf("it is broken: %s", says)
	case version != indexVersion:
		return x, errIndexVersion
	}
	files, err := tx.QueryContext(ctx, "select file, offset from followed")
	if err != nil {
		return x, err
	}
	defer files.Close()
	for files.Next() {
		var name string
		var offset int64
		if err := files.Scan(&name, &offset); err != nil {
			return x, err
		}
		x.followed[name] = offset
	}
	if err := files.Err(); err != nil {
		return x, err
	}
	rows, err := tx.QueryContext(ctx, "select drive, ino, generation, count, at_ns from accesses")
	if err != nil {
		return x, err
	}
	defer rows.Close()
	for rows.Next() {
		var node counted
		var o opens
		var ino, generation int64
		if err := rows.Scan(&node.drive, &ino, &generation, &o.count, &o.atNs); err != nil {
			return x, err
		}
		node.ino, node.generation = blobstore.Ino(ino), uint64(generation)
		x.opens[node] = o
	}
	return x, rows.Err()
}

// indexAnew makes an index in memory from the log, up to where another has followed it.
func (c *checker) indexAnew(ctx context.Context, until map[string]int64) (x indexed, err error) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return x, err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if err := prepareDatabase(ctx, db, indexSchema, indexVersion); err != nil {
		return x, err
	}
	for more := true; more; {
		if more, err = c.index.followUntil(ctx, db, until); err != nil {
			return x, err
		}
	}
	return readIndex(ctx, db)
}
