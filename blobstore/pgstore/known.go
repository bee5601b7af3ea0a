package pgstore

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"mediafs/blobstore"
)

const (
	wholeMax     = 2048            // names of a folder that are asked for at once at most
	knownAnswers = 2 * time.Second // how long the database may take before a node is answered with what is known of it
)

// Tests change these.
var (
	knownMax    = 32768 // nodes, and as many names; about 12 MiB
	wholeMisses = 8     // names of a folder that are asked for one by one before all are
)

// known are the attributes that nodes had when they were last heard of, and names that led to them.
//
// While the database is away they answer, so that looking at a drive does not hang the one who looks. While this mount is the sole one of
// its drive (sole.go), those of them that are current answer at once: nothing changes a node then but what is done here, and that says so
// here, by change, before it begins and when it is done.
type known struct {
	making *makings    // takes its lock under mu
	away   atomic.Bool // the last that was heard of the database is that it can't be reached

	mu    sync.Mutex // guards the rest
	era   uint64     // from 1; begins anew when others may have changed the drive: what is of an earlier one is not current
	turns turns
	nodes map[blobstore.Ino]knownNode
	names map[knownName]knownIno
	whole map[blobstore.Ino]uint64 // folders that have no names but those that are current, and the era in which that is so

	going  map[knownName]int     // how many changes of a name or node are under way: no name is claimed meanwhile that they might want
	missed map[blobstore.Ino]int // how many names of a folder the database was asked for in this era; wholeMisses: no more are counted
}

type knownNode struct {
	attr blobstore.Attr
	era  uint64 // in which it is current; 0: in none
}

// A knownName is a name in a folder. Where it stands for a node, it is the empty name in it.
type knownName struct {
	parent blobstore.Ino
	name   string
}

// A knownIno is what a name leads to.
type knownIno struct {
	ino blobstore.Ino // 0: there is no such name
	era uint64        // in which it is current; 0: in none
}

// nodeKey stands for a node where names and nodes are meant.
func nodeKey(ino blobstore.Ino) knownName { return knownName{parent: ino} }

// namesKey stands for all names in a folder. No name has a slash.
func namesKey(folder blobstore.Ino) knownName { return knownName{folder, "/"} }

// turns count, for what falls into the same place, how often a change of it has begun or ended: what the database was asked before is old after.
type turns [256]uint32

var turnsSeed = maphash.MakeSeed()

func (t *turns) of(key knownName) *uint32 {
	return &t[maphash.Comparable(turnsSeed, key)%uint64(len(t))]
}

// A mark is a moment: what the database is asked after it and answers is current if nothing has changed since.
type mark struct {
	era   uint64
	turns turns
}

func (k *known) mark() mark {
	k.mu.Lock()
	defer k.mu.Unlock()
	return mark{k.era, k.turns}
}

// still says whether nothing has happened to a name or node since the mark. With mu.
func (k *known) still(m *mark, key knownName) bool {
	return m.era == k.era && *m.turns.of(key) == *k.turns.of(key)
}

// A change is of names and nodes, from before it is sent until what became of it is known.
type change struct {
	known *known
	keys  []knownName
	mark  mark
	was   map[blobstore.Ino]blobstore.Attr // what of its nodes was current

	// What it has come to, as far as that is known.
	nodes []blobstore.Attr
	names map[knownName]blobstore.Ino
	empty blobstore.Ino // a folder that it has made; 0: none
}

// change says that something is about to change: it is not current until the change is over.
func (k *known) change(keys ...knownName) *change {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := &change{known: k, keys: keys}
	for _, key := range keys {
		if n, ok := k.nodes[key.parent]; ok && key.name == "" && n.era == k.era {
			if c.was == nil {
				c.was = make(map[blobstore.Ino]blobstore.Attr, 4)
			}
			c.was[key.parent] = n.attr
		}
	}
	k.spoil(keys)
	c.mark = mark{k.era, k.turns}
	if k.going == nil {
		k.going = make(map[knownName]int)
	}
	for _, key := range keys {
		k.going[key]++
	}
	return c
}

// change is known.change for what needs that the database has the files it is about: settle says whether there were any that it did not have, and has
// them made. Afterwards no name is claimed that the change is about, until it is over.
func (d *Drive) change(settle func() (bool, error), keys ...knownName) (*change, error) {
	for {
		if _, err := settle(); err != nil {
			return nil, err
		}
		going := d.known.change(keys...)
		again, err := settle() // one may have come in between
		if err == nil && !again {
			return going, nil
		}
		going.over()
		if err != nil {
			return nil, err
		}
	}
}

// touches notes that names have changed in a folder, which gives it these times, and so many more folders in it.
func (c *change) touches(folder blobstore.Ino, ns int64, folders int) {
	if attr, ok := c.was[folder]; ok {
		attr.MtimeNs, attr.CtimeNs, attr.Nlink = ns, ns, uint32(int(attr.Nlink)+folders)
		c.becomes(attr)
	}
}

// becomes notes what a node is after the change.
func (c *change) becomes(attr blobstore.Attr) { c.nodes = append(c.nodes, attr) }

// leads notes what a name leads to after the change; to 0 if to nothing.
func (c *change) leads(key knownName, to blobstore.Ino) {
	if c.names == nil {
		c.names = make(map[knownName]blobstore.Ino, 2)
	}
	c.names[key] = to
}

// over says that the change is over. What it has come to is current unless another has come between; of what is not known to the change,
// nothing is.
func (c *change) over() {
	k := c.known
	k.mu.Lock()
	defer k.mu.Unlock()
	empty := c.empty != 0 && k.still(&c.mark, namesKey(c.empty))
	alone := make(map[knownName]bool, len(c.keys))
	for _, key := range c.keys {
		alone[key] = k.still(&c.mark, key)
		if k.going[key]--; k.going[key] <= 0 {
			delete(k.going, key)
		}
	}
	k.spoil(c.keys)
	for _, attr := range c.nodes {
		switch key := nodeKey(attr.Ino); {
		case alone[key]:
			k.setNode(attr, k.era)
		default:
			k.spoil([]knownName{key})
			k.setNode(attr, 0)
		}
	}
	for key, ino := range c.names {
		if alone[key] {
			k.setName(key, ino, k.era)
		}
	}
	if empty && alone[nodeKey(c.empty)] {
		k.setWhole(c.empty)
	}
}

// overFor is over for a change that makes one node r, unless there was an error.
func (c *change) overFor(r row, err error) {
	if err == nil {
		c.becomes(r.attr)
	}
	c.over()
}

// spoil has nothing be current of some names and nodes. With mu.
func (k *known) spoil(keys []knownName) {
	for _, key := range keys {
		*k.turns.of(key)++
		if key.name != "" {
			*k.turns.of(namesKey(key.parent))++
			if _, ok := k.names[key]; ok || k.whole[key.parent] == k.era {
				k.setName(key, 0, 0)
			}
			continue
		}
		if n, ok := k.nodes[key.parent]; ok && n.era != 0 {
			n.era = 0
			k.nodes[key.parent] = n
		}
	}
}

// newEra has nothing be current any more, and gives the era that begins.
func (k *known) newEra() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.era++
	clear(k.whole)
	clear(k.missed)
	return k.era
}

func (k *known) currentEra() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.era
}

// remember takes in what the database answered to what was asked after the mark. A folder with new files has other times than the database says.
func (k *known) remember(m *mark, attr blobstore.Attr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	era := k.era
	if !k.still(m, nodeKey(attr.Ino)) || k.making.has(attr.Ino) {
		era = 0
	}
	k.setNode(attr, era)
}

// rememberName is remember for a node and the name that led to it.
func (k *known) rememberName(m *mark, parent blobstore.Ino, name string, attr blobstore.Attr) {
	k.remember(m, attr)
	k.mu.Lock()
	defer k.mu.Unlock()
	if key := (knownName{parent, name}); k.still(m, key) {
		k.setName(key, attr.Ino, k.era)
	}
}

// rememberPage is rememberName for part of a listing. Of what is open here, more is known than that: the listing does not say whether the two fit.
func (k *known) rememberPage(m *mark, folder blobstore.Ino, page []blobstore.Entry, open map[blobstore.Ino]bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.takeIn(m, folder, page, open, false)
}

// rememberAll is rememberPage for all names that a folder had since the mark: it has no others.
func (k *known) rememberAll(m *mark, folder blobstore.Ino, names []blobstore.Entry, open map[blobstore.Ino]bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := k.still(m, namesKey(folder))
	if all {
		k.setWhole(folder) // before the names: it is no longer so if there is no room for one of them
	}
	k.takeIn(m, folder, names, open, all)
}

// takeIn remembers entries. With all, none of the names has changed since the mark, whatever their turns say, which they share with others. With mu.
func (k *known) takeIn(m *mark, folder blobstore.Ino, entries []blobstore.Entry, open map[blobstore.Ino]bool, all bool) {
	for i := range entries {
		e := &entries[i]
		era := k.era
		if !k.still(m, nodeKey(e.Attr.Ino)) || k.making.has(e.Attr.Ino) || open[e.Attr.Ino] {
			era = 0
		}
		k.setNode(e.Attr, era)
		if key := (knownName{folder, e.Name}); all || k.still(m, key) {
			k.setName(key, e.Attr.Ino, k.era)
		}
	}
}

// rememberNone is that there is no such name.
func (k *known) rememberNone(m *mark, parent blobstore.Ino, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if key := (knownName{parent, name}); k.still(m, key) {
		k.setName(key, 0, k.era)
	}
}

// setNode is remember, with mu. What is not current does not take the place of what is.
func (k *known) setNode(attr blobstore.Attr, era uint64) {
	if attr.Nlink == 0 {
		delete(k.nodes, attr.Ino)
		return
	}
	if k.nodes == nil {
		k.nodes = make(map[blobstore.Ino]knownNode)
	}
	if last, ok := k.nodes[attr.Ino]; ok && era == 0 && last.era == k.era && last.era != 0 {
		return
	}
	makeRoom(k.nodes, attr.Ino, func(old blobstore.Ino) bool { return old != blobstore.RootIno })
	k.nodes[attr.Ino] = knownNode{attr, era}
}

// setName is what a name leads to, with mu.
func (k *known) setName(key knownName, ino blobstore.Ino, era uint64) {
	if k.names == nil {
		k.names = make(map[knownName]knownIno)
	}
	makeRoom(k.names, key, func(old knownName) bool {
		delete(k.whole, old.parent)
		return true
	})
	k.names[key] = knownIno{ino, era}
}

// misses counts that the database had to be asked for a name in a folder, and says whether it is time to ask for all of them. It is said once.
func (k *known) misses(folder blobstore.Ino) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.missed == nil {
		k.missed = make(map[blobstore.Ino]int)
	}
	if k.missed[folder] >= wholeMisses {
		return false
	}
	makeRoom(k.missed, folder, func(blobstore.Ino) bool { return true })
	k.missed[folder]++
	return k.missed[folder] == wholeMisses
}

// setWhole is with mu.
func (k *known) setWhole(ino blobstore.Ino) {
	if k.whole == nil {
		k.whole = make(map[blobstore.Ino]uint64)
	}
	makeRoom(k.whole, ino, func(blobstore.Ino) bool { return true })
	k.whole[ino] = k.era
}

// makeRoom takes one of a map that is full away, any that may go, before a new key is added.
func makeRoom[K comparable, V any](m map[K]V, key K, mayGo func(K) bool) {
	if len(m) < knownMax {
		return
	}
	if _, there := m[key]; there {
		return
	}
	for old := range m { // the order is random
		if mayGo(old) {
			delete(m, old)
			return
		}
	}
}

// recall gives what was last heard of a node, and the era in which it is current.
func (k *known) recall(ino blobstore.Ino) (attr blobstore.Attr, isKnown bool, era uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n, ok := k.nodes[ino]
	if n.era != k.era {
		n.era = 0
	}
	return n.attr, ok, n.era
}

// find gives what was last heard of the node that a name led to, and the era in which it is current. If nothing is known it is current that
// there is no such name.
func (k *known) find(parent blobstore.Ino, name string) (attr blobstore.Attr, isKnown bool, era uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lookup(knownName{parent, name})
}

// lookup is find, with mu.
func (k *known) lookup(key knownName) (attr blobstore.Attr, isKnown bool, era uint64) {
	led, ok := k.names[key]
	if !ok && k.whole[key.parent] == k.era {
		led.era = k.era
	}
	if led.era != k.era {
		led.era = 0
	}
	if led.ino == 0 {
		return blobstore.Attr{}, false, led.era
	}
	n, ok := k.nodes[led.ino]
	if n.era != k.era {
		led.era = 0
	}
	return n.attr, ok, led.era
}

// claim takes a name that is known to be free for a new file in a folder that is known, if both are current in an era that lasts, and no change
// is under way that may take the name or the folder: false if not. claimed is called before anybody can find the file.
func (k *known) claim(parent blobstore.Ino, name string, attr blobstore.Attr, era uint64, lasts func() bool, claimed func()) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := knownName{parent, name}
	_, isKnown, free := k.lookup(key)
	folder := k.nodes[parent]
	if isKnown || free != era || folder.era != era || k.era != era || !lasts() {
		return false
	}
	for _, wanted := range []knownName{key, nodeKey(parent), nodeKey(0)} { // 0: it is not known which
		if k.going[wanted] > 0 {
			return false
		}
	}
	for _, changed := range []knownName{key, namesKey(parent), nodeKey(parent), nodeKey(attr.Ino)} {
		*k.turns.of(changed)++
	}
	folder.touch(attr.CtimeNs)
	k.nodes[parent] = folder
	k.setNode(attr, era)
	k.setName(key, attr.Ino, era)
	claimed()
	return true
}

// touch sets the times of a folder in which a file was made then, unless they were set since: then its ctime is later.
func (n *knownNode) touch(ns int64) {
	if n.attr.CtimeNs <= ns {
		n.attr.MtimeNs, n.attr.CtimeNs = ns, ns
	}
}

// touched says that the database has a file by now that was made in a folder then.
func (k *known) touched(folder blobstore.Ino, ns int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	*k.turns.of(nodeKey(folder))++
	if n, ok := k.nodes[folder]; ok {
		n.touch(ns)
		k.nodes[folder] = n
	}
}

// leadsTo gives the node that a name leads to, 0 if to nothing. False: that is not known, or not current.
func (k *known) leadsTo(parent blobstore.Ino, name string) (blobstore.Ino, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	led, ok := k.names[knownName{parent, name}]
	if !ok && k.whole[parent] == k.era {
		return 0, true
	}
	return led.ino, led.era == k.era
}

// orKnown asks the database what is known already as last, and gives last if the database is away or does not answer soon. ask is to be quick
// about it if it is told to hurry.
func (d *Drive) orKnown(ctx context.Context, last blobstore.Attr, isKnown bool, ask func(ctx context.Context, how commit) (blobstore.Attr, error)) (blobstore.Attr, error) {
	if isKnown && d.known.away.Load() {
		d.store.counts.hits.Add(1)
		return d.peek(last.Ino).pendingOver(last), nil
	}
	d.store.counts.misses.Add(1)
	if !isKnown {
		return ask(ctx, reading)
	}
	soon, cancel := context.WithTimeout(ctx, knownAnswers)
	defer cancel()
	attr, err := ask(soon, impatient)
	if err != nil && ctx.Err() == nil && (soon.Err() != nil || errors.Is(err, blobstore.ErrUnavailable)) {
		return d.peek(last.Ino).pendingOver(last), nil
	}
	return attr, err
}
