package pgstore

import (
	"sync"
	"sync/atomic"
	"time"

	"mediafs/blobstore"
)

const (
	knownMax     = 16384           // nodes; about 3 MiB
	knownAnswers = 2 * time.Second // how long the database may take before a node is answered with what is known of it
)

// known are the attributes that nodes had when they were last heard of. They answer while the database is away, so that looking at
// a drive does not hang the one who looks; never otherwise.
type known struct {
	away atomic.Bool // the last that was heard of the database is that it can't be reached

	mu    sync.Mutex // guards nodes
	nodes map[blobstore.Ino]blobstore.Attr
}

func (k *known) remember(attr blobstore.Attr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.nodes == nil {
		k.nodes = make(map[blobstore.Ino]blobstore.Attr)
	}
	if attr.Nlink == 0 {
		delete(k.nodes, attr.Ino)
		return
	}
	if _, ok := k.nodes[attr.Ino]; !ok && len(k.nodes) >= knownMax {
		for ino := range k.nodes { // any: the map's order is random
			if ino != blobstore.RootIno {
				delete(k.nodes, ino)
				break
			}
		}
	}
	k.nodes[attr.Ino] = attr
}

func (k *known) recall(ino blobstore.Ino) (blobstore.Attr, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	attr, ok := k.nodes[ino]
	return attr, ok
}
