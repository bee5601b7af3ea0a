package pgstore

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// The positions of the first two entries of every folder. Numbers of a drive, which are the positions of the others, begin at
// 16 (migrations/001_store.sql).
const (
	positionSelf   = 1
	positionParent = 2
)

// pageEntries is how many entries one round trip brings. The first page is small: most folders are.
const (
	firstPage   = 256
	pageEntries = 2048
)

// openingHolds is how long the page that OpenDir read passes for the folder as it is now.
const openingHolds = 100 * time.Millisecond

// dir lists a folder page by page.
type dir struct {
	drive *Drive
	ino   blobstore.Ino

	parent  blobstore.Ino     // what ".." is
	page    []blobstore.Entry // in order of position
	after   uint64            // the position before page[0]
	last    bool              // nothing comes after page
	changes uint64            // Drive.changes before the page was asked for
	fetched bool
	opening bool // the page is the one that OpenDir read, and nothing has been read since
	opened  time.Time
	losses  uint64 // Drive.losses when it was opened or last synced
}

// OpenDir reads the first page: for most folders that one round trip is the whole listing.
func (d *Drive) OpenDir(ctx context.Context, ino blobstore.Ino) (blobstore.Dir, error) {
	l := &dir{drive: d, ino: ino, losses: d.losses.Load()}
	if err := l.fetch(ctx, positionParent, firstPage); err != nil {
		return nil, err
	}
	if l.parent == 0 {
		return nil, translate(ctx, "open folder", blobstore.ErrNotExist)
	}
	l.opening, l.opened = true, time.Now()
	return l, nil
}

func (l *dir) Read(ctx context.Context, after uint64, attributes bool, take func(*blobstore.Entry) bool) error {
	if ctx.Err() != nil {
		return translate(ctx, "list", context.Cause(ctx))
	}
	opening := l.opening && l.drive.changes.Load() == l.changes && time.Since(l.opened) < openingHolds
	l.opening = false
	if after == 0 && !opening || !l.fetched {
		if err := l.fetch(ctx, max(after, positionParent), firstPage); err != nil {
			return err
		}
	}
	if after < positionSelf && !take(&blobstore.Entry{Name: ".", Position: positionSelf, Attr: folder(l.ino)}) {
		return nil
	}
	if after < positionParent && !take(&blobstore.Entry{Name: "..", Position: positionParent, Attr: folder(l.parent)}) {
		return nil
	}
	after = max(after, positionParent)
	for {
		if after < l.after {
			if err := l.fetch(ctx, after, pageEntries); err != nil {
				return err
			}
		}
		for i := range l.page {
			e := &l.page[i]
			if e.Position <= after {
				continue
			}
			given := *e
			given.Complete = attributes && l.isCurrent(e.Attr.Ino)
			if !take(&given) {
				return nil
			}
			after = e.Position
		}
		if l.last {
			return nil
		}
		if err := l.fetch(ctx, after, pageEntries); err != nil {
			return err
		}
	}
}

// isCurrent says whether the page has the attributes that a node has now. Those that were read before a change made here may be older than what the
// kernel knows. What ends being pending was counted as a change before that, so changes are looked at last.
func (l *dir) isCurrent(ino blobstore.Ino) bool {
	d := l.drive
	return !d.peek(ino).isPending() && !d.making.has(ino) && d.changes.Load() == l.changes
}

// fetch reads the page after a position.
func (l *dir) fetch(ctx context.Context, after uint64, limit int) error {
	d := l.drive
	if _, err := d.settleNode(ctx, l.ino); err != nil {
		return err
	}
	l.fetched = false
	l.page = l.page[:0]
	l.changes = d.changes.Load()
	var mode uint32
	mark := d.known.mark()
	err := d.run(ctx, "list", reading,
		statement{
			sql:  "select n.mode, n.parent from mediafs.nodes n where n.drive_id = $1 and n.ino = $2 and n.nlink > 0",
			args: []any{d.id, int64(l.ino)},
			each: func(r pgx.Rows) error { l.page = l.page[:0]; return r.Scan(&mode, &l.parent) },
		},
		d.list(l.ino, after, limit, func(e blobstore.Entry) { l.page = append(l.page, e) }))
	switch {
	case err != nil:
		return err
	case mode == 0: // removed: it is empty
	case mode&unix.S_IFMT != unix.S_IFDIR:
		return translate(ctx, "list", blobstore.ErrNotDir)
	}
	d.known.rememberPage(&mark, l.ino, l.page, d.openAmong(l.page))
	l.after, l.last, l.fetched = after, len(l.page) < limit, true
	return nil
}

// list is a statement that gives entries of a folder in the order of their positions.
func (d *Drive) list(folder blobstore.Ino, after uint64, limit int, take func(blobstore.Entry)) statement {
	return statement{
		sql: "select " + attrColumns + `, e.position, e.name
			from mediafs.entries e join mediafs.nodes n on n.drive_id = $1 and n.ino = e.ino
			where e.drive_id = $1 and e.parent::double precision = $2::bigint::double precision and e.position > $3 order by e.position limit $4`,
		args: []any{d.id, int64(folder), int64(after), limit},
		each: func(rows pgx.Rows) error {
			var r row
			var position int64
			var name []byte
			if err := r.scan(rows, &position, &name); err != nil {
				return err
			}
			d.atimes.over(&r.attr)
			take(blobstore.Entry{Name: string(name), Attr: r.attr, Position: uint64(position)})
			return nil
		},
	}
}

// learnFolder has all names in a folder be known, unless there are too many: then one round trip was in vain. Errors are those of whoever asks next.
func (d *Drive) learnFolder(ctx context.Context, ino blobstore.Ino) {
	var page []blobstore.Entry
	mark := d.known.mark()
	err := d.run(ctx, "list", impatient, d.list(ino, positionParent, wholeMax+1, func(e blobstore.Entry) { page = append(page, e) }))
	if err != nil || len(page) > wholeMax {
		return
	}
	d.known.rememberAll(&mark, ino, page, d.openAmong(page))
}

// openAmong are the entries whose files are open here, or have something pending.
func (d *Drive) openAmong(entries []blobstore.Entry) map[blobstore.Ino]bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	var open map[blobstore.Ino]bool
	for i := range entries {
		if ino := entries[i].Attr.Ino; d.blobs[ino] != nil {
			if open == nil {
				open = make(map[blobstore.Ino]bool)
			}
			open[ino] = true
		}
	}
	return open
}

func folder(ino blobstore.Ino) blobstore.Attr {
	return blobstore.Attr{Ino: ino, Mode: unix.S_IFDIR}
}

// Sync makes the names durable. ErrUnavailable, once, if the database server went away since the folder was opened and may have
// undone some.
func (l *dir) Sync(ctx context.Context) error {
	if _, err := l.drive.settleIn(ctx, l.ino); err != nil {
		return err
	}
	if err := l.drive.makeDurable(ctx); err != nil {
		return err
	}
	if losses := l.drive.losses.Load(); losses != l.losses {
		l.losses = losses
		return translate(ctx, "sync folder", blobstore.ErrUnavailable)
	}
	return nil
}

func (l *dir) Close() error { return nil }
