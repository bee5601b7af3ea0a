package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// replayer stores what a spool file has.
type replayer struct {
	drive *Drive
	spool *os.File

	nth   int       // which file of the spool file it is at, from 1
	file  *keptFile // that file; nil before the first
	batch transfer  // what is read of it and not stored
	bytes int64     // in batch
	some  bool      // there were pieces
	stale bool      // the file in the database is not what it was
}

func (r *replayer) run(ctx context.Context) error {
	reader, err := newSpoolReader(io.NewSectionReader(r.spool, 0, math.MaxInt64))
	if err != nil {
		return err
	}
	for {
		file, piece, err := reader.next()
		if err != nil {
			return err
		}
		if piece != nil {
			r.add(*piece)
			if r.bytes >= batchBytes {
				err = r.put(ctx)
			}
		} else {
			err = r.finish(ctx)
		}
		if err != nil || file == nil && piece == nil {
			return err
		}
		if file != nil {
			if err := r.begin(ctx, file); err != nil {
				return err
			}
		}
	}
}

func (r *replayer) begin(ctx context.Context, file *keptFile) error {
	r.nth++
	r.file, r.some, r.stale = file, false, false
	r.empty()
	if file.making == nil {
		return nil
	}
	err := r.make(ctx)
	if errors.Is(err, blobstore.ErrExist) || errors.Is(err, blobstore.ErrNotExist) {
		r.stale, err = true, nil // its name is another's, or its folder is gone
	}
	return err
}

// make makes a file that the database did not have yet, unless it has it by now.
func (r *replayer) make(ctx context.Context) error {
	d, f, m := r.drive, r.file, r.file.making
	_, err := d.putNew(ctx, transfer{
		ino: f.ino, making: &making{parent: m.parent, name: m.name, ns: m.ns},
		made: blobstore.Attr{Mode: m.mode, UID: m.uid, GID: m.gid, AtimeNs: m.atimeNs, MtimeNs: f.mtimeNs, CtimeNs: f.ctimeNs},
	})
	if errors.Is(err, blobstore.ErrExist) {
		there, looking := d.one(ctx, "make", reading, lookupName, d.id, int64(m.parent), []byte(m.name))
		if looking == nil && there.attr.Ino == f.ino {
			return nil
		}
	}
	return err
}

// empty begins a batch.
func (r *replayer) empty() {
	f := r.file
	r.bytes = 0
	r.batch = transfer{ino: f.ino, number: f.number, known: f.known, ctimeNs: f.ctimeNs}
	if f.mtimePending {
		r.batch.mtimeNs = &f.mtimeNs
	}
}

func (r *replayer) add(p keptPiece) {
	r.some = true
	if r.stale {
		return
	}
	t := &r.batch
	t.idx, t.off, t.data = append(t.idx, p.idx), append(t.off, p.off), append(t.data, p.data)
	t.size = max(t.size, p.from(r.drive.chunk)+int64(len(p.data)))
	r.bytes += int64(len(p.data))
}

// put stores a batch, unless what it is of was changed meanwhile.
func (r *replayer) put(ctx context.Context) error {
	if r.stale {
		return nil
	}
	err := r.drive.putKept(ctx, r.batch, *r.file)
	if errors.Is(err, blobstore.ErrStale) {
		r.stale, err = true, nil
	}
	r.empty()
	return err
}

// finish ends a file.
func (r *replayer) finish(ctx context.Context) error {
	if r.file == nil {
		return nil
	}
	if err := r.put(ctx); err != nil || !r.stale || !r.some {
		return err
	}
	return r.rescue(ctx)
}

// putKept is put for what was kept on disk. ErrStale: it may be older than what is there.
func (d *Drive) putKept(ctx context.Context, t transfer, f keptFile) error {
	defer d.changes.Add(1)
	commits := d.commits.Load()
	defer d.known.change(nodeKey(t.ino)).over()
	stored, err := d.one(ctx, "store what was kept on disk", durably,
		"select "+attrColumns+" from mediafs.put_kept($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) n",
		d.id, int64(t.ino), t.number, t.idx, t.off, pieces(t.data), t.size, t.known, t.mtimeNs, t.ctimeNs, f.storedMtime)
	if err != nil {
		return err
	}
	d.isDurable(commits)
	if b := d.peek(t.ino); b != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.version++
		b.dropSegments(0, -1)
		if b.loaded {
			b.learn(stored)
		}
	}
	return nil
}

// rescue stores the pieces of a file in a new one in lost+found, each where it belongs, with holes between them. Done twice it
// makes one file.
func (r *replayer) rescue(ctx context.Context) error {
	d := r.drive
	folder, err := d.Make(ctx, blobstore.RootIno, lostAndFound, blobstore.NewNode{Mode: unix.S_IFDIR | 0o700})
	if errors.Is(err, blobstore.ErrExist) {
		folder, err = d.Lookup(ctx, blobstore.RootIno, lostAndFound)
	}
	if err != nil {
		return err
	}
	name := fmt.Sprintf("ino-%d-%s", r.file.ino, time.Unix(0, r.file.ctimeNs).UTC().Format("20060102T150405.000000000Z"))
	file, _, _, err := d.Create(ctx, folder.Ino, name, blobstore.NewNode{Mode: unix.S_IFREG | 0o600}, blobstore.OpenWrite|blobstore.OpenTruncate)
	if err != nil {
		return err
	}
	err = r.copyPieces(ctx, file)
	if err == nil {
		err = file.Sync(ctx)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	d.log.Warn("a file was changed while bytes of it were kept on disk; they are in "+lostAndFound, "ino", uint64(r.file.ino), "name", name)
	return nil
}

// copyPieces writes the pieces of the file that r is at.
func (r *replayer) copyPieces(ctx context.Context, to blobstore.File) error {
	reader, err := newSpoolReader(io.NewSectionReader(r.spool, 0, math.MaxInt64))
	if err != nil {
		return err
	}
	for at := 0; at <= r.nth; {
		file, piece, err := reader.next()
		switch {
		case err != nil:
			return err
		case file != nil:
			at++
		case piece == nil:
			return nil
		case at == r.nth:
			for off := piece.from(r.drive.chunk); len(piece.data) > 0; {
				n, err := to.WriteAt(ctx, piece.data, off)
				if err != nil {
					return err
				}
				piece.data, off = piece.data[n:], off+int64(n)
			}
		}
	}
	return nil
}
