package pgstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// A new file is made in the database together with its first bytes, when it is closed: one round trip instead of two. Until then it is here
// alone, so that is done only while this mount is the sole one of its drive and it is known that the name is free, and not for long: what
// is not closed is made in the background. Everything that needs the file, or its name, in the database has it made first.

// makeWithin is how long a new file may be known here alone. Tests change it.
var makeWithin = 200 * time.Millisecond

// making is what is to be made of a blob.
type making struct {
	parent blobstore.Ino
	name   string
	ns     int64         // when it was made, which its folder's times are unless something has set them since
	over   chan struct{} // closed when it has been made, or can't be
	ended  bool          // it is; guarded by blob.mu
}

// makings are the files that are known here alone.
type makings struct {
	mu    sync.Mutex // guards the rest; nothing else is taken under it
	files map[blobstore.Ino]map[string]*blob
}

// errNameTaken is what becomes of a new file whose name, or folder, another mount has used before it was made.
var errNameTaken = fmt.Errorf("the name was taken, or its folder removed, before the file was stored: %w", blobstore.ErrStale)

func (m *makings) add(b *blob, to *making) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.files == nil {
		m.files = make(map[blobstore.Ino]map[string]*blob)
	}
	if m.files[to.parent] == nil {
		m.files[to.parent] = make(map[string]*blob)
	}
	m.files[to.parent][to.name] = b
}

func (m *makings) remove(to *making) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.files[to.parent], to.name)
	if len(m.files[to.parent]) == 0 {
		delete(m.files, to.parent)
	}
}

// find returns the file that is to have a name, or nil.
func (m *makings) find(parent blobstore.Ino, name string) *blob {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.files[parent][name]
}

// has says whether any is in a folder.
func (m *makings) has(folder blobstore.Ino) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.files[folder]) > 0
}

// in are the files of a folder; of all folders for 0.
func (m *makings) in(folder blobstore.Ino) []*blob {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []*blob
	for parent, files := range m.files {
		if folder == 0 || parent == folder {
			for _, b := range files {
				all = append(all, b)
			}
		}
	}
	return all
}

// makeLater makes a file that is known here alone so far, if that may be; if not, it gives nil. Its node is begun (quota), and over once it is made.
func (d *Drive) makeLater(ctx context.Context, ino, parent blobstore.Ino, name string, node blobstore.NewNode) (*File, error) {
	_, isKnown, era := d.known.find(parent, name)
	if isKnown || !d.isSole(ctx, era) {
		return nil, nil
	}
	folder, err := d.Attr(ctx, parent)
	if err != nil {
		return nil, err
	}
	if !folder.IsDir() {
		return nil, translate(ctx, "create", blobstore.ErrNotDir)
	}
	if folder.Mode&unix.S_ISGID != 0 { // the group is inherited (inode_init_owner)
		node.GID = folder.GID
	}
	now := time.Now().UnixNano()
	attr := blobstore.Attr{
		Ino: ino, Mode: node.Mode, Nlink: 1, UID: node.UID, GID: node.GID, AtimeNs: now, MtimeNs: now, CtimeNs: now,
	}
	b := d.acquire(ino)
	to := &making{parent: parent, name: name, ns: now, over: make(chan struct{})}
	f := b.created(row{attr: attr, blob: int64(ino)})
	b.mu.Lock()
	b.making = to
	b.since = time.Now()
	b.mu.Unlock()
	if !d.known.claim(parent, name, attr, era, func() bool { return d.sole.isSure(era) }, func() { d.making.add(b, to) }) {
		b.mu.Lock()
		b.making = nil
		b.mu.Unlock()
		d.release(b)
		return nil, nil
	}
	d.changes.Add(1)
	d.tasks.Go(func() {
		select {
		case <-to.over:
		case <-d.life.Done():
		case <-time.After(makeWithin):
			d.attempt("make a new file", func(ctx context.Context) error { return b.store(ctx, justMade) })
			d.forget(b)
		}
	})
	return f, nil
}

// unmake ends a making: the file has been made, or can't be.
func (b *blob) unmake(to *making) {
	b.mu.Lock()
	ended := to.ended
	to.ended = true
	b.making = nil
	b.mu.Unlock()
	if !ended {
		b.drive.making.remove(to)
		b.drive.quota.nodes.over.Add(1)
		close(to.over)
	}
}

// isMaking says whether the file is known here alone. b may be nil.
func (b *blob) isMaking() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.making != nil
}

// change changes what a file that is yet to be made will be. With mu.
func (b *blob) change(c blobstore.AttrChange) {
	a := &b.attr
	if c.Set.Has(blobstore.SetMode) {
		a.Mode = a.Mode&unix.S_IFMT | c.Mode&0o7777
	}
	if c.Set.Has(blobstore.SetUID) {
		a.UID = c.UID
	}
	if c.Set.Has(blobstore.SetGID) {
		a.GID = c.GID
	}
	if c.Set.Has(blobstore.SetAtime) {
		a.AtimeNs = c.AtimeNs
		b.drive.atimes.set(b.ino)
	}
	if c.Set.Has(blobstore.SetMtime) {
		a.MtimeNs = c.MtimeNs
		b.mtimePending = false
	}
	if c.Set.Has(blobstore.SetKillPriv) {
		a.Mode = blobstore.DropPriv(a.Mode)
	}
	a.CtimeNs = time.Now().UnixNano()
	b.version++
}

// settle returns when the database has a file. b may be nil.
func (b *blob) settle(ctx context.Context) error {
	if !b.isMaking() {
		return nil
	}
	return b.store(ctx, justMade)
}

// settleName returns when the database has the file of a name, and whether it had to be made. If what is to be its folder is a new file, the
// database has that too, and can say that it is no folder.
func (d *Drive) settleName(ctx context.Context, parent blobstore.Ino, name string) (bool, error) {
	b := d.making.find(parent, name)
	return b != nil, errors.Join(d.peek(parent).settle(ctx), b.settle(ctx))
}

// settleIn returns when the database has the new files of a folder, of all folders for 0, and whether there were any. It comes before whatever sets the
// ctime of a folder and not its mtime: what is made in it later would leave its times alone (mediafs.make_file).
func (d *Drive) settleIn(ctx context.Context, folder blobstore.Ino) (bool, error) {
	files := d.making.in(folder)
	var errs []error
	for _, b := range files {
		errs = append(errs, b.settle(ctx))
	}
	return len(files) > 0, errors.Join(errs...)
}

// settleNode is settleIn, and settle, for a node that may be either.
func (d *Drive) settleNode(ctx context.Context, ino blobstore.Ino) (bool, error) {
	b := d.peek(ino)
	is := b.isMaking()
	in, err := d.settleIn(ctx, ino)
	return is || in, errors.Join(b.settle(ctx), err)
}

// settleBelow is settleName, and settleIn for the folder that the name may lead to: it is about to move, or to go if it is empty.
func (d *Drive) settleBelow(ctx context.Context, parent blobstore.Ino, name string) (bool, error) {
	is, err := d.settleName(ctx, parent, name)
	below, ok := d.known.leadsTo(parent, name)
	if err != nil || ok && below == 0 {
		return is, err
	}
	if !ok {
		below = 0 // whichever it is
	}
	in, err := d.settleIn(ctx, below)
	return is || in, err
}

// wasMade finds out why a file can't be made. If its name leads to it, it was, by a transaction whose answer was lost: no error, and what it has is stored as
// that of any file is. errNameTaken: the name is another's, or its folder is gone.
func (b *blob) wasMade(ctx context.Context, to *making) (row, error) {
	r, err := b.drive.one(ctx, "make", reading, lookupName, b.drive.id, int64(to.parent), []byte(to.name))
	if err == nil && r.attr.Ino != b.ino || errors.Is(err, blobstore.ErrNotExist) {
		err = errNameTaken
	}
	if err != nil {
		return row{}, err
	}
	return r, nil
}

// unroomed is what becomes of a new file that the drive has no room for, which was not to be foreseen. Without its bytes it may be made all the same: then it
// is there, and its bytes are pending as those of any file; else it is lost.
func (b *blob) unroomed(ctx context.Context, to *making, bytes bool, why error) error {
	if bytes {
		return cmp.Or(b.store(ctx, justMade), why)
	}
	err := b.lose(ctx, blobstore.ErrQuota)
	b.unmake(to)
	return err
}
