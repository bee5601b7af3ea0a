package pgstore

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore"
)

const (
	segmentBytes = 1 << 20   // what one round trip reads ahead
	windowMax    = 4         // segments read ahead of a reader at most
	largeRead    = 256 << 10 // what is asked for in such pieces is read as it is asked for: the kernel reads ahead itself, several pieces at a time
	startRead    = 64 << 10  // who begins a file with so much goes on
	strayBytes   = 1 << 20   // how far from where the last read ended the next may begin and still go on: the kernel sends several at a time
)

// A segment is a stretch of a file that was read before it was asked for.
type segment struct {
	ready chan struct{} // closed when data and err are set
	data  []byte        // segmentBytes or up to the end of the file; holes are zero
	err   error
	cost  int64 // bytes of the budget
}

// ReadAt reads what is stored, in one round trip unless it was read ahead, and puts what is pending on top.
func (f *File) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, translate(ctx, "read", blobstore.ErrInvalid)
	}
	b := f.blob
	if err := b.drive.sure(ctx, b); err != nil {
		return 0, err
	}
	ahead := f.window(off, len(p))
	for {
		b.mu.Lock()
		version := b.version
		n := int(min(max(b.attr.Size-off, 0), int64(len(p))))
		stored := min(max(b.stored-off, 0), int64(n)) // past it there are only pending bytes and holes
		if !f.quiet && b.loaded && len(p) > 0 {
			b.drive.atimes.read(&b.attr)
		}
		covered := b.covered(off, n)
		if covered {
			b.putPending(p[:n], off)
		}
		b.mu.Unlock()
		if covered {
			return n, nil
		}
		clear(p[stored:n])
		if err := b.readStored(ctx, p[:stored], off, ahead); err != nil {
			return 0, err
		}
		b.mu.Lock()
		if b.version == version {
			b.putPending(p[:n], off)
			b.mu.Unlock()
			return n, nil
		}
		b.mu.Unlock() // something was stored meanwhile: what was read may be from before
	}
}

// window says how many segments to have read ahead of a reader at off, and so that the one it is at is read as a whole: none until it has
// gone on for a while, or if the kernel does it.
func (f *File) window(off int64, n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case n >= largeRead:
		f.streak = 0
	case off > f.end+strayBytes || off < f.end-strayBytes:
		f.streak = 0
	case off == 0 && n >= startRead:
		f.streak = 2
	default:
		f.streak++
	}
	if f.streak == 0 || off+int64(n) > f.end {
		f.end = off + int64(n)
	}
	return min(f.streak-1, windowMax)
}

// covered says whether pending pieces hold all of the range. With mu.
func (b *blob) covered(off int64, n int) bool {
	chunk := b.drive.chunk
	for end := off + int64(n); off < end; {
		idx, from := int32(off/chunk), int(off%chunk)
		to := int(min(chunk, int64(from)+end-off))
		in := func(p *piece) bool {
			if p == nil {
				return false
			}
			for _, e := range p.extents {
				if e.from <= from && to <= e.to {
					return true
				}
			}
			return false
		}
		if !in(b.dirty[idx]) && !in(b.flight[idx]) {
			return false
		}
		off += int64(to - from)
	}
	return true
}

// putPending copies pending bytes over what is stored, the newest last. With mu.
func (b *blob) putPending(p []byte, off int64) {
	if !b.pending() {
		return
	}
	chunk := b.drive.chunk
	for _, pieces := range []map[int32]*piece{b.flight, b.dirty} {
		if len(pieces) == 0 {
			continue
		}
		for idx := off / chunk; idx*chunk < off+int64(len(p)); idx++ {
			piece := pieces[int32(idx)]
			if piece == nil {
				continue
			}
			for _, e := range piece.extents {
				from, to := idx*chunk+int64(e.from)-off, idx*chunk+int64(e.to)-off
				lo, hi := max(from, 0), min(to, int64(len(p)))
				if lo < hi {
					copy(p[lo:hi], piece.data[int64(e.from)+lo-from:])
				}
			}
		}
	}
}

// readStored fills p with what the database has; what it does not have is zero.
func (b *blob) readStored(ctx context.Context, p []byte, off int64, ahead int) error {
	first := off / segmentBytes
	for done := 0; done < len(p); {
		at := off + int64(done)
		n := int(min(int64(len(p)-done), segmentBytes-at%segmentBytes))
		s := b.segment(at/segmentBytes, ahead > 0)
		if s == nil {
			clear(p[done : done+n])
			if err := b.readRange(ctx, p[done:done+n], at); err != nil {
				return err
			}
			done += n
			continue
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return translate(ctx, "read", context.Cause(ctx))
		}
		if s.err != nil {
			return s.err
		}
		var copied int
		if from := at % segmentBytes; from < int64(len(s.data)) {
			copied = copy(p[done:done+n], s.data[from:])
		}
		clear(p[done+copied : done+n])
		done += n
	}
	for i := 1; i <= ahead; i++ {
		b.segment(first+int64(i), true)
	}
	if ahead > 0 && first > 0 {
		b.mu.Lock()
		b.dropSegments(0, (first-1)*segmentBytes) // the kernel keeps what it has read
		b.mu.Unlock()
	}
	return nil
}

// segment returns a segment that is there or being read; with fetch it starts reading one that is not, if the budget and the
// file's length allow. It may return nil.
func (b *blob) segment(i int64, fetch bool) *segment {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.segments[i]; s != nil || !fetch {
		return s
	}
	d := b.drive
	length := min(b.stored-i*segmentBytes, segmentBytes)
	if length <= 0 || d.life.Err() != nil || !d.store.readAhead.TryAcquire(segmentBytes) {
		return nil
	}
	s := &segment{ready: make(chan struct{}), cost: segmentBytes}
	b.segments[i] = s
	d.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(d.life, attemptLimit)
		defer cancel()
		data := make([]byte, length)
		s.err = b.readRange(ctx, data, i*segmentBytes)
		s.data = data
		close(s.ready)
		if s.err != nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.segments[i] == s {
				b.dropSegments(i*segmentBytes, (i+1)*segmentBytes)
			}
		}
	})
	return s
}

// keepHead keeps the content that came with the opening of a short file. With mu.
func (b *blob) keepHead(data []byte, size int64) {
	if !b.drive.store.readAhead.TryAcquire(size) {
		return
	}
	s := &segment{ready: make(chan struct{}), data: data, cost: size}
	close(s.ready)
	b.segments[0] = s
}

// dropSegments lets go of what was read ahead of [from, to); to -1 is the end. Whoever is reading one still may. With mu.
func (b *blob) dropSegments(from, to int64) {
	for i, s := range b.segments {
		if (i+1)*segmentBytes > from && (to < 0 || i*segmentBytes < to) {
			delete(b.segments, i)
			b.drive.store.readAhead.Release(s.cost)
		}
	}
}

// readRange is one round trip for the bytes of a range, no more. p is zero, and stays so where the database has nothing.
func (b *blob) readRange(ctx context.Context, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	d := b.drive
	b.mu.Lock()
	number := b.number
	b.mu.Unlock()
	first, last := off/d.chunk, (off+int64(len(p))-1)/d.chunk
	take := func(rows pgx.Rows, skip int64) error { // the row's data begins skip bytes into its chunk
		values := rows.RawValues()
		if len(values) != 2 || len(values[0]) != 4 {
			return errors.New("pgstore: read: unexpected row")
		}
		v := values[0]
		idx := int64(v[0])<<24 | int64(v[1])<<16 | int64(v[2])<<8 | int64(v[3])
		at := idx*d.chunk + skip - off
		data := values[1]
		if at < 0 {
			data = data[min(-at, int64(len(data))):]
			at = 0
		}
		if at < int64(len(p)) {
			copy(p[at:], data)
		}
		return nil
	}
	s := statement{
		sql:  "select c.idx, c.data from mediafs.chunks c where c.drive_id = $1 and c.blob = $2 and c.idx between $3 and $4",
		args: []any{d.id, number, int32(first), int32(last)},
		each: func(rows pgx.Rows) error { return take(rows, 0) },
	}
	if first == last && int64(len(p)) < d.chunk {
		s.sql = "select c.idx, substring(c.data from $4 for $5) from mediafs.chunks c where c.drive_id = $1 and c.blob = $2 and c.idx = $3"
		s.args = []any{d.id, number, int32(first), int32(off%d.chunk) + 1, int32(len(p))}
		s.each = func(rows pgx.Rows) error { return take(rows, off%d.chunk) }
	}
	if !d.guest {
		return d.run(ctx, "read", reading, s)
	}
	// Nothing keeps what a guest reads from being collected, and a chunk that is gone reads as a hole does.
	there := false
	err := d.run(ctx, "read", reading, s, statement{
		sql:  "select from mediafs.nodes n where n.drive_id = $1 and n.ino = $2 and n.blob = $3 and n.nlink > 0",
		args: []any{d.id, int64(b.ino), number},
		each: func(pgx.Rows) error { there = true; return nil },
	})
	if err == nil && !there {
		err = translate(ctx, "read", blobstore.ErrStale)
	}
	return err
}
