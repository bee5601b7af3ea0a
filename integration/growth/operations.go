package main

import (
	"context"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// An operation is what is measured: do does it once, on something at random, and says how many things that were.
type operation struct {
	name  string
	times int // in a round
	do    func(ctx context.Context, w *world, r *rand.Rand) (things int, err error)
}

// operations are those of an axis.
func (a axis) operations() []operation {
	all := []operation{
		{"lookup", 200, lookup},
		{"create and close", 60, create},
		{"list, per entry", 40, list},
		{"open, read 4 KiB, close", 100, read},
		{"move to another folder", 60, move},
		{"remove", 60, remove},
	}
	if a.many {
		all = append(all,
			operation{"lookup in the large folder", 200, lookupInMany},
			operation{"list the large folder, per entry", 1, listMany},
			operation{"create in the large folder", 60, createInMany},
			operation{"remove there", 60, remove})
	}
	if a.open {
		all = append(all, operation{"open and close a drive", 20, openAndClose})
	}
	return all
}

func lookup(ctx context.Context, w *world, r *rand.Rand) (int, error) {
	p, i := w.drive(r), r.IntN(w.albums()*w.size.album)
	_, err := p.Lookup(ctx, w.album(p, i/w.size.album), fileName(i))
	return 1, err
}

func lookupInMany(ctx context.Context, w *world, r *rand.Rand) (int, error) {
	p := w.drive(r)
	_, err := p.Lookup(ctx, w.manyFolder(p), fileName(w.albums()*w.size.album+r.IntN(w.manyFiles())))
	return 1, err
}

// What create makes, remove takes away again: the drives and the folders stay as they are.
func create(ctx context.Context, w *world, r *rand.Rand) (int, error) {
	p := w.drive(r)
	parent := w.album(p, r.IntN(w.albums()))
	return 1, w.make(ctx, p, parent)
}

func createInMany(ctx context.Context, w *world, r *rand.Rand) (int, error) {
	p := w.drive(r)
	return 1, w.make(ctx, p, w.manyFolder(p))
}

// A made is a file that create has made.
type made struct {
	place  place
	parent blobstore.Ino
	name   string
}

func (w *world) make(ctx context.Context, p place, parent blobstore.Ino) error {
	name := fmt.Sprintf("new%d", len(w.made))
	f, _, _, err := p.Create(ctx, parent, name, blobstore.NewNode{Mode: unix.S_IFREG | 0o644}, blobstore.OpenWrite|blobstore.OpenExclusive)
	if err != nil {
		return err
	}
	w.made = append(w.made, made{p, parent, name})
	if err := f.Flush(ctx); err != nil {
		return err
	}
	return f.Close()
}

func remove(ctx context.Context, w *world, _ *rand.Rand) (int, error) {
	last := w.made[len(w.made)-1]
	w.made = w.made[:len(w.made)-1]
	return 1, last.place.Unlink(ctx, last.parent, last.name)
}

// move moves what create has made, one file after the other.
func move(ctx context.Context, w *world, r *rand.Rand) (int, error) {
	m := &w.made[w.moved%len(w.made)]
	w.moved++
	parent := w.album(m.place, r.IntN(w.albums()))
	name := fmt.Sprintf("moved%d", w.moved)
	err := m.place.Rename(ctx, blobstore.Rename{Parent: m.parent, Name: m.name, NewParent: parent, NewName: name})
	m.parent, m.name = parent, name
	return 1, err
}

func list(ctx context.Context, w *world, r *rand.Rand) (int, error) {
	p := w.drive(r)
	return listFolder(ctx, p, w.album(p, r.IntN(w.albums())))
}

// listMany lists the large folder, or the first so many of its names.
func listMany(ctx context.Context, w *world, r *rand.Rand) (int, error) {
	p := w.drive(r)
	return listFolder(ctx, p, w.manyFolder(p))
}

const listMax = 100_000

func listFolder(ctx context.Context, p place, folder blobstore.Ino) (int, error) {
	d, err := p.OpenDir(ctx, folder)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	n := 0
	err = d.Read(ctx, 0, true, func(*blobstore.Entry) bool {
		n++
		return n < listMax
	})
	return n, err
}

// read reads from a chunk that has all its bytes.
func read(ctx context.Context, w *world, r *rand.Rand) (int, error) {
	p := w.drive(r)
	f, err := p.Open(ctx, w.file(p, r.IntN(w.size.files)), blobstore.OpenRead|blobstore.OpenNoAtime)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buffer := make([]byte, 4096)
	off, want := int64(0), smallBytes
	if w.size.chunks > 1 {
		off = int64(r.IntN(w.size.chunks/fullEvery))*fullEvery*chunkSize + int64(r.IntN(chunkSize/4096))*4096
		want = len(buffer)
	}
	n, err := f.ReadAt(ctx, buffer, off)
	if err == nil && (n != want || buffer[0] == 0 || buffer[n-1] == 0) {
		err = fmt.Errorf("read %d bytes at %d, want %d and none of them zero", n, off, want)
	}
	return 1, err
}

func openAndClose(ctx context.Context, w *world, r *rand.Rand) (int, error) {
	drive, err := w.openDrive(ctx, 1+r.IntN(w.size.drives))
	if err != nil {
		return 0, err
	}
	return 1, drive.Close(ctx)
}
