package memstore

import (
	"context"
	"slices"

	"mediafs/blobstore"
)

// The positions of the two entries that every folder has. All others come after them, in the order in which they were made,
// each with a number that is never used again in its drive: so a listing can go on from any of them, whatever has come and
// gone meanwhile.
const (
	dotPosition    = 1
	dotDotPosition = 2
)

// A folder is the part of a node that holds names.
type folder struct {
	parent *node // the root is its own; a removed folder keeps the one it had
	names  map[string]*entry
	order  []*entry // the same entries, by position
}

type entry struct {
	name     string
	node     *node
	position uint64
}

// removed says whether a folder that is open still has lost its name, and so can't hold any.
func (n *node) removed() bool { return n.attr.Nlink == 0 }

// parent returns the folder that a name may be in.
func (d *drive) parent(ino blobstore.Ino, name string) (*node, error) {
	n, err := d.node(ino)
	if err != nil {
		return nil, err
	}
	if !n.attr.IsDir() {
		return nil, blobstore.ErrNotDir
	}
	return n, blobstore.CheckName(name)
}

// entry returns a folder and a name in it.
func (d *drive) entry(parent blobstore.Ino, name string) (*node, *entry, error) {
	p, err := d.parent(parent, name)
	if err != nil {
		return nil, nil, err
	}
	e := p.folder.names[name]
	if e == nil {
		return nil, nil, blobstore.ErrNotExist
	}
	return p, e, nil
}

func (d *drive) addEntry(parent *node, name string, n *node) {
	d.position++
	e := &entry{name: name, position: d.position}
	parent.folder.names[name] = e
	parent.folder.order = append(parent.folder.order, e)
	parent.setEntry(e, n)
}

func (d *drive) removeEntry(parent *node, e *entry) {
	if e.node.attr.IsDir() {
		parent.attr.Nlink--
	}
	f := &parent.folder
	delete(f.names, e.name)
	i := f.after(e.position - 1)
	f.order = slices.Delete(f.order, i, i+1)
	parent.modified()
}

// setEntry lets an entry, new or not, stand for a node.
func (n *node) setEntry(e *entry, to *node) {
	if e.node != nil && e.node.attr.IsDir() {
		n.attr.Nlink--
	}
	e.node = to
	if to.attr.IsDir() {
		n.attr.Nlink++
		to.folder.parent = n
	}
	n.modified()
}

// after finds the first entry past a position.
func (f *folder) after(position uint64) int {
	i, _ := slices.BinarySearchFunc(f.order, position+1, func(e *entry, p uint64) int {
		switch {
		case e.position < p:
			return -1
		case e.position > p:
			return 1
		}
		return 0
	})
	return i
}

// A dir keeps nothing of the folder: each Read looks at it anew.
type dir struct {
	drive  *drive
	node   *node
	closed bool
}

func (d *drive) OpenDir(ctx context.Context, ino blobstore.Ino) (l blobstore.Dir, err error) {
	err = d.do(ctx, "open folder", ino, func() error {
		n, err := d.node(ino)
		if err != nil {
			return err
		}
		if !n.attr.IsDir() {
			return blobstore.ErrNotDir
		}
		n.open++
		l = &dir{drive: d, node: n}
		return nil
	})
	return l, err
}

func (l *dir) Read(ctx context.Context, after uint64, attributes bool, take func(*blobstore.Entry) bool) error {
	return l.drive.do(ctx, "list", l.node.attr.Ino, func() error {
		f := &l.node.folder
		for _, dot := range []entry{{".", l.node, dotPosition}, {"..", f.parent, dotDotPosition}} {
			if after < dot.position && !take(dot.listed(false)) {
				return nil
			}
		}
		for _, e := range f.order[f.after(max(after, dotDotPosition)):] {
			if !take(e.listed(attributes)) {
				return nil
			}
		}
		return nil
	})
}

func (e *entry) listed(attributes bool) *blobstore.Entry {
	l := &blobstore.Entry{Name: e.name, Position: e.position, Complete: attributes}
	if attributes {
		l.Attr = e.node.stat()
	} else {
		l.Attr = blobstore.Attr{Ino: e.node.attr.Ino, Mode: e.node.attr.Type()}
	}
	return l
}

func (l *dir) Sync(ctx context.Context) error {
	return l.drive.do(ctx, "sync folder", l.node.attr.Ino, func() error { return nil })
}

func (l *dir) Close() error {
	l.drive.mu.Lock()
	defer l.drive.mu.Unlock()
	if !l.closed {
		l.closed = true
		l.node.open--
		l.drive.drop(l.node)
	}
	return nil
}
