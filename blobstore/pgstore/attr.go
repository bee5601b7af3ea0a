package pgstore

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore"
)

// attrColumns are the columns of mediafs.nodes that row scans.
const attrColumns = "n.ino, n.mode, n.nlink, n.uid, n.gid, n.rdev, n.size, n.allocated, n.atime_ns, n.mtime_ns, n.ctime_ns, n.blob"

// row is a node as the database has it.
type row struct {
	attr  blobstore.Attr
	blob  int64 // the number its chunks have
	found bool

	losses uint64 // Drive.losses before it was asked for
}

// into are the places that attrColumns are scanned to.
func (r *row) into() []any {
	a := &r.attr
	return []any{&a.Ino, &a.Mode, &a.Nlink, &a.UID, &a.GID, &a.Rdev, &a.Size, &a.Allocated, &a.AtimeNs, &a.MtimeNs, &a.CtimeNs, &r.blob}
}

// scan reads attrColumns, and after them what else there is.
func (r *row) scan(rows pgx.Rows, more ...any) error {
	r.found = true
	return rows.Scan(append(r.into(), more...)...)
}

// one runs a statement whose rows are attrColumns and gives the last. No row is ErrNotExist.
func (d *Drive) one(ctx context.Context, op string, c commit, sql string, args ...any) (row, error) {
	r := row{losses: d.losses.Load()}
	err := d.run(ctx, op, c, statement{sql: sql, args: args, each: func(rows pgx.Rows) error { return r.scan(rows) }})
	if err == nil && !r.found {
		err = translate(ctx, op, blobstore.ErrNotExist)
	}
	d.atimes.over(&r.attr)
	return r, err
}

const selectNode = "select " + attrColumns + " from mediafs.nodes n where n.drive_id = $1 and n.ino = $2"

// Attr asks the database, unless what is known is current, and adds what was written here and is not stored yet. While the database is away it
// answers with what is known of the node, if anything is.
func (d *Drive) Attr(ctx context.Context, ino blobstore.Ino) (blobstore.Attr, error) {
	if b := d.peek(ino); b.isMaking() {
		d.store.counts.hits.Add(1)
		return b.attributes(), nil
	}
	last, isKnown, era := d.known.recall(ino)
	if isKnown && d.isSole(ctx, era) {
		d.store.counts.hits.Add(1)
		return d.nowOver(last), nil
	}
	if _, err := d.settleIn(ctx, ino); err != nil {
		return blobstore.Attr{}, err
	}
	return d.orKnown(ctx, last, isKnown, func(ctx context.Context, how commit) (blobstore.Attr, error) { return d.askAttr(ctx, how, ino) })
}

// askAttr is one round trip.
func (d *Drive) askAttr(ctx context.Context, how commit, ino blobstore.Ino) (blobstore.Attr, error) {
	for {
		b := d.peek(ino)
		version, mark := b.currentVersion(), d.known.mark()
		r, err := d.one(ctx, "attr", how, selectNode, d.id, int64(ino))
		if err != nil {
			return blobstore.Attr{}, err
		}
		if r.attr.Nlink == 0 && !b.isOpen() {
			return blobstore.Attr{}, translate(ctx, "attr", blobstore.ErrNotExist) // it waits to be collected
		}
		if attr, ok := b.overlay(r, version); ok {
			d.known.remember(&mark, attr)
			return attr, nil
		}
	}
}

// nowOver puts what is not stored yet on top of attributes that are current.
func (d *Drive) nowOver(attr blobstore.Attr) blobstore.Attr {
	d.atimes.over(&attr)
	return d.peek(attr.Ino).pendingOver(attr)
}

// SetAttr changes attributes. Of a file with pending bytes, those that a change of size leaves are stored first, and an
// explicit mtime takes the place of the one that the last write gave.
func (d *Drive) SetAttr(ctx context.Context, ino blobstore.Ino, change blobstore.AttrChange) (blobstore.Attr, error) {
	if change.Set.Has(blobstore.SetSize) {
		switch {
		case change.Size < 0:
			return blobstore.Attr{}, translate(ctx, "set attributes", blobstore.ErrInvalid)
		case change.Size > blobstore.MaxFileSize:
			return blobstore.Attr{}, translate(ctx, "set attributes", blobstore.ErrTooLarge)
		}
	}
	b := d.peek(ino)
	var attr blobstore.Attr
	var err error
	if b == nil {
		var r row
		r, err = d.setAttr(ctx, ino, change)
		attr = r.attr
		if err == nil && change.Set.Has(blobstore.SetSize) {
			d.describeSoon(ino)
		}
	} else {
		attr, err = b.setAttr(ctx, change)
	}
	if err == nil && attr.Nlink == 0 && !b.isOpen() {
		err = translate(ctx, "set attributes", blobstore.ErrNotExist) // it waits to be collected
	}
	return attr, err
}

func (d *Drive) setAttr(ctx context.Context, ino blobstore.Ino, change blobstore.AttrChange) (row, error) {
	var fresh int64
	if change.Set.Has(blobstore.SetSize) && change.Size == 0 {
		var err error
		if fresh, err = d.number(ctx); err != nil {
			return row{}, err
		}
	}
	c := repeating
	if change.Set.Has(blobstore.SetSize) {
		c = durably // it decides what the bytes that are stored next mean
	}
	going, err := d.change(func() (bool, error) { return d.settleIn(ctx, ino) }, nodeKey(ino))
	if err != nil {
		return row{}, err
	}
	r, err := d.one(ctx, "set attributes", c,
		"select "+attrColumns+" from mediafs.set_attr($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) n",
		d.id, int64(ino), int32(change.Set), int32(change.Mode), int64(change.UID), int64(change.GID), change.Size,
		change.AtimeNs, change.MtimeNs, time.Now().UnixNano(), fresh, int32(d.chunk), d.mount)
	d.changes.Add(1)
	if err == nil && change.Set.Has(blobstore.SetAtime) {
		d.atimes.set(ino)
		r.attr.AtimeNs = change.AtimeNs
	}
	going.overFor(r, err)
	if change.Set.Has(blobstore.SetSize) {
		d.collectSoon()
	}
	return r, err
}
