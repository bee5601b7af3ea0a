package dirstore

import (
	"container/list"
	"context"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// identity tells an inode from all others that its file system has or had.
type identity struct {
	number uint64
	birth  int64 // nanoseconds since 1970; 0 where the file system does not keep it
}

func identityOf(st *unix.Statx_t) identity {
	id := identity{number: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.birth = nanoseconds(st.Btime)
	}
	return id
}

// A place is an entry of a folder. The folder is nil for a drive's root, whose name is in the store's root.
type place struct {
	folder *node
	name   string
}

// places are where a node was seen, the last first. Nearly every node has one, so the others have a memory of their own.
type places struct {
	first  place // without a name: there is none
	others *[]place
}

func (p *places) len() int {
	switch {
	case p.first.name == "":
		return 0
	case p.others == nil:
		return 1
	}
	return 1 + len(*p.others)
}

func (p *places) at(i int) place {
	if i == 0 {
		return p.first
	}
	return (*p.others)[i-1]
}

// index is where a place is, or -1.
func (p *places) index(at place) int {
	for i := range p.len() {
		if p.at(i) == at {
			return i
		}
	}
	return -1
}

// insert puts a place before the others.
func (p *places) insert(at place) {
	if p.len() > 0 {
		if p.others == nil {
			p.others = new([]place)
		}
		*p.others = slices.Insert(*p.others, 0, p.first)
	}
	p.first = at
}

func (p *places) remove(i int) {
	switch {
	case i > 0:
		*p.others = slices.Delete(*p.others, i-1, i)
	case p.others == nil:
		p.first = place{}
	default:
		p.first = (*p.others)[0]
		*p.others = slices.Delete(*p.others, 0, 1)
	}
	if p.others != nil && len(*p.others) == 0 {
		p.others = nil
	}
}

// maxPlaces is how many names of one node are remembered. A node with more that is not found under any of these is stale
// until it is looked up again.
const maxPlaces = 16

// A node is what a drive remembers of an inode while its user knows it by number, has it open, or knows something in it. The kernel
// knows as many nodes as it has memory for: a million of these are to take 80 MB, so what only folders or open files need is elsewhere.
type node struct {
	id      identity
	*inside // of a folder its own, else nothing

	places  places // guarded by Drive.mu, like the next three
	lookups uint64 // by the user, less what Forget took back
	files   *file  // open on it: the first of a list
	refs    int32  // places of others in this folder, open files and folders, operations going on
	folder  bool
}

// inside is what there is to a folder.
type inside struct {
	// entries makes changes of this folder's entries and of what the table says of them one: whoever moves a name or
	// gives a known node one more holds it alone, whoever finds, makes or removes one shares it. Without that, the table
	// could lose a name that is there. A name too many does no harm.
	entries sync.RWMutex

	kept    *list.Element // guarded by folders.mu, like the next
	dropped bool          // out of the table
}

// nothing is inside whatever is no folder. Who takes it for one locks this, and finds nothing.
var nothing inside

func newNode(id identity, folder bool) *node {
	n := &node{id: id, inside: &nothing, folder: folder}
	if folder {
		n.inside = new(inside)
	}
	return n
}

// opened adds a file to those that are open. The caller holds Drive.mu, here as below.
func (n *node) opened(f *file) { n.files, f.next = f, n.files }

// closed takes it out again.
func (n *node) closed(f *file) {
	for p := &n.files; *p != nil; p = &(*p).next {
		if *p == f {
			*p = f.next
			return
		}
	}
}

// hold returns a node of the table, which stays there until drop. It is the start of every operation on a node and so also
// looks whether the operation may still start.
func (d *Drive) hold(ctx context.Context, ino blobstore.Ino) (*node, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.nodes[ino]
	if n == nil {
		return nil, blobstore.ErrNotExist
	}
	n.refs++
	return n, nil
}

// drop takes back a hold.
func (d *Drive) drop(n *node) {
	d.mu.Lock()
	n.refs--
	spare := d.collect(n, nil)
	d.mu.Unlock()
	release(spare)
}

// collect takes a node out of the table if nobody needs it, and then the folders that were there only for its sake. It
// adds to spare the descriptors to release once mu, which the caller holds, is free.
func (d *Drive) collect(n *node, spare []*descriptor) []*descriptor {
	if n.refs > 0 || n.lookups > 0 {
		return spare
	}
	if ino := d.number(n); d.nodes[ino] == n {
		delete(d.nodes, ino)
	}
	if fd := d.store.folders.remove(n, true); fd != nil {
		spare = append(spare, fd)
	}
	seen := n.places
	n.places = places{}
	for i := range seen.len() {
		spare = d.leave(seen.at(i), spare)
	}
	return spare
}

// leave takes back the reference that a place is to its folder. The caller holds mu.
func (d *Drive) leave(p place, spare []*descriptor) []*descriptor {
	if p.folder == nil {
		return spare
	}
	p.folder.refs--
	return d.collect(p.folder, spare)
}

func release(spare []*descriptor) {
	for _, fd := range spare {
		fd.release()
	}
}

// enter counts a lookup of what was found at a place, and opens f on it unless that is nil.
func (d *Drive) enter(at place, st *unix.Statx_t, f *file) {
	ino, id := d.ino(st.Ino), identityOf(st)
	d.mu.Lock()
	n := d.nodes[ino]
	var spare []*descriptor
	if n == nil || n.id != id {
		next := newNode(id, st.Mode&unix.S_IFMT == unix.S_IFDIR)
		d.nodes[ino] = next
		if n != nil {
			// The number has gone to another inode. The user takes back lookups by number, so they stay
			// together; the node that was is there until nobody holds it.
			next.lookups, n.lookups = n.lookups, 0
			spare = d.collect(n, spare)
		}
		n = next
	}
	n.lookups++
	if f != nil {
		f.node = n
		n.refs++
		n.opened(f)
	}
	spare = d.remember(n, at, st.Nlink, spare)
	d.mu.Unlock()
	release(spare)
}

// remember puts a place before the others that a node was seen at. Of more places than the node has names, the oldest are
// wrong. The caller holds mu.
func (d *Drive) remember(n *node, at place, nlink uint32, spare []*descriptor) []*descriptor {
	if d.number(n) == blobstore.RootIno {
		return spare
	}
	if i := n.places.index(at); i >= 0 {
		n.places.remove(i)
	} else {
		at.folder.refs++
	}
	n.places.insert(at)
	most := 1
	if !n.folder {
		most = int(min(max(nlink, 1), maxPlaces))
	}
	for n.places.len() > most {
		last := n.places.len() - 1
		gone := n.places.at(last)
		n.places.remove(last)
		spare = d.leave(gone, spare)
	}
	return spare
}

// moved tells the table that what st describes went from one place to another, or, if to is nil, lost its name.
func (d *Drive) moved(st *unix.Statx_t, from place, to *place) {
	d.mu.Lock()
	var spare []*descriptor
	if n := d.nodes[d.ino(st.Ino)]; n != nil && n.id == identityOf(st) {
		i := n.places.index(from)
		if to != nil {
			spare = d.remember(n, *to, uint32(n.places.len()+1), spare)
			i = n.places.index(from)
		} else if n.folder {
			if fd := d.store.folders.remove(n, false); fd != nil {
				spare = append(spare, fd)
			}
		}
		if i >= 0 {
			n.places.remove(i)
			spare = d.leave(from, spare)
		}
	}
	d.mu.Unlock()
	release(spare)
}

// Forget takes back lookups.
func (d *Drive) Forget(ino blobstore.Ino, count uint64) {
	d.mu.Lock()
	var spare []*descriptor
	if n := d.nodes[ino]; n != nil && n != d.root {
		n.lookups -= min(n.lookups, count)
		spare = d.collect(n, nil)
	}
	d.mu.Unlock()
	release(spare)
}
