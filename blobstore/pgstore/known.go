package pgstore

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"mediafs/blobstore"
)

const (
	knownMax     = 16384           // nodes; about 3 MiB
	knownAnswers = 2 * time.Second // how long the database may take before a node is answered with what is known of it
)

// known are the attributes that nodes had when they were last heard of, and names that led to them. They answer while the database is away, so
// that looking at a drive does not hang the one who looks; never otherwise.
type known struct {
	away atomic.Bool // the last that was heard of the database is that it can't be reached

	mu    sync.Mutex // guards the rest
	nodes map[blobstore.Ino]blobstore.Attr
	names map[knownName]blobstore.Ino
}

// A knownName is a name in a folder.
type knownName struct {
	parent blobstore.Ino
	name   string
}

func (k *known) remember(attr blobstore.Attr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if attr.Nlink == 0 {
		delete(k.nodes, attr.Ino)
		return
	}
	if k.nodes == nil {
		k.nodes = make(map[blobstore.Ino]blobstore.Attr)
	}
	makeRoom(k.nodes, attr.Ino, blobstore.RootIno)
	k.nodes[attr.Ino] = attr
}

// rememberName remembers a node and the name that led to it.
func (k *known) rememberName(parent blobstore.Ino, name string, attr blobstore.Attr) {
	k.remember(attr)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.names == nil {
		k.names = make(map[knownName]blobstore.Ino)
	}
	made := knownName{parent, name}
	makeRoom(k.names, made, knownName{})
	k.names[made] = attr.Ino
}

// makeRoom takes one of a map that is full away, any but keep, before a new key is added.
func makeRoom[K comparable, V any](m map[K]V, key, keep K) {
	if _, there := m[key]; there || len(m) < knownMax {
		return
	}
	for old := range m { // the order is random
		if old != keep {
			delete(m, old)
			return
		}
	}
}

func (k *known) forgetName(parent blobstore.Ino, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.names, knownName{parent, name})
}

func (k *known) recall(ino blobstore.Ino) (blobstore.Attr, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	attr, ok := k.nodes[ino]
	return attr, ok
}

// find recalls the node that a name led to.
func (k *known) find(parent blobstore.Ino, name string) (blobstore.Attr, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ino, ok := k.names[knownName{parent, name}]
	if !ok {
		return blobstore.Attr{}, false
	}
	attr, ok := k.nodes[ino]
	return attr, ok
}

// orKnown asks the database what is known already as last, and gives last if the database is away or does not answer soon. ask is to be quick
// about it if it is told to hurry.
func (d *Drive) orKnown(ctx context.Context, last blobstore.Attr, isKnown bool, ask func(ctx context.Context, how commit) (blobstore.Attr, error)) (blobstore.Attr, error) {
	if !isKnown {
		return ask(ctx, reading)
	}
	if d.known.away.Load() {
		return d.peek(last.Ino).pendingOver(last), nil
	}
	soon, cancel := context.WithTimeout(ctx, knownAnswers)
	defer cancel()
	attr, err := ask(soon, impatient)
	if err != nil && ctx.Err() == nil && (soon.Err() != nil || errors.Is(err, blobstore.ErrUnavailable)) {
		return d.peek(last.Ino).pendingOver(last), nil
	}
	return attr, err
}
