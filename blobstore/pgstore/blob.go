package pgstore

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore"
)

// A blob is the content of a regular file that is open here, or that has bytes not stored yet.
//
//	          WriteAt                    store                    the database
//	caller ───────────▶ dirty pieces ───────────▶ flight ───────────▶ chunks, size, mtime in one transaction
//	       ◀─────────── overlaid, newest last ◀── overlaid ◀───────── segments (read ahead)
//	          ReadAt
type blob struct {
	drive *Drive
	ino   blobstore.Ino
	refs  int // open files; guarded by drive.mu

	// gate is held shared by whoever writes, and alone by whoever cuts, zeroes or copies into the content, so that
	// no write comes in between. It is taken before mu.
	gate sync.RWMutex
	cut  int64 // where the file is about to end, for a store of what is beforeCut; of who holds gate alone

	mu           sync.Mutex // guards the rest; taken after drive.mu
	loaded       bool       // the fields below are known
	attr         blobstore.Attr
	number       int64            // what its chunks are filed under
	stored       int64            // the size in the database
	storedMtime  int64            // mtime there
	dirty        map[int32]*piece // by chunk
	complete     int              // pieces of dirty that are whole chunks
	flight       map[int32]*piece // on its way to the database
	landed       chan struct{}    // closed when flight is over; nil when there is none
	giveUp       func()           // ends the flight; nil where it ends by itself
	mtimePending bool             // attr.MtimeNs is of a write that is not stored yet
	since        time.Time        // of the oldest dirty piece
	storing      bool             // a background store runs
	failing      error            // why the last store failed; nil after one that did not
	lost         error            // why nothing can be stored any more
	removedIn    uint64           // Drive.losses before attr.Nlink was asked for
	foreign      uint64           // times that another mount was found to have changed it
	making       *making          // the file is known here alone; nil: the database has it
	unsure       uint64           // Drive.commits after the last change of the node that did not wait for the disk; 0: there was none
	changed      bool             // its content was changed here: once it is let go, it is to be described
	kept         bool             // the spool has bytes of it that are not known to be stored
	version      uint64           // counts what makes an answer of the database that is on its way old
	segments     map[int64]*segment
}

// peek returns the blob of a file that is open here, or nil. The methods that take a nil blob say so.
func (d *Drive) peek(ino blobstore.Ino) *blob {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.blobs[ino]
}

// acquire returns the blob of a node for one more open file.
func (d *Drive) acquire(ino blobstore.Ino) *blob {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.blobs[ino]
	if b == nil {
		b = &blob{drive: d, ino: ino, dirty: make(map[int32]*piece), segments: make(map[int64]*segment)}
		d.blobs[ino] = b
	}
	b.refs++
	return b
}

// release takes an open file away. A blob that nobody has open goes once nothing is pending.
func (d *Drive) release(b *blob) {
	d.mu.Lock()
	b.refs--
	d.mu.Unlock()
	d.forget(b)
}

// forget lets a blob go if nobody has it open and nothing is pending. What is pending of a file that has no name any more is
// dropped: nobody can ever read it.
func (d *Drive) forget(b *blob) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b.refs > 0 || d.blobs[b.ino] != b {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	removed := b.isRemoved()
	if removed && b.flight == nil {
		b.discard(0)
		b.mtimePending = false
		b.kept = b.kept && b.lost != nil
	}
	if b.pending() {
		return // who stores it calls again
	}
	b.dropSegments(0, -1)
	delete(d.blobs, b.ino)
	if removed {
		d.collectSoon()
	} else if b.changed {
		d.describeSoon(b.ino)
	}
}

// isOpen says whether anybody has the file open. b may be nil.
func (b *blob) isOpen() bool {
	if b == nil {
		return false
	}
	b.drive.mu.Lock()
	defer b.drive.mu.Unlock()
	return b.refs > 0
}

// isFirst says whether the file was not open before the one that is being opened.
func (b *blob) isFirst() bool {
	b.drive.mu.Lock()
	defer b.drive.mu.Unlock()
	return b.refs == 1
}

// truncate cuts a file that is being opened to nothing.
func (b *blob) truncate(ctx context.Context) error {
	first := b.isFirst()
	attr, err := b.setAttr(ctx, blobstore.AttrChange{Set: blobstore.SetSize})
	if err == nil && attr.Nlink == 0 && first {
		err = translate(ctx, "open", blobstore.ErrNotExist) // it waits to be collected
	}
	return err
}

// created opens a file that has just been made.
func (b *blob) created(r row) *File {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loaded, b.attr, b.number, b.storedMtime = true, r.attr, r.blob, r.attr.MtimeNs
	f := &File{blob: b, losses: b.drive.losses.Load()}
	f.changes.Add(1)
	return f
}

// load reads what the database knows of the file, and its content if that is a single chunk.
func (b *blob) load(ctx context.Context) error {
	if b.isMaking() {
		return nil // nobody knows more of it
	}
	first := b.isFirst()
	for {
		if is, err := b.ask(ctx, first); is || err != nil {
			return err
		}
	}
}

// ask is one round trip. False: something was stored meanwhile and the answer may be from before.
func (b *blob) ask(ctx context.Context, first bool) (bool, error) {
	d := b.drive
	version := b.currentVersion()
	r := row{losses: d.losses.Load()}
	var head []byte
	err := d.run(ctx, "open", reading, statement{
		sql: "select " + attrColumns + `, case when n.size between 1 and $3 then
			(select c.data from mediafs.chunks c where c.drive_id = $1 and c.blob = n.blob and c.idx = 0) end
			from mediafs.nodes n where n.drive_id = $1 and n.ino = $2`,
		args: []any{d.id, int64(b.ino), d.chunk},
		each: func(rows pgx.Rows) error { return r.scan(rows, &head) },
	})
	switch {
	case err != nil:
		return false, err
	case !r.found, r.attr.Nlink == 0 && first: // without a name, only who has it open may open it again
		return false, translate(ctx, "open", blobstore.ErrNotExist)
	case r.attr.IsDir():
		return false, translate(ctx, "open", blobstore.ErrIsDir)
	case !r.attr.IsRegular():
		return false, translate(ctx, "open", blobstore.ErrInvalid)
	}
	d.atimes.over(&r.attr)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.version != version {
		return false, nil
	}
	b.learn(r)
	if r.attr.Size > 0 && r.attr.Size <= d.chunk && b.segments[0] == nil {
		b.keepHead(head, r.attr.Size)
	}
	return true, nil
}

// learn takes in a node as the database has it. What is pending stays on top. With mu.
func (b *blob) learn(r row) {
	if b.loaded && (b.number != r.blob || b.stored != r.attr.Size || b.storedMtime != r.attr.MtimeNs) {
		b.dropSegments(0, -1) // another mount wrote
		b.version++
		b.foreign++
	}
	b.become(r)
	b.loaded, b.number, b.stored, b.storedMtime = true, r.blob, r.attr.Size, r.attr.MtimeNs
}

// become takes in the attributes of an answer of the database, which may be of before an unlink whose answer came first: a node that has lost its last name
// never gets one again, unless the server has crashed since. With mu.
func (b *blob) become(r row) {
	if b.isRemoved() {
		r.attr.Nlink = 0
	} else {
		b.removedIn = r.losses
	}
	b.attr = b.withPending(r.attr)
}

// isRemoved says whether the file has no name any more. A crash of the server may have given it one again, so that is not known after one. With mu.
func (b *blob) isRemoved() bool {
	return b.loaded && b.attr.Nlink == 0 && (b.lost != nil || b.removedIn == b.drive.losses.Load())
}

// withPending puts what is pending on top of a node as the database has it. With mu.
func (b *blob) withPending(attr blobstore.Attr) blobstore.Attr {
	if !b.pending() {
		return attr
	}
	attr.Size = max(attr.Size, b.attr.Size)
	if b.mtimePending {
		attr.MtimeNs = b.attr.MtimeNs
		attr.CtimeNs = max(attr.CtimeNs, b.attr.MtimeNs)
	}
	for _, pieces := range []map[int32]*piece{b.flight, b.dirty} {
		for _, p := range pieces {
			attr.Allocated += p.bytes()
		}
	}
	attr.Allocated = min(attr.Allocated, (attr.Size+b.drive.chunk-1)/b.drive.chunk*b.drive.chunk)
	return attr
}

// currentVersion is to be taken before the database is asked, and given to overlay after. b may be nil.
func (b *blob) currentVersion() uint64 {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.version
}

// overlay gives the attributes of a node that was read after version was current. False: something was stored meanwhile and
// the answer may be from before. b may be nil: the file is not open.
func (b *blob) overlay(r row, version uint64) (blobstore.Attr, bool) {
	if b == nil {
		return r.attr, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.version != version {
		return blobstore.Attr{}, false
	}
	if !b.loaded {
		return r.attr, true
	}
	b.learn(r)
	return b.attr, true
}

// pendingOver puts what is pending on top of attributes that are known of the node. b may be nil.
func (b *blob) pendingOver(attr blobstore.Attr) blobstore.Attr {
	if b == nil {
		return attr
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.loaded {
		attr = b.attr
	}
	return b.withPending(attr)
}

// attributes are those known here.
func (b *blob) attributes() blobstore.Attr {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.withPending(b.attr)
}

// leftUnsure notes that the node was changed by a commit that did not wait for the disk. b may be nil.
func (b *blob) leftUnsure() {
	if b == nil {
		return
	}
	commits := b.drive.commits.Load()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unsure = commits
}

// isDurable says whether all changes of the node that are in the database are on its disk.
func (b *blob) isDurable() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unsure <= b.drive.durable.Load()
}

// renamed notes how many names the node has left.
func (b *blob) renamed(r row) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attr.Nlink, b.attr.CtimeNs, b.removedIn = r.attr.Nlink, r.attr.CtimeNs, r.losses
}

// moved notes that a name of the file was changed. b may be nil.
func (b *blob) moved(ns int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attr.CtimeNs = max(b.attr.CtimeNs, ns)
}

// isNameless says whether the file has no name any more, and why if that is not by somebody's will.
func (b *blob) isNameless() (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.isRemoved(), b.lost
}

// pending says whether anything is to be stored. With mu.
func (b *blob) pending() bool {
	return len(b.dirty) > 0 || b.flight != nil || b.mtimePending || b.making != nil
}

// isPending is pending for those without mu. b may be nil.
func (b *blob) isPending() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pending()
}

// pendingSince says whether something has been pending since before t.
func (b *blob) pendingSince(t time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pending() && b.since.Before(t)
}

func (b *blob) pendingBytes() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	var n int64
	for _, pieces := range []map[int32]*piece{b.flight, b.dirty} {
		for _, p := range pieces {
			n += p.bytes()
		}
	}
	return n
}

// setAttr is Drive.SetAttr for a file that is open here. No store runs beside it, so that its answer is the latest there is. What is pending
// past a new end is dropped once the database has cut the file, so that one that can't be cut stays as it is.
func (b *blob) setAttr(ctx context.Context, change blobstore.AttrChange) (blobstore.Attr, error) {
	resize := change.Set.Has(blobstore.SetSize)
	b.gate.Lock()
	defer b.gate.Unlock()
	if resize {
		b.cut = change.Size
		if err := b.store(ctx, beforeCut); err != nil && !(errors.Is(err, blobstore.ErrQuota) && b.canCut()) {
			return blobstore.Attr{}, err
		}
	}
	if err := b.land(ctx); err != nil { // leaves mu locked
		return blobstore.Attr{}, err
	}
	if b.making != nil {
		defer b.mu.Unlock()
		going := b.drive.known.change(nodeKey(b.ino))
		b.change(change)
		going.overFor(row{attr: b.attr}, nil)
		return b.attr, nil
	}
	b.landed = make(chan struct{})
	b.mu.Unlock()
	r, err := b.drive.setAttr(ctx, b.ino, change)
	if !resize {
		b.leftUnsure()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.landed)
	b.landed = nil
	b.version++
	if err != nil {
		return blobstore.Attr{}, err
	}
	if resize {
		b.changed = true
		b.discard(change.Size)
		b.dropSegments(0, -1)
		b.attr.Size = r.attr.Size
	}
	if resize || change.Set.Has(blobstore.SetMtime) {
		b.mtimePending = false // the change has decided what mtime is
	}
	b.become(r)
	b.loaded, b.number, b.stored, b.storedMtime = true, r.blob, r.attr.Size, r.attr.MtimeNs
	return b.attr, nil
}

// canCut says whether the database has the file, so that it can be cut there though what is pending can't be stored.
func (b *blob) canCut() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.making == nil && b.lost == nil
}

// land waits until nothing is on its way to the database, and returns with mu locked, unless it returns an error. What is on its way for as long as somebody
// may wait, over a connection that may be dead, is given up, and sent again.
func (b *blob) land(ctx context.Context) error {
	for {
		b.mu.Lock()
		landed := b.landed
		if landed == nil {
			return nil
		}
		b.mu.Unlock()
		select {
		case <-landed:
		case <-ctx.Done():
			b.mu.Lock()
			if b.landed == landed && b.giveUp != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				b.giveUp()
			}
			b.mu.Unlock()
			return translate(ctx, "wait for what is being stored", context.Cause(ctx))
		}
	}
}
