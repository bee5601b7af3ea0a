package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

const lookupName = "select " + attrColumns + ` from mediafs.entries e join mediafs.nodes n on n.drive_id = $1 and n.ino = e.ino
	where e.drive_id = $1 and e.parent = $2 and e.name = $3`

// Lookup is one round trip, unless what is known is current. While the database is away it answers with what is known of the name, if anything is.
func (d *Drive) Lookup(ctx context.Context, parent blobstore.Ino, name string) (blobstore.Attr, error) {
	if err := checkName("lookup", name); err != nil {
		return blobstore.Attr{}, err
	}
	if b := d.making.find(parent, name); b != nil {
		d.store.counts.hits.Add(1)
		return b.attributes(), nil
	}
	last, isKnown, era := d.known.find(parent, name)
	if d.isSole(ctx, era) {
		d.store.counts.hits.Add(1)
		if !isKnown {
			return blobstore.Attr{}, translate(ctx, "lookup", blobstore.ErrNotExist)
		}
		return d.nowOver(last), nil
	}
	if d.known.misses(parent) && d.isSole(ctx, d.known.currentEra()) {
		d.learnFolder(ctx, parent)
		return d.Lookup(ctx, parent, name)
	}
	return d.orKnown(ctx, last, isKnown, func(ctx context.Context, how commit) (blobstore.Attr, error) {
		for {
			changes, mark := d.changes.Load(), d.known.mark()
			r, err := d.one(ctx, "lookup", how, lookupName, d.id, int64(parent), []byte(name))
			if errors.Is(err, blobstore.ErrNotExist) {
				d.known.rememberNone(&mark, parent, name)
			}
			if err != nil {
				return blobstore.Attr{}, err
			}
			d.known.rememberName(&mark, parent, name, r.attr)
			if d.peek(r.attr.Ino) == nil && d.changes.Load() == changes && !d.making.has(r.attr.Ino) {
				return r.attr, nil
			}
			// Open here: what is pending counts; or changed while the answer was on its way; or a folder that has another time for what is made in it.
			if _, err := d.settleIn(ctx, r.attr.Ino); err != nil {
				return blobstore.Attr{}, err
			}
			attr, err := d.askAttr(ctx, how, r.attr.Ino)
			if !errors.Is(err, blobstore.ErrNotExist) {
				return attr, err
			}
		}
	})
}

// Forget does nothing: a number leads to its node without help.
func (d *Drive) Forget(blobstore.Ino, uint64) {}

// Create makes a file in one round trip; if the name is there, it takes two more.
func (d *Drive) Create(ctx context.Context, parent blobstore.Ino, name string, node blobstore.NewNode, flags blobstore.OpenFlags) (blobstore.File, blobstore.Attr, bool, error) {
	if err := checkName("create", name); err != nil {
		return nil, blobstore.Attr{}, false, err
	}
	for {
		file, attr, err := d.createNew(ctx, parent, name, node)
		if err == nil {
			return file, attr, true, nil
		}
		if !errors.Is(err, blobstore.ErrExist) || flags.Has(blobstore.OpenExclusive) {
			return nil, blobstore.Attr{}, false, err
		}
		attr, err = d.Lookup(ctx, parent, name)
		switch {
		case errors.Is(err, blobstore.ErrNotExist):
			continue // removed between the two
		case err != nil:
			return nil, blobstore.Attr{}, false, err
		case attr.Type() == unix.S_IFLNK:
			return nil, blobstore.Attr{}, false, translate(ctx, "create", blobstore.ErrLoop)
		}
		opened, err := d.Open(ctx, attr.Ino, flags)
		if errors.Is(err, blobstore.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, blobstore.Attr{}, false, err
		}
		return opened, opened.(*File).blob.attributes(), false, nil
	}
}

// createNew makes a file that is open here from before it can be found.
func (d *Drive) createNew(ctx context.Context, parent blobstore.Ino, name string, node blobstore.NewNode) (*File, blobstore.Attr, error) {
	ino, err := d.number(ctx)
	if err != nil {
		return nil, blobstore.Attr{}, err
	}
	node.Mode = node.Mode&^unix.S_IFMT | unix.S_IFREG
	fits := d.beginNode()
	if fits {
		f, err := d.makeLater(ctx, blobstore.Ino(ino), parent, name, node)
		if f != nil {
			return f, f.blob.attributes(), nil
		}
		if err != nil {
			d.quota.nodes.over.Add(1)
			return nil, blobstore.Attr{}, err
		}
	}
	b := d.acquire(blobstore.Ino(ino))
	r, err := d.makeNow(ctx, fits, ino, parent, name, node)
	if err != nil {
		d.release(b)
		return nil, blobstore.Attr{}, err
	}
	b.leftUnsure()
	return b.created(r), r.attr, nil
}

// Make makes a node in one round trip.
func (d *Drive) Make(ctx context.Context, parent blobstore.Ino, name string, node blobstore.NewNode) (blobstore.Attr, error) {
	if err := checkName("make", name); err != nil {
		return blobstore.Attr{}, err
	}
	if node.Mode&unix.S_IFMT == unix.S_IFLNK {
		switch {
		case node.Target == "":
			return blobstore.Attr{}, translate(ctx, "make", blobstore.ErrNotExist) // symlink(2)
		case len(node.Target) > blobstore.MaxTargetLen:
			return blobstore.Attr{}, translate(ctx, "make", blobstore.ErrNameTooLong)
		}
	}
	ino, err := d.number(ctx)
	if err != nil {
		return blobstore.Attr{}, err
	}
	r, err := d.makeNow(ctx, d.beginNode(), ino, parent, name, node)
	return r.attr, err
}

// makeNow makes a node that is begun (quota). If it may not fit, new files that are known here alone are made before it: there was room for them.
func (d *Drive) makeNow(ctx context.Context, fits bool, ino int64, parent blobstore.Ino, name string, node blobstore.NewNode) (row, error) {
	defer d.quota.nodes.over.Add(1)
	if !fits {
		if _, err := d.settleIn(ctx, 0); err != nil {
			return row{}, err
		}
	}
	return d.make(ctx, ino, parent, name, node)
}

func (d *Drive) make(ctx context.Context, ino int64, parent blobstore.Ino, name string, node blobstore.NewNode) (row, error) {
	var target []byte
	if node.Mode&unix.S_IFMT == unix.S_IFLNK {
		target = []byte(node.Target)
	}
	defer d.changes.Add(1)
	going, err := d.change(func() (bool, error) { return d.settleName(ctx, parent, name) },
		knownName{parent, name}, nodeKey(parent), nodeKey(blobstore.Ino(ino)))
	if err != nil {
		return row{}, err
	}
	now := time.Now().UnixNano()
	r, err := d.one(ctx, "make", once, "select "+attrColumns+" from mediafs.make($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) n",
		d.id, int64(parent), []byte(name), ino, int32(node.Mode), int64(node.UID), int64(node.GID), int64(node.Rdev), target, now)
	if err != nil {
		going.over()
		return row{}, err
	}
	folders := 0
	if r.attr.IsDir() {
		folders, going.empty = 1, r.attr.Ino
	}
	going.becomes(r.attr)
	going.leads(knownName{parent, name}, r.attr.Ino)
	going.touches(parent, now, folders)
	going.over()
	return r, nil
}

// Link is one round trip.
func (d *Drive) Link(ctx context.Context, ino, parent blobstore.Ino, name string) (blobstore.Attr, error) {
	if err := checkName("link", name); err != nil {
		return blobstore.Attr{}, err
	}
	position, err := d.number(ctx)
	if err != nil {
		return blobstore.Attr{}, err
	}
	b := d.peek(ino)
	if err := b.settle(ctx); err != nil {
		return blobstore.Attr{}, err
	}
	version := b.currentVersion()
	going, err := d.change(func() (bool, error) { return d.settleName(ctx, parent, name) },
		knownName{parent, name}, nodeKey(parent), nodeKey(ino))
	if err != nil {
		return blobstore.Attr{}, err
	}
	now := time.Now().UnixNano()
	r, err := d.one(ctx, "link", once, "select "+attrColumns+" from mediafs.link($1, $2, $3, $4, $5, $6, $7) n",
		d.id, int64(ino), int64(parent), []byte(name), position, blobstore.MaxLinks, now)
	d.changes.Add(1)
	if err == nil {
		going.becomes(r.attr)
		going.leads(knownName{parent, name}, ino)
		going.touches(parent, now, 0)
	}
	going.over()
	if err != nil {
		return blobstore.Attr{}, err
	}
	if attr, ok := b.overlay(r, version); ok {
		return attr, nil
	}
	return d.Attr(ctx, ino)
}

// Unlink is one round trip. The content of what is large, or open, is taken away in the background.
func (d *Drive) Unlink(ctx context.Context, parent blobstore.Ino, name string) error {
	if err := checkName("unlink", name); err != nil {
		return err
	}
	key := knownName{parent, name}
	ino, _ := d.known.leadsTo(parent, name) // the answer says it too
	going, err := d.change(func() (bool, error) { return d.settleName(ctx, parent, name) }, key, nodeKey(parent), nodeKey(ino))
	if err != nil {
		return err
	}
	defer going.over()
	now := time.Now().UnixNano()
	err = d.drop(ctx, going, "unlink", "select "+attrColumns+" from mediafs.unlink($1, $2, $3, $4, $5, $6) n",
		d.id, int64(parent), []byte(name), now, d.mount)
	if err == nil {
		going.leads(key, 0)
		going.touches(parent, now, 0)
	}
	return err
}

// Rmdir is one round trip.
func (d *Drive) Rmdir(ctx context.Context, parent blobstore.Ino, name string) error {
	if err := checkName("rmdir", name); err != nil {
		return err
	}
	key := knownName{parent, name}
	ino, all := d.known.leadsTo(parent, name)
	going, err := d.change(func() (bool, error) { return d.settleBelow(ctx, parent, name) }, key, nodeKey(parent), nodeKey(ino))
	if err != nil {
		return err
	}
	now := time.Now().UnixNano()
	err = d.run(ctx, "rmdir", once, statement{
		sql:  "select mediafs.rmdir($1, $2, $3, $4)",
		args: []any{d.id, int64(parent), []byte(name), now},
	})
	d.changes.Add(1)
	if err == nil {
		going.leads(key, 0)
		going.touches(parent, now, -1)
	}
	going.over()
	if !all { // what has changed is not all known
		d.known.newEra()
	}
	return err
}

// Rename is one round trip.
func (d *Drive) Rename(ctx context.Context, op blobstore.Rename) error {
	if err := errors.Join(checkName("rename", op.Name), checkName("rename", op.NewName)); err != nil {
		return err
	}
	position, err := d.number(ctx)
	if err != nil {
		return err
	}
	from, to := knownName{op.Parent, op.Name}, knownName{op.NewParent, op.NewName}
	moved, all := d.known.leadsTo(op.Parent, op.Name)
	replaced, allThere := d.known.leadsTo(op.NewParent, op.NewName)
	keys := []knownName{from, to, nodeKey(op.Parent), nodeKey(op.NewParent), nodeKey(moved)}
	if replaced != 0 || !allThere {
		keys = append(keys, nodeKey(replaced))
	}
	going, err := d.change(func() (bool, error) {
		one, err := d.settleBelow(ctx, op.Parent, op.Name)
		other, err2 := d.settleBelow(ctx, op.NewParent, op.NewName)
		return one || other, errors.Join(err, err2)
	}, keys...)
	if err != nil {
		return err
	}
	now := time.Now().UnixNano()
	err = d.drop(ctx, going, "rename", "select "+attrColumns+" from mediafs.rename($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) n",
		d.id, int64(op.Parent), []byte(op.Name), int64(op.NewParent), []byte(op.NewName), int32(op.Mode), position, now, d.mount)
	all = all && allThere && moved != 0 && moved != replaced && op.Mode != blobstore.RenameExchange
	if err == nil && all {
		going.leads(from, 0)
		going.leads(to, moved)
		if attr, ok := going.was[moved]; ok {
			attr.CtimeNs = now
			going.becomes(attr)
			if !attr.IsDir() && replaced == 0 { // of a folder that moves, two folders have other counts
				going.touches(op.Parent, now, 0)
				going.touches(op.NewParent, now, 0)
			}
		}
		d.peek(moved).moved(now)
	}
	going.over()
	if !all {
		d.known.newEra()
	}
	return err
}

// drop runs an operation that may take the last name of a file, which its rows then give. Its last argument, added here, is what
// is open.
func (d *Drive) drop(ctx context.Context, going *change, op, sql string, args ...any) error {
	d.dropping.RLock()
	defer d.dropping.RUnlock()
	losses := d.losses.Load()
	dropped := make(map[blobstore.Ino]row)
	err := d.run(ctx, op, once, statement{sql: sql, args: append(args, d.open()), each: func(rows pgx.Rows) error {
		r := row{losses: losses}
		err := r.scan(rows)
		dropped[r.attr.Ino] = r
		return err
	}})
	d.changes.Add(1)
	if err != nil { // the rows came before the commit, so they say nothing
		return err
	}
	for _, r := range dropped {
		going.becomes(r.attr)
		if b := d.peek(r.attr.Ino); b != nil {
			b.renamed(r)
			d.forget(b)
		}
		if r.attr.Nlink == 0 && r.attr.IsRegular() {
			d.collectSoon()
		}
	}
	return nil
}

// Readlink is one round trip.
func (d *Drive) Readlink(ctx context.Context, ino blobstore.Ino) (string, error) {
	var target []byte
	var found bool
	b := d.peek(ino)
	if err := b.settle(ctx); err != nil {
		return "", err
	}
	err := d.run(ctx, "readlink", reading, statement{
		sql:  "select n.target from mediafs.nodes n where n.drive_id = $1 and n.ino = $2 and (n.nlink > 0 or $3)",
		args: []any{d.id, int64(ino), b.isOpen()},
		each: func(r pgx.Rows) error { found = true; return r.Scan(&target) },
	})
	switch {
	case err != nil:
		return "", err
	case !found:
		return "", translate(ctx, "readlink", blobstore.ErrNotExist)
	case target == nil:
		return "", translate(ctx, "readlink", blobstore.ErrInvalid)
	}
	return string(target), nil
}

func checkName(op, name string) error {
	if err := blobstore.CheckName(name); err != nil {
		return fmt.Errorf("pgstore: %s: %w", op, err)
	}
	return nil
}
