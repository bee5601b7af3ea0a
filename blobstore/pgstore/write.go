package pgstore

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"mediafs/blobstore"
)

const (
	batchBytes  = 2 << 20 // what one transaction stores at most, and how much has to be complete before it leaves by itself
	batchPieces = 256     // likewise in pieces: of each that is a part of its chunk, the database rewrites the whole

	// What a file grows by goes in several transactions, so many of them at a time: while the server stores one, the next is on its way.
	growBytes   = 8 * batchBytes
	growAtATime = 2
)

// A piece is what is written of one chunk and not stored yet.
type piece struct {
	data    []byte   // a chunk's length; only what extents cover means anything
	extents []extent // sorted, apart from each other
}

// An extent is the bytes [from, to) of a chunk.
type extent struct{ from, to int }

// bytes is how many are written.
func (p *piece) bytes() int64 {
	var n int
	for _, e := range p.extents {
		n += e.to - e.from
	}
	return int64(n)
}

// complete says whether the whole chunk is written.
func (p *piece) complete() bool {
	return len(p.extents) == 1 && p.extents[0] == extent{0, len(p.data)}
}

// add notes that [from, to) is written.
func (p *piece) add(from, to int) {
	merged := extent{from, to}
	kept := p.extents[:0:0]
	for _, e := range p.extents {
		if e.to < merged.from || merged.to < e.from {
			kept = append(kept, e)
		} else {
			merged = extent{min(e.from, merged.from), max(e.to, merged.to)}
		}
	}
	kept = append(kept, merged)
	slices.SortFunc(kept, func(a, b extent) int { return a.from - b.from })
	p.extents = kept
}

// lay puts what is written of a newer piece of the same chunk on top.
func (p *piece) lay(newer *piece) {
	for _, e := range newer.extents {
		copy(p.data[e.from:e.to], newer.data[e.from:e.to])
		p.add(e.from, e.to)
	}
}

// fill has the piece begin its chunk, as one extent: nothing is stored there, so what is not written is zero.
func (p *piece) fill() {
	end := 0
	for _, e := range p.extents {
		if e.from > end {
			clear(p.data[end:e.from])
		}
		end = e.to
	}
	p.extents = append(p.extents[:0:0], extent{0, end})
}

// cut drops what is written at n and after.
func (p *piece) cut(n int) {
	kept := p.extents[:0]
	for _, e := range p.extents {
		if e.from < n {
			kept = append(kept, extent{e.from, min(e.to, n)})
		}
	}
	p.extents = kept
}

// WriteAt keeps the bytes in memory. It waits when the budget is used up, and fails when what is pending can't be stored
// because there is no space. That the session has ended is no reason: it is for the mount to let nobody write any more, and what
// the kernel still has of what was written before is kept like the rest, to be stored with the next session.
func (f *File) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	switch {
	case off < 0:
		return 0, translate(ctx, "write", blobstore.ErrInvalid)
	case off > blobstore.MaxFileSize-int64(len(p)):
		return 0, translate(ctx, "write", blobstore.ErrTooLarge)
	}
	b := f.blob
	defer f.changes.Add(1)
	written, err := b.writeAll(ctx, p, off)
	if errors.Is(err, errTight) {
		var more int
		more, err = b.writeTight(ctx, p[written:], off+int64(written))
		written += more
	}
	if err != nil && written == 0 {
		return 0, err
	} // else the next write, or Flush, gives the error
	b.drive.changes.Add(1)
	b.mu.Lock()
	full := int64(b.complete)*b.drive.chunk >= batchBytes
	b.mu.Unlock()
	if full {
		b.storeInBackground(wholeBatches)
	}
	return written, nil
}

// writeAll keeps p, or as much of it as can be kept.
func (b *blob) writeAll(ctx context.Context, p []byte, off int64) (written int, err error) {
	b.gate.RLock()
	defer b.gate.RUnlock()
	for err == nil && written < len(p) {
		var n int
		n, err = b.write(ctx, p[written:], off+int64(written), false)
		written += n
	}
	return written, err
}

// write keeps as much of p as falls in one chunk. errTight: it is not certain that the drive has room for it. With anyway, that is not asked.
func (b *blob) write(ctx context.Context, p []byte, off int64, anyway bool) (int, error) {
	d := b.drive
	idx, from := int32(off/d.chunk), int(off%d.chunk)
	n := min(len(p), int(d.chunk)-from)

	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.failing == nil || !isFinal(b.failing) || isSessionEnd(b.failing):
	case errors.Is(b.failing, blobstore.ErrQuota) && b.lost == nil: // there may be room again
		if !anyway && b.pending() {
			return 0, errTight
		}
	default:
		return 0, b.failing
	}
	if b.dirty[idx] == nil {
		b.mu.Unlock()
		data, err := d.reserve(ctx, anyway)
		b.mu.Lock()
		if err != nil {
			return 0, err
		}
		if b.dirty[idx] == nil {
			if !b.pending() {
				b.since = time.Now()
			}
			b.dirty[idx] = &piece{data: data}
		} else {
			d.unreserve(data)
		}
	}
	piece := b.dirty[idx]
	was := piece.complete()
	copy(piece.data[from:], p[:n])
	piece.add(from, from+n)
	if !was && piece.complete() {
		b.complete++
	}
	b.attr.Size = max(b.attr.Size, off+int64(n))
	b.attr.MtimeNs = time.Now().UnixNano()
	b.attr.CtimeNs = b.attr.MtimeNs
	b.mtimePending = true
	return n, nil
}

// isFinal says whether trying again is pointless until somebody does something.
func isFinal(err error) bool {
	for _, final := range []error{blobstore.ErrNoSpace, blobstore.ErrQuota, blobstore.ErrReadOnly, blobstore.ErrStale, errLockLost} {
		if errors.Is(err, final) {
			return true
		}
	}
	return isSessionEnd(err)
}

// reserve takes memory for a piece from the budget. If there is none left it waits for what is pending to be stored; that it can't
// be, is then the error of whoever waits. errTight: it is not certain that the drive has room for the piece. With anyway, that is not asked.
func (d *Drive) reserve(ctx context.Context, anyway bool) ([]byte, error) {
	if anyway {
		d.quota.bytes.begun.Add(d.chunk)
	} else if !d.fits(ctx, d.chunk) {
		return nil, errTight
	}
	data, err := d.memory(ctx)
	if err != nil {
		d.quota.bytes.over.Add(d.chunk)
	}
	return data, err
}

func (d *Drive) memory(ctx context.Context) ([]byte, error) {
	if !d.store.pending.TryAcquire(d.chunk) {
		waiting, fail := context.WithCancelCause(ctx)
		defer fail(nil)
		defer d.waiters.add(fail)()
		for _, b := range d.pendingBlobs() {
			b.storeInBackground(everything)
		}
		if err := d.store.pending.Acquire(waiting, d.chunk); err != nil {
			if ctx.Err() == nil {
				return nil, context.Cause(waiting)
			}
			return nil, translate(ctx, "write: wait for memory", err)
		}
	}
	if data, ok := d.store.pieces.Get().(*[]byte); ok && int64(cap(*data)) >= d.chunk {
		return (*data)[:d.chunk], nil
	}
	return make([]byte, d.chunk), nil
}

// waiters are those who wait for memory.
type waiters struct {
	mu   sync.Mutex // guards the rest
	last int
	fail map[int]context.CancelCauseFunc
}

// add has fail called with what keeps pending bytes from being stored, until remove is called.
func (w *waiters) add(fail context.CancelCauseFunc) (remove func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail == nil {
		w.fail = make(map[int]context.CancelCauseFunc)
	}
	w.last++
	id := w.last
	w.fail[id] = fail
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.fail, id)
	}
}

func (w *waiters) failAll(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, fail := range w.fail {
		fail(err)
	}
}

func (d *Drive) unreserve(data []byte) {
	d.store.pieces.Put(&data)
	d.store.pending.Release(d.chunk)
	d.quota.bytes.over.Add(d.chunk)
}

// discard drops what is dirty at size and after. With mu.
func (b *blob) discard(size int64) {
	chunk := b.drive.chunk
	for idx, p := range b.dirty {
		if p.complete() {
			b.complete--
		}
		p.cut(int(min(max(size-int64(idx)*chunk, 0), chunk)))
		if p.complete() {
			b.complete++
		}
		if len(p.extents) == 0 {
			delete(b.dirty, idx)
			b.drive.unreserve(p.data)
		}
	}
}

// what says what a store is to store.
type what int

const (
	wholeBatches what = iota // complete pieces, as long as there is a batch of them
	everything
	beforeCut // chunks that begin before blob.cut
	justMade  // a file that is known here alone, without its bytes
)

// storeInBackground sees to it that a store runs. Errors are kept: the next Flush tries again and gives them.
func (b *blob) storeInBackground(w what) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.storing || b.drive.life.Err() != nil {
		return
	}
	b.storing = true
	b.drive.tasks.Go(func() {
		b.drive.attempt("store what was written", func(ctx context.Context) error { return b.store(ctx, w) })
		b.mu.Lock()
		b.storing = false
		b.mu.Unlock()
		b.drive.forget(b)
	})
}

// store sends pending pieces, a batch a transaction, and returns when there are none left. Each transaction waits for the disk: a
// piece is let go once it is stored, so a crash of the server must not take it back.
func (b *blob) store(ctx context.Context, w what) error {
	for {
		if err := b.drive.sure(ctx, b); err != nil {
			return err
		}
		if err := b.land(ctx); err != nil { // leaves mu locked
			return err
		}
		flying, giveUp := context.WithCancel(ctx)
		t, ok := b.takeOff(w)
		if ok {
			b.giveUp = giveUp
		}
		lost, kept := b.lost, b.kept
		if !b.pending() && lost == nil {
			b.kept = false
		}
		b.mu.Unlock()
		if !ok {
			giveUp()
			if kept {
				b.drive.spool.tidy()
			}
			return lost
		}
		commits := b.drive.commits.Load()
		r, err := b.drive.put(flying, t)
		again := ctx.Err() == nil && (flying.Err() != nil || errors.Is(err, errUndone))
		giveUp()
		if err == nil {
			b.drive.isDurable(commits)
		}
		var there row // a file that was to be made and is there
		var why error // it is not
		refused := t.making != nil && (errors.Is(err, blobstore.ErrExist) || errors.Is(err, blobstore.ErrNotExist))
		if refused {
			there, why = b.wasMade(ctx, t.making)
		}
		b.touchDown(t, r, there, err)
		if err != nil && again && !there.found {
			continue
		}
		if err != nil && isFinal(err) {
			b.drive.waiters.failAll(err)
		}
		switch {
		case t.making != nil && err == nil, there.found:
			b.unmake(t.making)
			err = nil
		case refused && errors.Is(why, errNameTaken):
			err = b.lose(ctx, errNameTaken)
			b.unmake(t.making)
		case refused:
			err = why
		case t.making != nil && errors.Is(err, blobstore.ErrQuota):
			err = b.unroomed(ctx, t.making, len(t.idx) > 0, err)
		case errors.Is(err, blobstore.ErrStale):
			err = b.reload(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// A transfer is what one transaction stores.
type transfer struct {
	ino     blobstore.Ino
	number  int64
	idx     []int32
	off     []int32 // where in its chunk a piece begins; wholeChunk, or wholeTail
	data    [][]byte
	size    int64  // where the last piece ends
	known   int64  // the size in the database, as known here: pieces marked wholeTail reach as far
	mtimeNs *int64 // nil: stays
	ctimeNs int64

	grows  bool           // all are whole chunks past the end that the database knows
	making *making        // not nil: the file is made first,
	made   blobstore.Attr // as this
}

const (
	wholeChunk = -1
	wholeTail  = -2
)

// hasFor says whether there is anything that a store is to store. With mu.
func (b *blob) hasFor(w what) bool {
	switch w {
	case wholeBatches:
		return int64(b.complete)*b.drive.chunk >= batchBytes
	case beforeCut:
		for idx := range b.dirty {
			if int64(idx)*b.drive.chunk < b.cut {
				return true
			}
		}
		return b.making != nil
	case justMade:
		return b.making != nil
	}
	return len(b.dirty) > 0 || b.mtimePending || b.making != nil
}

// takeOff makes the next batch the flight, or the next ones if they are what the file grows by. With mu, and with no flight under way.
func (b *blob) takeOff(w what) (transfer, bool) {
	chunk := b.drive.chunk
	if b.lost != nil || !b.hasFor(w) {
		return transfer{}, false
	}
	t := transfer{ino: b.ino, number: b.number, known: b.stored, ctimeNs: b.attr.CtimeNs, making: b.making, made: b.attr}
	b.flight = make(map[int32]*piece)
	b.landed = make(chan struct{})
	t.grows = b.making == nil && (w == wholeBatches || w == everything)
	var taken int64
	for _, idx := range slices.Sorted(maps.Keys(b.dirty)) {
		p := b.dirty[idx]
		if w == justMade {
			break
		}
		if w == wholeBatches && !p.complete() || w == beforeCut && int64(idx)*chunk >= b.cut {
			continue
		}
		grows := t.grows && p.complete() && int64(idx)*chunk >= b.stored
		if full := taken >= batchBytes || len(b.flight) >= batchPieces; full && (!grows || taken >= growBytes) {
			break
		}
		t.grows = grows
		taken += p.bytes()
		b.flight[idx] = p
		delete(b.dirty, idx)
		if b.making != nil {
			p.fill()
		}
		start := int64(idx) * chunk
		for _, e := range p.extents {
			off := b.place(idx, p, e)
			t.idx, t.off, t.data = append(t.idx, idx), append(t.off, off), append(t.data, p.data[e.from:e.to])
			t.size = max(t.size, start+int64(e.to))
		}
		if p.complete() {
			b.complete--
		}
	}
	if b.mtimePending {
		mtime := b.attr.MtimeNs
		t.mtimeNs = &mtime
	}
	return t, true
}

// place says where in its chunk an extent goes, as transfer.off does. With mu.
func (b *blob) place(idx int32, p *piece, e extent) int32 {
	switch {
	case p.complete():
		return wholeChunk
	case len(p.extents) == 1 && e.from == 0 && int64(idx)*b.drive.chunk+int64(e.to) >= b.stored:
		return wholeTail
	}
	return int32(e.from)
}

// put is one transaction, pieces, size and times; or several, if they are what the file grows by.
func (d *Drive) put(ctx context.Context, t transfer) (row, error) {
	defer d.changes.Add(1)
	going := d.known.change(nodeKey(t.ino))
	var r row
	var err error
	switch {
	case t.making != nil:
		r, err = d.putNew(ctx, t)
	case t.grows:
		r, err = d.putBatches(ctx, t)
	default:
		r, err = d.putPieces(ctx, durably, t)
	}
	going.overFor(r, err)
	return r, err
}

func (d *Drive) putPieces(ctx context.Context, c commit, t transfer) (row, error) {
	return d.one(ctx, "store", c,
		"select "+attrColumns+" from mediafs.put($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) n",
		d.id, int64(t.ino), t.number, t.idx, t.off, pieces(t.data), t.size, t.known, t.mtimeNs, t.ctimeNs)
}

// errUndone: a crash of the server may have undone what was stored before its disk had it.
var errUndone = errors.New("the database server may have crashed meanwhile")

// putBatches stores whole chunks, a batch a transaction, in any order, and waits once for the disk, for all of them. If one of them fails it is as if all
// had: what is stored twice is as if it were once.
func (d *Drive) putBatches(ctx context.Context, t transfer) (row, error) {
	most := int(max(1, min(batchBytes/d.chunk, batchPieces)))
	if len(t.idx) <= most {
		return d.putPieces(ctx, durably, t)
	}
	losses := d.losses.Load()
	var storing errgroup.Group
	storing.SetLimit(growAtATime)
	var mu sync.Mutex // guards latest
	var latest row
	for from := 0; from < len(t.idx); from += most {
		to := min(from+most, len(t.idx))
		part := t
		part.idx, part.off, part.data = t.idx[from:to], t.off[from:to], t.data[from:to]
		part.size = (int64(t.idx[to-1]) + 1) * d.chunk
		storing.Go(func() error {
			r, err := d.putPieces(ctx, repeating, part)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && (!latest.found || latest.attr.Allocated < r.attr.Allocated) { // each adds to it
				latest = r
			}
			return err
		})
	}
	err := storing.Wait()
	if err == nil {
		err = d.makeDurable(ctx)
	}
	if err == nil && d.losses.Load() != losses {
		err = errUndone
	}
	return latest, err
}

// touchDown ends a flight: what was stored is let go, what was not is dirty again, below what was written since. From the same moment on, a file that the
// database has is changed there, and not here alone as one that is yet to be made: there is what it has of one that was made before.
func (b *blob) touchDown(t transfer, r, there row, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.version++
	if err == nil || there.found {
		b.making = nil
	}
	flight := b.flight
	b.flight = nil
	close(b.landed)
	b.landed, b.giveUp = nil, nil
	b.failing = err
	if err != nil {
		for idx, older := range flight {
			if newer := b.dirty[idx]; newer != nil {
				if newer.complete() {
					b.complete--
				}
				older.lay(newer)
				b.drive.unreserve(newer.data)
			}
			b.dirty[idx] = older
			if older.complete() {
				b.complete++
			}
		}
		if there.found {
			b.learn(there)
		}
		return
	}
	for idx, p := range flight {
		start := int64(idx) * b.drive.chunk
		b.dropSegments(start, start+b.drive.chunk)
		b.drive.unreserve(p.data)
	}
	if t.mtimeNs != nil && b.attr.MtimeNs == *t.mtimeNs {
		b.mtimePending = false
	}
	b.since = time.Now()
	b.changed = true
	b.stored, b.storedMtime = r.attr.Size, r.attr.MtimeNs
	b.become(r)
}

// reload finds out what became of a file whose blob is not the one known here: another mount cut it to nothing, and what is
// pending goes into the new blob; or it removed the file, or the server crashed before the file's making was on its disk, and what
// is pending is lost with it: ErrStale, for whoever has it open.
func (b *blob) reload(ctx context.Context) error {
	version := b.currentVersion()
	r, err := b.drive.one(ctx, "store", reading, selectNode, b.drive.id, int64(b.ino))
	if errors.Is(err, blobstore.ErrNotExist) {
		return b.lose(ctx, blobstore.ErrStale)
	} else if err != nil {
		return err
	}
	b.overlay(r, version) // if something was stored meanwhile, that is the latest
	return nil
}

// lose drops what is pending of a file that can't be stored any more, and returns why.
func (b *blob) lose(ctx context.Context, why error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.discard(0)
	b.mtimePending = false
	b.attr.Nlink = 0
	b.lost = translate(ctx, "store", why)
	b.failing = b.lost
	return b.lost
}
