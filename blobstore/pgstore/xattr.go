package pgstore

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore"
)

// GetXattr is one round trip.
func (d *Drive) GetXattr(ctx context.Context, ino blobstore.Ino, name string) ([]byte, error) {
	if strings.HasPrefix(name, blobstore.XattrFacts) {
		facts, err := d.facts(ctx, "get xattr", ino)
		if err != nil {
			return nil, err
		}
		value, ok := facts[name]
		if !ok {
			return nil, translate(ctx, "get xattr", blobstore.ErrNoXattr)
		}
		return []byte(value), nil
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

// selectFacts is what there is to know of a node but its own attributes; $3: it is open here.
const selectFacts = `select n.mode & 61440 = 32768, n.job, mediafs.asset_id(d.asset_key, n.drive_id, n.ino), n.created_ns, n.described,
		f.mime_type, f.sha256, f.width, f.height, f.taken_ns, coalesce(a.count, 0), coalesce(a.at_ns, 0)
	from mediafs.nodes n join mediafs.drives d on d.drive_id = $1
		left join mediafs.facts f on f.drive_id = $1 and f.ino = $2
		left join mediafs.accesses a on a.drive_id = $1 and a.ino = $2
	where n.drive_id = $1 and n.ino = $2 and (n.nlink > 0 or $3)`

// facts are the attributes of a node that blobstore.XattrFacts promises: those of its content as long as they are of what it is now.
func (d *Drive) facts(ctx context.Context, op string, ino blobstore.Ino) (map[string]string, error) {
	if err := d.peek(ino).settle(ctx); err != nil {
		return nil, err
	}
	facts := make(map[string]string)
	var found bool
	err := d.run(ctx, op, reading, statement{
		sql: selectFacts, args: []any{d.id, int64(ino), d.peek(ino).isOpen()},
		each: func(r pgx.Rows) error {
			found = true
			return scanFacts(r, facts)
		},
	})
	if err == nil && !found {
		err = translate(ctx, op, blobstore.ErrNotExist)
	}
	return facts, err
}

// scanFacts reads a row of selectFacts.
func scanFacts(r pgx.Rows, facts map[string]string) error {
	var regular, described bool
	var job, kind *string
	var id [16]byte
	var created, count, at int64
	var sum []byte
	var width, height *int32
	var taken *int64
	if err := r.Scan(&regular, &job, &id, &created, &described, &kind, &sum, &width, &height, &taken, &count, &at); err != nil {
		return err
	}
	if job != nil {
		facts[blobstore.XattrJob] = *job
	}
	if !regular {
		return nil
	}
	moment := func(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }
	facts[blobstore.XattrID] = blobstore.AssetID(id).String()
	facts[blobstore.XattrCreated] = moment(created)
	facts[blobstore.XattrAccessCount] = strconv.FormatInt(count, 10)
	if count > 0 {
		facts[blobstore.XattrLastAccessed] = moment(at)
	}
	if !described || kind == nil {
		return nil
	}
	if *kind != "" {
		facts[blobstore.XattrType] = *kind
	}
	facts[blobstore.XattrSHA256] = hex.EncodeToString(sum)
	if width != nil && height != nil {
		facts[blobstore.XattrWidth], facts[blobstore.XattrHeight] = strconv.Itoa(int(*width)), strconv.Itoa(int(*height))
	}
	if taken != nil {
		facts[blobstore.XattrTaken] = moment(*taken)
	}
	return nil
}

// SetXattr is one round trip.
func (d *Drive) SetXattr(ctx context.Context, ino blobstore.Ino, name string, value []byte, mode blobstore.XattrMode) error {
	s := statement{sql: "select mediafs.set_xattr($1, $2, $3, $4, $5, $6, $7)"}
	switch {
	case name == "":
		return translate(ctx, "set xattr", blobstore.ErrInvalid)
	case name == blobstore.XattrJob:
		if len(value) == 0 {
			return fmt.Errorf("pgstore: set xattr: a job id has at least a character: %w", blobstore.ErrInvalid)
		}
		if err := blobstore.CheckJob(string(value)); err != nil {
			return fmt.Errorf("pgstore: set xattr: %w", err)
		}
		s.sql = "select mediafs.set_job($1, $2, $3, $4, $5, $6)"
		s.args = []any{d.id, int64(ino), string(value), int32(mode), d.peek(ino).isOpen(), time.Now().UnixNano()}
	case strings.HasPrefix(name, blobstore.XattrFacts):
		return translate(ctx, "set xattr", blobstore.ErrPermission)
	case len(name) > blobstore.MaxXattrName || len(value) > blobstore.MaxXattrValue:
		return translate(ctx, "set xattr", blobstore.ErrTooBig)
	default:
		if value == nil {
			value = []byte{}
		}
		s.args = []any{d.id, int64(ino), []byte(name), value, int32(mode), d.peek(ino).isOpen(), time.Now().UnixNano()}
	}
	c := once
	if mode == blobstore.XattrSet {
		c = repeating
	}
	return d.changeXattr(ctx, "set xattr", c, ino, s)
}

// ListXattr is one round trip: of a regular file, or a folder that may have a job, all that is known of it is listed too.
func (d *Drive) ListXattr(ctx context.Context, ino blobstore.Ino) ([]string, error) {
	if err := d.peek(ino).settle(ctx); err != nil {
		return nil, err
	}
	var names []string
	facts := make(map[string]string)
	var found bool
	open := d.peek(ino).isOpen()
	err := d.run(ctx, "list xattrs", reading, statement{
		sql:  selectFacts,
		args: []any{d.id, int64(ino), open},
		each: func(r pgx.Rows) error { found = true; return scanFacts(r, facts) },
	}, statement{
		sql:  "select x.name from mediafs.xattrs x where x.drive_id = $1 and x.ino = $2",
		args: []any{d.id, int64(ino)},
		each: func(r pgx.Rows) error {
			var name []byte
			if err := r.Scan(&name); err != nil {
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
	for name := range facts {
		names = append(names, name)
	}
	return names, nil
}

// RemoveXattr is one round trip.
func (d *Drive) RemoveXattr(ctx context.Context, ino blobstore.Ino, name string) error {
	s := statement{
		sql:  "select mediafs.remove_xattr($1, $2, $3, $4, $5)",
		args: []any{d.id, int64(ino), []byte(name), d.peek(ino).isOpen(), time.Now().UnixNano()},
	}
	switch {
	case name == blobstore.XattrJob:
		s.sql = "select mediafs.set_job($1, $2, null, $3, $4, $5)"
		s.args = []any{d.id, int64(ino), int32(blobstore.XattrReplace), d.peek(ino).isOpen(), time.Now().UnixNano()}
	case strings.HasPrefix(name, blobstore.XattrFacts):
		return translate(ctx, "remove xattr", blobstore.ErrPermission)
	}
	return d.changeXattr(ctx, "remove xattr", once, ino, s)
}

// changeXattr runs a statement that changes an attribute of a node. A file that the database does not have yet is made first, and so are those of a folder:
// they have the job that it had.
func (d *Drive) changeXattr(ctx context.Context, op string, c commit, ino blobstore.Ino, s statement) error {
	going, err := d.change(func() (bool, error) { return d.settleNode(ctx, ino) }, nodeKey(ino))
	if err != nil {
		return err
	}
	defer going.over()
	defer d.peek(ino).leftUnsure()
	defer d.changes.Add(1)
	return d.run(ctx, op, c, s)
}
