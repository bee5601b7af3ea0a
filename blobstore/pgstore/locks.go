package pgstore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore"
	"mediafs/blobstore/locktable"
)

// locks are the file locks that this mount holds. Who of this machine holds what is in the table; the database has for each node what the
// mount holds as a whole, and is asked only when nobody here is in the way (migrations/010_locks.sql).
type locks struct {
	table locktable.Table
	seq   atomic.Int64 // counts claims

	heard  atomic.Int64  // sinceBoot: when what the database last answered to a beat was sent
	losses atomic.Uint64 // Drive.losses then

	calling atomic.Bool // a change beats first, see breakSilence
}

const (
	// sureFor is how long after a beat nobody can have taken this mount for dead: less than the 30 s after which others do.
	sureFor = 20 * time.Second

	// claimLimit is of asking the database for locks once, however long the one who wants them would wait for another's: whoever
	// closes a file meanwhile waits for that.
	claimLimit = 10 * time.Second
)

// errLockLost is what becomes of files on which locks were held that another mount has now.
var errLockLost = fmt.Errorf("a lock on the file was lost while the database could not be reached, and another mount has it: %w", blobstore.ErrUnavailable)

var _ blobstore.Locker = (*Drive)(nil)

// SetLock is one round trip, unless somebody of this mount is in the way, or there is something to be stored before.
func (d *Drive) SetLock(ctx context.Context, ino blobstore.Ino, lock blobstore.Lock, wait bool) (uint64, error) {
	const op = "lock"
	b := d.peek(ino)
	if err := b.lockLost(); err != nil {
		return 0, translate(ctx, op, err)
	}
	if err := b.settle(ctx); err != nil {
		return 0, err
	}
	if lock.Type != blobstore.LockWrite && b.isPending() {
		if err := b.store(ctx, everything); err != nil {
			return 0, err
		}
	}
	if err := d.locks.table.Set(ctx, ino, locktable.Held{Lock: lock}, wait); err != nil {
		if !errors.Is(err, blobstore.ErrLocked) && !errors.Is(err, blobstore.ErrDeadlock) {
			d.settleSoon()
		}
		return 0, translate(ctx, op, err)
	}
	return b.foreignChanges(), nil
}

// TestLock asks the database if nobody here is in the way.
func (d *Drive) TestLock(ctx context.Context, ino blobstore.Ino, lock blobstore.Lock) (blobstore.Lock, error) {
	if err := lock.Check(); err != nil {
		return lock, translate(ctx, "test lock", err)
	}
	if held := d.locks.table.Test(ino, locktable.Held{Lock: lock}); held != nil {
		return held.Lock, nil
	}
	c := conflict{kind: lock.Kind}
	low, high, _, flock, exclusive := columns([]locktable.Held{{Lock: lock}})
	err := d.run(ctx, "test lock", reading, statement{
		sql:  "select * from mediafs.lock_conflict($1, $2, $3, $4, $5, $6, $7, false)",
		args: []any{d.id, int64(ino), d.mount, low, high, flock, exclusive},
		each: c.scan,
	})
	return c.lock, err
}

// ReleaseLocks stores what is pending, so that whoever locks next sees it, and lets the locks go.
func (d *Drive) ReleaseLocks(ctx context.Context, ino blobstore.Ino, kind blobstore.LockKind, owner uint64) {
	ctx, cancel := context.WithTimeout(ctx, claimLimit)
	defer cancel()
	if b := d.peek(ino); b.isPending() && d.locks.table.Holds(ino) {
		_ = b.store(ctx, everything) // claim has the database keep the lock if that failed
	}
	err := d.locks.table.Drop(ctx, ino, func(h locktable.Held) bool { return h.Kind == kind && h.Owner == owner })
	if err != nil {
		d.settleSoon()
	}
}

// A conflict is a lock that is in the way.
type conflict struct {
	kind  blobstore.LockKind
	lock  blobstore.Lock
	found bool
}

func (c *conflict) scan(rows pgx.Rows) error {
	var flock, exclusive bool
	c.found = true
	c.lock.Type = blobstore.LockRead
	err := rows.Scan(&c.lock.Start, &c.lock.End, &flock, &exclusive)
	if exclusive {
		c.lock.Type = blobstore.LockWrite
	}
	if flock {
		c.lock.Kind = blobstore.LockFlock
	}
	return err
}

// columns are locks as the database takes them.
func columns(held []locktable.Held) (low, high, pid []int64, flock, exclusive []bool) {
	low, high, pid = make([]int64, len(held)), make([]int64, len(held)), make([]int64, len(held))
	flock, exclusive = make([]bool, len(held)), make([]bool, len(held))
	for i, h := range held {
		low[i], high[i], pid[i] = h.Start, h.End, int64(h.Pid)
		flock[i], exclusive[i] = h.Kind == blobstore.LockFlock, h.Type == blobstore.LockWrite
	}
	return low, high, pid, flock, exclusive
}

// claim makes what this mount holds of a node those locks, and learns what has become of the node since: one round trip.
func (d *Drive) claim(ctx context.Context, ino blobstore.Ino, held []locktable.Held, grows bool) (*blobstore.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, claimLimit)
	defer cancel()
	b := d.peek(ino)
	if err := b.notStored(); err != nil && len(held) == 0 {
		return nil, err
	}
	low, high, pid, flock, exclusive := columns(held)
	version := b.currentVersion()
	var c conflict
	r := row{losses: d.losses.Load()}
	statements := []statement{{
		sql:  "select * from mediafs.lock($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
		args: []any{d.id, int64(ino), d.mount, d.locks.seq.Add(1), low, high, pid, flock, exclusive, !grows},
		each: c.scan,
	}}
	if b != nil && len(held) > 0 {
		statements = append(statements, statement{sql: selectNode, args: []any{d.id, int64(ino)}, each: func(rows pgx.Rows) error { return r.scan(rows) }})
	}
	if err := d.run(ctx, "lock", repeating, statements...); err != nil {
		return nil, err
	}
	if c.found {
		return &c.lock, nil
	}
	if r.found {
		if _, ok := b.overlay(r, version); !ok { // something was stored meanwhile: ask again
			_, err := d.Attr(ctx, ino)
			return nil, err
		}
	}
	return nil, nil
}

// settleSoon has the keeper find out what is held of nodes of which that is not known.
func (d *Drive) settleSoon() {
	select {
	case d.settle <- struct{}{}:
	default: // it is about to
	}
}

// settleLocks claims what is not known to be as it should.
func (d *Drive) settleLocks(ctx context.Context) error {
	return d.locks.table.Settle(ctx, false, d.loseLocks)
}

// beat says that this mount is alive, which files it has open and on which it holds locks. If it was silent for so long that others could
// take it for dead, or the server has started anew, it claims its locks again first; those that another mount has now are lost.
func (d *Drive) beat(ctx context.Context) error {
	sent, losses := sinceBoot(), d.losses.Load()
	alive, err := d.hold(ctx, losses != d.locks.losses.Load() && len(d.locks.table.Nodes()) > 0, false)
	if err == nil && !alive {
		if err = d.locks.table.Settle(ctx, true, d.loseLocks); err == nil {
			_, err = d.hold(ctx, false, true)
		}
	}
	if err == nil {
		d.locks.heard.Store(sent)
		d.locks.losses.Store(losses)
	}
	return err
}

// hold tells the database which files are open and which locks are held, unless the mount has been silent for too long: false.
func (d *Drive) hold(ctx context.Context, silent, again bool) (alive bool, err error) {
	if silent {
		return false, nil
	}
	seq, locked := d.locks.seq.Load(), d.locks.table.Nodes()
	inos := make([]int64, len(locked))
	for i, ino := range locked {
		inos[i] = int64(ino)
	}
	how := repeating
	how.durable = d.locks.heard.Load() == 0 // others must not be alone again after a crash of the server
	err = d.run(ctx, "beat", how, statement{
		sql:  "select mediafs.hold($1, $2, $3, $4, $5, $6, $7)",
		args: []any{d.id, d.mount, d.store.host, d.open(), inos, seq, again},
		each: func(r pgx.Rows) error { return r.Scan(&alive) },
	})
	return alive, err
}

// isSilent says whether the last beat was so long ago that others may soon take this mount for dead.
func (d *Drive) isSilent() bool { return sinceBoot()-d.locks.heard.Load() > int64(sureFor) }

// breakSilence beats before a change if the last beat was too long ago: another mount may have begun to think that it is alone (sole.go).
func (d *Drive) breakSilence(ctx context.Context) error {
	if d.guest || d.locks.heard.Load() == 0 || !d.isSilent() || !d.locks.calling.CompareAndSwap(false, true) {
		return nil
	}
	defer d.locks.calling.Store(false)
	return d.beat(ctx)
}

// sure returns when what is held of a node is held for certain; it beats if the last beat was too long ago, or the server may have lost
// locks. Who has lost one gets errLockLost. Nothing is stored or read under a lock but after this.
func (d *Drive) sure(ctx context.Context, b *blob) error {
	if err := b.lockLost(); err != nil {
		return translate(ctx, "use a locked file", err)
	}
	if !d.locks.table.Holds(b.ino) ||
		!d.isSilent() && d.locks.losses.Load() == d.losses.Load() {
		return nil
	}
	if err := d.beat(ctx); err != nil {
		return err
	}
	return b.lockLost()
}

// loseLocks has a file fail that another mount has locked: until it is closed, nothing is read from it, and what was written under the
// lock and is not stored is dropped, for it would be laid over what the other has written.
func (d *Drive) loseLocks(ino blobstore.Ino) {
	d.log.Error("a lock was lost while the database could not be reached: another mount has it; the file fails until it is closed", "ino", uint64(ino))
	b := d.peek(ino)
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.discard(0)
	b.mtimePending = false
	b.lost, b.failing = errLockLost, errLockLost
}

// lockLost is errLockLost of a file that has lost one. b may be nil.
func (b *blob) lockLost() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if errors.Is(b.lost, errLockLost) {
		return b.lost
	}
	return nil
}

// notStored is why what was written under a lock is not stored yet, if it still may be: until then the lock is not let go for others. b
// may be nil.
func (b *blob) notStored() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.pending() || b.failing == nil || isFinal(b.failing) {
		return nil
	}
	return b.failing
}

// foreignChanges counts how often another mount was found to have changed the file. b may be nil.
func (b *blob) foreignChanges() uint64 {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.foreign
}
