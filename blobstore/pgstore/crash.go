package pgstore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/semaphore"
)

// A server that crashes takes back the last commits that did not wait for the disk, and whatever was said of them is wrong then. Nothing
// tells a client so: its connections break, as they do for other reasons, and the pool makes new ones. But no connection outlives a crash. So
// each connection of a store holds an advisory lock with all the others of that store, and a new one that finds nobody holding it comes after a
// crash, or after all others have ended. That is found out before anything is asked over it: whatever the server that was started again answers, comes after.

// crashes counts how often the server may have crashed since the store was opened.
type crashes struct {
	count atomic.Uint64
	key   int64 // of the advisory lock

	connecting *semaphore.Weighted // held while a connection looks for the others
}

func newCrashes() (*crashes, error) {
	var random [8]byte
	_, err := rand.Read(random[:])
	return &crashes{key: int64(binary.BigEndian.Uint64(random[:])), connecting: semaphore.NewWeighted(1)}, err
}

// connected is for each new connection. One that is dead already does not hold up the next for longer than connectTimeout.
func (c *crashes) connected(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := c.connecting.Acquire(ctx, 1); err != nil {
		return err
	}
	defer c.connecting.Release(1)
	var alone bool
	err := conn.QueryRow(ctx, `select f.alone, pg_advisory_lock_shared($1)::text, case when f.alone then pg_advisory_unlock($1) end
		from (select pg_try_advisory_lock($1) as alone offset 0) f`, c.key).Scan(&alone, nil, nil)
	if err != nil || alone { // without an answer it is not known, and the next may find the lock of this one
		c.count.Add(1)
	}
	return err
}

// hearOfCrash is to be called once the server has answered, before the answer is used.
func (d *Drive) hearOfCrash() {
	count := d.store.crashes.count.Load()
	if d.crash.heard.Load() == count {
		return
	}
	d.crash.mu.Lock()
	defer d.crash.mu.Unlock()
	if d.crash.heard.Load() != count {
		d.mayHaveLost()
		d.crash.heard.Store(count)
	}
}

// mayHaveLost notes that the server may have crashed. If commits that did not wait for the disk may be lost with it, nothing that is known is current.
func (d *Drive) mayHaveLost() {
	commits := d.commits.Load()
	if d.durable.Load() < commits {
		d.losses.Add(1)
		d.isDurable(commits) // what is not lost is on the disk when the server is back
		d.known.newEra()
	}
}

// committed notes that the server has said that a change is committed which did not wait for the disk, and was sent when it had crashed so many times.
func (d *Drive) committed(crashes uint64) {
	d.commits.Add(1)
	if d.store.crashes.count.Load() != crashes { // that may have been heard of before this was counted
		d.crash.mu.Lock()
		defer d.crash.mu.Unlock()
		d.mayHaveLost()
	}
}
