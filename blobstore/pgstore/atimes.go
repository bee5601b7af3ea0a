package pgstore

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"mediafs/blobstore"
)

// atimeBatch is how many times of access are stored in one transaction.
const atimeBatch = 2000

// atimes are the times of access that reading has moved (blobstore.AtimeDue) and that are not stored yet. They go with the beat, all in
// one statement, so reading costs no round trip of its own. A mount that is killed loses those of the last seconds, as with lazytime of
// mount(8).
type atimes struct {
	mu    sync.Mutex // guards moved
	moved map[blobstore.Ino]movedAtime
}

// A movedAtime goes from what the database has to when the node was read. If the database has something else by now, somebody has
// set it, and that stays.
type movedAtime struct{ from, to int64 }

// read moves the time of access of a node that is being read, if it is due.
func (a *atimes) read(attr *blobstore.Attr) {
	now := time.Now().UnixNano()
	if !blobstore.AtimeDue(attr, now) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.moved == nil {
		a.moved = make(map[blobstore.Ino]movedAtime)
	}
	from := attr.AtimeNs
	if last, ok := a.moved[attr.Ino]; ok && last.to == from {
		from = last.from
	}
	a.moved[attr.Ino] = movedAtime{from, now}
	attr.AtimeNs = now
}

// over puts what is not stored yet on top of a node as the database has it.
func (a *atimes) over(attr *blobstore.Attr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m, ok := a.moved[attr.Ino]; ok && m.from == attr.AtimeNs {
		attr.AtimeNs = m.to
	}
}

// set forgets what reading has moved: somebody has set the time.
func (a *atimes) set(ino blobstore.Ino) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.moved, ino)
}

// some are up to atimeBatch of what is to be stored, in the order of the nodes.
func (a *atimes) some() (inos, from, to []int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, ino := range slices.Sorted(maps.Keys(a.moved)) {
		if len(inos) == atimeBatch {
			break
		}
		m := a.moved[ino]
		inos, from, to = append(inos, int64(ino)), append(from, m.from), append(to, m.to)
	}
	return inos, from, to
}

// stored takes note of what is in the database.
func (a *atimes) stored(inos, to []int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, ino := range inos {
		m, ok := a.moved[blobstore.Ino(ino)]
		switch {
		case !ok:
		case m.to == to[i]:
			delete(a.moved, blobstore.Ino(ino))
		default: // read again meanwhile
			a.moved[blobstore.Ino(ino)] = movedAtime{to[i], m.to}
		}
	}
}

// storeAtimes stores all times of access that reading has moved.
func (d *Drive) storeAtimes(ctx context.Context) error {
	for {
		inos, from, to := d.atimes.some()
		if len(inos) == 0 {
			return nil
		}
		keys := make([]knownName, len(inos))
		for i, ino := range inos {
			keys[i] = nodeKey(blobstore.Ino(ino))
		}
		going := d.known.change(keys...)
		err := d.run(ctx, "store times of access", repeating, statement{
			sql: `update mediafs.nodes n set atime_ns = m.to_ns
				from unnest($2::bigint[], $3::bigint[], $4::bigint[]) m (ino, from_ns, to_ns)
				where n.drive_id = $1 and n.ino = m.ino and n.atime_ns = m.from_ns`,
			args: []any{d.id, inos, from, to},
		})
		if err == nil {
			d.atimes.stored(inos, to)
		}
		going.over()
		if err != nil {
			return err
		}
	}
}
