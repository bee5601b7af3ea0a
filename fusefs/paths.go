package fusefs

import (
	"slices"
	"strings"
	"sync"

	"mediafs/blobstore"
)

// maxPaths is of how many nodes it is remembered where they are.
const maxPaths = 65536

// paths remembers where nodes were seen last, so that the audit log can name them. It is a hint for that log alone, and no request is
// answered from it: what another mount, or the web application, has moved since has its old name there.
//
// There are two generations. Whatever is used goes to the young one; when that is half of what there may be, it becomes the old one,
// and what was in the old one, unused since, is forgotten. The memory is used again.
type paths struct {
	inoMask uint64 // the bits of a node id that are the ino

	mu         sync.Mutex
	young, old generation // guarded by mu
}

// A generation leads both ways. A node that has several names is where it was seen last. A name that was removed leads to no node any
// more, but the node, which may be open, keeps it.
type generation struct {
	places map[uint64]place
	nodes  map[place]uint64
}

// place is a name in a folder; without a name, the folder, or whatever else the node is.
type place struct {
	folder uint64
	name   string
}

func newGeneration() generation {
	return generation{places: make(map[uint64]place), nodes: make(map[place]uint64)}
}

// newPaths is for a mount in which those bits of a node id are the ino.
func newPaths(inoMask uint64) *paths {
	return &paths{inoMask: inoMask, young: newGeneration(), old: newGeneration()}
}

// saw takes note of a name that leads to a node.
func (p *paths) saw(node uint64, at place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.put(node, at)
}

func (p *paths) put(node uint64, at place) {
	if p.young.places[node] == at && p.young.nodes[at] == node {
		return
	}
	p.makeRoom()
	p.young.places[node] = at
	p.young.nodes[at] = node
}

func (p *paths) makeRoom() {
	if max(len(p.young.places), len(p.young.nodes)) < maxPaths/2 {
		return
	}
	p.old, p.young = p.young, p.old
	clear(p.young.places)
	clear(p.young.nodes)
}

// removed takes note that a name is gone, and returns what node it led to; 0 if that is not known.
func (p *paths) removed(at place) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.take(at)
}

func (p *paths) take(at place) uint64 {
	node, young := p.young.nodes[at]
	if !young {
		node = p.old.nodes[at]
	}
	delete(p.young.nodes, at)
	delete(p.old.nodes, at)
	return node
}

// moved takes note of a renaming, or with exchange, that two names have changed places. It returns what node the old name led to.
func (p *paths) moved(from, to place, exchange bool) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	node, other := p.take(from), p.take(to)
	if node != 0 {
		p.put(node, to)
	}
	if other != 0 && exchange {
		p.put(other, from)
	}
	return node
}

// place returns where a node was seen last.
func (p *paths) place(node uint64) place {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at, known := p.find(node); known {
		return at
	}
	return place{folder: node}
}

// find has what it finds in the young generation.
func (p *paths) find(node uint64) (at place, known bool) {
	if at, known = p.young.places[node]; known {
		return at, true
	}
	if at, known = p.old.places[node]; known {
		named := p.young.nodes[at] == 0 && p.old.nodes[at] == node // it may have lost its name, also to another
		p.makeRoom()
		p.young.places[node] = at
		if named {
			p.young.nodes[at] = node
		}
	}
	return at, known
}

// unknown stands for what is not known of a path.
const unknown = "…"

// maxDepth is how many folders a path may lead through. Names that were moved elsewhere could seem to lead in circles.
const maxDepth = 1024

// path returns the path of a place from the root of its drive.
func (p *paths) path(of place) string {
	names := make([]string, 0, 16) // on the stack
	if of.name != "" {
		names = append(names, of.name)
	}
	node := of.folder
	p.mu.Lock()
	for node&p.inoMask != uint64(blobstore.RootIno) {
		at, known := p.find(node)
		if !known || len(names) == maxDepth {
			names = append(names, unknown)
			break
		}
		names = append(names, at.name)
		node = at.folder
	}
	p.mu.Unlock()
	slices.Reverse(names)
	if len(names) > 0 && names[0] == unknown {
		return strings.Join(names, "/")
	}
	return "/" + strings.Join(names, "/")
}
