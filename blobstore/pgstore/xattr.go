package pgstore

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore"
)

// GetXattr is one round trip.
func (d *Drive) GetXattr(ctx context.Context, ino blobstore.Ino, name string) ([]byte, error) {
	if strings.HasPrefix(name, blobstore.XattrFacts) {
		return d.fact(ctx, ino, name)
	}
	if d.peek(ino).isMaking() {
		return nil, translate(ctx, "get xattr", blobstore.ErrNoXattr)
	}
	var value []byte
	var found bool
	err := d.run(ctx, "get xattr", reading, statement{
		sql: `select x.value from mediafs.nodes n left join mediafs.xattrs x on x.drive_id = $1 and x.ino = $2 and x.name = $3
			where n.drive_id = $1 and n.ino = $2 and (n.nlink > 0 or $4)`,
		args: []any{d.id, int64(ino), []byte(name), d.peek(ino).isOpen()},
		each: func(r pgx.Rows) error { found = true; return r.Scan(&value) },
	})
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, translate(ctx, "get xattr", blobstore.ErrNotExist)
	case value == nil:
		return nil, translate(ctx, "get xattr", blobstore.ErrNoXattr)
	}
	return value, nil
}

// fact reads what blobstore.XattrFacts promises.
func (d *Drive) fact(ctx context.Context, ino blobstore.Ino, name string) ([]byte, error) {
	if err := d.peek(ino).settle(ctx); err != nil {
		return nil, err
	}
	var found, regular bool
	var count, atNs int64
	err := d.run(ctx, "get xattr", reading, statement{
		sql: `select n.mode & 61440 = 32768, coalesce(a.count, 0), coalesce(a.at_ns, 0)
			from mediafs.nodes n left join mediafs.accesses a on a.drive_id = $1 and a.ino = $2
			where n.drive_id = $1 and n.ino = $2 and (n.nlink > 0 or $3)`,
		args: []any{d.id, int64(ino), d.peek(ino).isOpen()},
		each: func(r pgx.Rows) error { found = true; return r.Scan(&regular, &count, &atNs) },
	})
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, translate(ctx, "get xattr", blobstore.ErrNotExist)
	case regular && name == blobstore.XattrAccessCount:
		return strconv.AppendInt(nil, count, 10), nil
	case regular && name == blobstore.XattrLastAccessed && count > 0:
		return time.Unix(0, atNs).UTC().AppendFormat(nil, time.RFC3339Nano), nil
	}
	return nil, translate(ctx, "get xattr", blobstore.ErrNoXattr)
}

// SetXattr is one round trip.
func (d *Drive) SetXattr(ctx context.Context, ino blobstore.Ino, name string, value []byte, mode blobstore.XattrMode) error {
	switch {
	case name == "":
		return translate(ctx, "set xattr", blobstore.ErrInvalid)
	case strings.HasPrefix(name, blobstore.XattrFacts):
		return translate(ctx, "set xattr", blobstore.ErrPermission)
	case len(name) > blobstore.MaxXattrName || len(value) > blobstore.MaxXattrValue:
		return translate(ctx, "set xattr", blobstore.ErrTooBig)
	}
	if value == nil {
		value = []byte{}
	}
	c := once
	if mode == blobstore.XattrSet {
		c = repeating
	}
	going, err := d.change(func() (bool, error) { return d.settleNode(ctx, ino) }, nodeKey(ino))
	if err != nil {
		return err
	}
	defer going.over()
	defer d.peek(ino).leftUnsure()
	defer d.changes.Add(1)
	return d.run(ctx, "set xattr", c, statement{
		sql:  "select mediafs.set_xattr($1, $2, $3, $4, $5, $6, $7)",
		args: []any{d.id, int64(ino), []byte(name), value, int32(mode), d.peek(ino).isOpen(), time.Now().UnixNano()},
	})
}

// ListXattr is one round trip.
func (d *Drive) ListXattr(ctx context.Context, ino blobstore.Ino) ([]string, error) {
	if d.peek(ino).isMaking() {
		return nil, nil
	}
	var names []string
	var found bool
	err := d.run(ctx, "list xattrs", reading, statement{
		sql: `select x.name from mediafs.nodes n left join mediafs.xattrs x on x.drive_id = $1 and x.ino = $2
			where n.drive_id = $1 and n.ino = $2 and (n.nlink > 0 or $3)`,
		args: []any{d.id, int64(ino), d.peek(ino).isOpen()},
		each: func(r pgx.Rows) error {
			found = true
			var name []byte
			if err := r.Scan(&name); err != nil || name == nil {
				return err
			}
			names = append(names, string(name))
			return nil
		},
	})
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, translate(ctx, "list xattrs", blobstore.ErrNotExist)
	}
	return names, nil
}

// RemoveXattr is one round trip.
func (d *Drive) RemoveXattr(ctx context.Context, ino blobstore.Ino, name string) error {
	if strings.HasPrefix(name, blobstore.XattrFacts) {
		return translate(ctx, "remove xattr", blobstore.ErrPermission)
	}
	going, err := d.change(func() (bool, error) { return d.settleNode(ctx, ino) }, nodeKey(ino))
	if err != nil {
		return err
	}
	defer going.over()
	defer d.peek(ino).leftUnsure()
	defer d.changes.Add(1)
	return d.run(ctx, "remove xattr", once, statement{
		sql:  "select mediafs.remove_xattr($1, $2, $3, $4, $5)",
		args: []any{d.id, int64(ino), []byte(name), d.peek(ino).isOpen(), time.Now().UnixNano()},
	})
}
