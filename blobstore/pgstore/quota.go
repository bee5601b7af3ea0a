package pgstore

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/semaphore"

	"mediafs/blobstore"
)

// The database holds a drive to its quota (migrations/015_quota.sql), and a mount foresees it: what is written is stored later, and whoever
// writes is to be told at once that there is no room. So a mount adds to what the database last told of the drive all that it may have added
// since: of each chunk that is written, all. That is never less than what the database will count, if no other mount writes. While it fits,
// nobody waits for anything. When it does not, what is pending is stored, the database asked, and if it still does not fit, each piece is stored as it
// is written: what the database counts decides. Of new files it is the same.

// besideOthers is how much another mount is thought to have added since the database was last asked. One that added more is not foreseen: whoever wrote then
// is told when the file is closed.
const besideOthers = 16 << 20

// errTight says that a write does not fit for certain.
var errTight = errors.New("pgstore: the drive may have no room")

// quota is what a mount knows of what its drive may hold, and does.
type quota struct {
	last  atomic.Pointer[quotaAnswer]
	bytes tally
	nodes tally
	exact *semaphore.Weighted // held by the one who writes what may not fit
}

func newQuota() *quota {
	q := &quota{exact: semaphore.NewWeighted(1)}
	q.last.Store(&quotaAnswer{})
	return q
}

// A tally counts what this mount may add to the drive: all that was ever begun, and what of that is over, stored or not. What was over before the
// database was asked is in its answer.
type tally struct{ begun, over atomic.Int64 }

// underWay is how much is begun and not over.
func (t *tally) underWay() int64 {
	over := t.over.Load() // first: what is over was begun
	return t.begun.Load() - over
}

// A quotaAnswer is what the database told.
type quotaAnswer struct {
	maxBytes, maxNodes   int64 // 0: no limit
	bytes, nodes         int64
	overBytes, overNodes int64 // of the tallies, before it was asked
	asked                time.Time
}

// asking begins an answer.
func (q *quota) asking() *quotaAnswer {
	return &quotaAnswer{overBytes: q.bytes.over.Load(), overNodes: q.nodes.over.Load(), asked: time.Now()}
}

// answered takes an answer in, unless there is one to a later question.
func (q *quota) answered(a *quotaAnswer) {
	for {
		last := q.last.Load()
		if last.asked.After(a.asked) || q.last.CompareAndSwap(last, a) {
			return
		}
	}
}

// hasMoved says that this mount has added something to a drive with limits, or tried to, since the database told this.
func (q *quota) hasMoved(since *quotaAnswer) bool {
	return since.maxBytes > 0 && q.bytes.begun.Load() != since.overBytes || since.maxNodes > 0 && q.nodes.begun.Load() != since.overNodes
}

// askQuota asks the database what the drive holds, and may hold.
func (d *Drive) askQuota(ctx context.Context) error {
	a := d.quota.asking()
	err := d.run(ctx, "usage", reading, statement{
		sql: `select coalesce(sum(u.bytes), 0)::bigint, coalesce(sum(u.nodes), 0)::bigint, coalesce(max(d.max_bytes), 0), coalesce(max(d.max_nodes), 0)
			from mediafs.usage u join mediafs.drives d on d.drive_id = u.drive_id where u.drive_id = $1`,
		args: []any{d.id},
		each: func(r pgx.Rows) error { return r.Scan(&a.bytes, &a.nodes, &a.maxBytes, &a.maxNodes) },
	})
	if err == nil {
		d.quota.answered(a)
	}
	return err
}

// fits begins to add n bytes to the drive, if it has room for them for certain. A drive without a limit always has.
func (d *Drive) fits(ctx context.Context, n int64) bool {
	begun := d.quota.bytes.begun.Add(n)
	if d.quota.last.Load().maxBytes == 0 {
		return true
	}
	others := int64(besideOthers)
	if d.isSole(ctx, d.known.currentEra()) { // which may ask the database
		others = 0
	}
	a := d.quota.last.Load()
	if a.maxBytes == 0 || a.bytes+begun-a.overBytes+others <= a.maxBytes {
		return true
	}
	d.quota.bytes.begun.Add(-n)
	return false
}

// beginNode begins to add a node to the drive, and says whether it has room for it for certain, if no other mount makes any. It is over with
// quota.nodes.over.
func (d *Drive) beginNode() bool {
	begun := d.quota.nodes.begun.Add(1)
	a := d.quota.last.Load()
	return a.maxNodes == 0 || a.nodes+begun-a.overNodes <= a.maxNodes
}

// storePending stores what is pending of all files. Who wrote what can't be stored is told when they go on with it.
func (d *Drive) storePending(ctx context.Context) {
	for _, b := range d.pendingBlobs() {
		if err := b.store(ctx, everything); err != nil {
			d.log.Debug("could not store what was written", "ino", uint64(b.ino), "error", err)
		}
	}
}

// writeTight is WriteAt where it is not certain that the drive has room. Nobody else writes to the file meanwhile.
func (b *blob) writeTight(ctx context.Context, p []byte, off int64) (int, error) {
	if err := b.drive.quota.exact.Acquire(ctx, 1); err != nil {
		return 0, translate(ctx, "write", err)
	}
	defer b.drive.quota.exact.Release(1)
	b.gate.Lock()
	defer b.gate.Unlock()
	var written int
	for written < len(p) {
		n, err := b.write(ctx, p[written:], off+int64(written), false)
		if errors.Is(err, errTight) {
			n, err = b.writeStored(ctx, p[written:], off+int64(written))
		}
		if err != nil && written == 0 {
			return 0, err
		} else if err != nil {
			break // the next write gives the error
		}
		written += n
	}
	return written, nil
}

// writeStored writes as much of p as falls in one chunk, and fits, and stores it. With gate, alone.
func (b *blob) writeStored(ctx context.Context, p []byte, off int64) (int, error) {
	d := b.drive
	if err := b.store(ctx, everything); err != nil {
		return 0, err
	}
	d.storePending(ctx)
	if err := d.askQuota(ctx); err != nil {
		return 0, err
	}
	n, err := b.write(ctx, p, off, false)
	if !errors.Is(err, errTight) {
		return n, err
	}
	n, err = b.tryStored(ctx, p, off)
	if !errors.Is(err, blobstore.ErrQuota) {
		return n, err
	}
	part, asking := b.fitting(ctx, off)
	if asking != nil {
		return 0, asking
	}
	if part <= 0 || part >= int64(len(p)) {
		return 0, err
	}
	return b.tryStored(ctx, p[:part], off)
}

// tryStored writes as much of p as falls in one chunk and stores it. Nothing else of the file is pending. ErrQuota: the drive has no room for it, and it is
// as if it had not been written. With gate, alone.
func (b *blob) tryStored(ctx context.Context, p []byte, off int64) (int, error) {
	b.mu.Lock()
	before := b.attr
	b.mu.Unlock()
	n, err := b.write(ctx, p, off, true)
	if err != nil {
		return 0, err
	}
	refused := b.store(ctx, everything)
	if !errors.Is(refused, blobstore.ErrQuota) {
		return n, nil // what else keeps it from being stored, is for who closes the file
	}
	if err := b.land(ctx); err != nil { // leaves mu locked
		return 0, err
	}
	defer b.mu.Unlock()
	if len(b.dirty) == 0 {
		return n, nil // the background has stored it meanwhile
	}
	b.discard(0)
	b.failing, b.mtimePending = nil, false
	b.attr.Size, b.attr.MtimeNs, b.attr.CtimeNs = before.Size, before.MtimeNs, before.CtimeNs
	b.version++
	return 0, refused
}

// fitting is how many bytes can be written at off, by what the database knows now, before the drive or the chunk is full.
func (b *blob) fitting(ctx context.Context, off int64) (int64, error) {
	d := b.drive
	if err := d.askQuota(ctx); err != nil {
		return 0, err
	}
	b.mu.Lock()
	number := b.number
	b.mu.Unlock()
	var length int64 // of the chunk
	err := d.run(ctx, "write", reading, statement{
		sql:  "select octet_length(c.data)::bigint from mediafs.chunks c where c.drive_id = $1 and c.blob = $2 and c.idx = $3",
		args: []any{d.id, number, int32(off / d.chunk)},
		each: func(r pgx.Rows) error { return r.Scan(&length) },
	})
	a := d.quota.last.Load()
	return length + max(a.maxBytes-a.bytes, 0) - off%d.chunk, err
}
