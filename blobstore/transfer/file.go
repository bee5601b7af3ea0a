package transfer

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// makingMode is the mode of a file in the making, one that nobody gives a file: its owner may write and execute it, and not read it. Until it has the mode that
// it is to have, the file counts as left over.
const makingMode = 0o300

func isInMaking(a *blobstore.Attr) bool { return a.IsRegular() && a.Mode&0o7777 == makingMode }

// isIncomplete says whether a file of the target is one of this task in the making. A small one may have its mode and its time before it has its content, if the store
// can't store them at once: then it is empty.
func (t *task) isIncomplete(there *blobstore.Attr) bool {
	return isInMaking(there) || there.IsRegular() && there.Size == 0 && t.attr.Size > 0 && there.MtimeNs == t.attr.MtimeNs
}

// errTakenAway is a file in the making that another run has taken for left over.
var errTakenAway = errors.New("another import into the same folder has taken away what this one had in the making")

// to is the path at the target.
func (t *task) to() string { return path.Join("/", t.in.to, t.name) }

// task copies a node that is no folder. Its error is why the run can't go on.
func (r *run) task(ctx context.Context, t *task, buffer []byte) error {
	if t.group != nil {
		return r.linked(ctx, t, buffer)
	}
	dst, err := r.copy(ctx, t, buffer)
	if dst != 0 {
		defer r.to.Forget(dst, 1)
	}
	return r.finish(ctx, t, dst, err)
}

// finish ends a task: what was copied whole is removed if it is to be moved.
func (r *run) finish(ctx context.Context, t *task, dst blobstore.Ino, err error) error {
	if err == nil && r.options.Move {
		if t.group != nil && t.group.failed {
			t.in.stays.Store(true)
		} else if err = r.remove(ctx, t, dst); err != nil {
			err = fmt.Errorf("it is copied, but not removed: %w", err)
		}
	}
	if t.attr.IsRegular() {
		r.progress.Files.Add(1)
		r.progress.Bytes.Add(t.attr.Size - t.counted)
	}
	if err != nil {
		t.in.stays.Store(true)
		if err := r.problem(ctx, t.path(), err); err != nil {
			return err
		}
	}
	t.source.Drive.Forget(t.src, 1)
	return r.done(ctx, t.in)
}

// copy copies a node. With ErrNotKept the node is there.
func (r *run) copy(ctx context.Context, t *task, buffer []byte) (dst blobstore.Ino, err error) {
	if !t.attr.IsRegular() {
		return r.copyOther(ctx, t, buffer)
	}
	for n := 1; ; n++ {
		// Also in a folder that is new: a store that knows its names answers at once, and learns them by being asked.
		dst, err = r.isThere(ctx, t, buffer)
		if !errors.Is(err, blobstore.ErrNotExist) {
			return dst, err
		}
		dst, err = r.copyFile(ctx, t, buffer)
		passing := false
		for _, e := range []error{ErrChanged, errTakenAway, blobstore.ErrExist, blobstore.ErrStale, blobstore.ErrUnavailable} {
			passing = passing || errors.Is(err, e)
		}
		if !passing || n == attempts {
			return dst, err
		}
	}
}

// isThere says whether a copy of a file is there already: ErrNotExist if nothing is, or what was is left over and taken away, ErrConflict if something else is.
func (r *run) isThere(ctx context.Context, t *task, buffer []byte) (blobstore.Ino, error) {
	ctx, got, stop := patient(ctx)
	defer stop()
	there, err := r.to.Lookup(ctx, t.in.dst.Ino, t.name)
	if err != nil {
		return 0, err
	}
	if t.isIncomplete(&there) {
		err = r.takeAway(ctx, t, &there)
	} else if err = r.same(ctx, got, t, &there, buffer); errors.Is(err, blobstore.ErrNotExist) {
		err = fmt.Errorf("it went while it was compared: %w", ErrChanged)
	}
	if err != nil {
		r.to.Forget(there.Ino, 1)
		return 0, err
	}
	r.progress.Present.Add(1)
	return there.Ino, nil
}

// takeAway takes away what is left of a run that did not end, and gives ErrNotExist. Another run may just be completing it: then it stays. That run looks at the
// name after it has completed the file, and here the file is looked at after it has lost its name, so one of the two sees what the other did.
func (r *run) takeAway(ctx context.Context, t *task, there *blobstore.Attr) error {
	part := r.part()
	move := blobstore.Rename{Parent: t.in.dst.Ino, Name: t.name, NewParent: t.in.dst.Ino, NewName: part, Mode: blobstore.RenameNoReplace}
	if err := r.to.Rename(ctx, move); err != nil {
		return err
	}
	now, err := r.to.Attr(ctx, there.Ino)
	if err == nil && !t.isIncomplete(&now) {
		move.Name, move.NewName = part, t.name
		if err = r.to.Rename(ctx, move); err == nil {
			return fmt.Errorf("%w: another import has just made it", ErrConflict)
		}
	}
	return errors.Join(r.to.Unlink(ctx, t.in.dst.Ino, part), blobstore.ErrNotExist)
}

// same gives ErrConflict unless a node of the target is a copy of what is to be copied: by its type, size, time and content.
func (r *run) same(ctx context.Context, got func(), t *task, there *blobstore.Attr, buffer []byte) error {
	switch {
	case there.Type() != t.attr.Type():
		return fmt.Errorf("%w, of another kind", ErrConflict)
	case there.Rdev != t.attr.Rdev && (there.Type() == unix.S_IFCHR || there.Type() == unix.S_IFBLK):
		return fmt.Errorf("%w, another device", ErrConflict)
	case there.Type() == unix.S_IFLNK:
		target, err := t.source.Drive.Readlink(ctx, t.src)
		if err != nil {
			return err
		}
		other, err := r.to.Readlink(ctx, there.Ino)
		if err == nil && target != other {
			err = fmt.Errorf("%w, a link to %q", ErrConflict, other)
		}
		return err
	case !there.IsRegular():
		return nil
	case there.Size != t.attr.Size:
		return fmt.Errorf("%w, of another size", ErrConflict)
	case there.MtimeNs != t.attr.MtimeNs:
		return fmt.Errorf("%w, of another time", ErrConflict)
	}
	sum := func(d blobstore.Drive, a *blobstore.Attr) (digest, error) {
		sum := newDigest()
		f, err := d.Open(ctx, a.Ino, blobstore.OpenRead|blobstore.OpenNoAtime)
		if err != nil {
			return sum, err
		}
		defer f.Close()
		_, err = eachPiece(ctx, f, a.Size, isSparse(a), buffer, func(p []byte, off int64) error {
			sum.add(p, off)
			got()
			return nil
		})
		return sum, err
	}
	from := t.attr
	from.Ino = t.src
	want, err := sum(t.source.Drive, &from)
	if err != nil {
		return err
	}
	have, err := sum(r.to, there)
	if err == nil && want.sum() != have.sum() {
		err = fmt.Errorf("%w, with other content", ErrConflict)
	}
	return err
}

// copyFile copies a regular file that is not there yet. ErrExist if by now it is.
func (r *run) copyFile(ctx context.Context, t *task, buffer []byte) (dst blobstore.Ino, err error) {
	ctx, got, stop := patient(ctx)
	defer stop()
	from, err := t.source.Drive.Open(ctx, t.src, blobstore.OpenRead|blobstore.OpenNoAtime)
	if err != nil {
		return 0, err
	}
	defer from.Close()
	if t.attr, err = t.source.Drive.Attr(ctx, t.src); err != nil {
		return 0, err
	}
	a := &t.attr
	names, err := xattrNames(ctx, t.source, t.src)
	if err != nil {
		return 0, err
	}
	to, made, err := r.create(ctx, t)
	if err != nil {
		return 0, err
	}
	ino := made.Ino
	defer func() {
		closing := to.Close()
		if err == nil {
			err = closing
		}
		if dst == 0 {
			r.discard(ctx, t, ino)
		}
		if err != nil && !errors.Is(err, ErrNotKept) {
			r.to.Forget(ino, 1)
		}
	}()

	sum, end := newDigest(), int64(0)
	r.progress.Bytes.Add(-t.counted) // of an attempt before
	t.counted = 0
	size, err := eachPiece(ctx, from, a.Size, isSparse(a), buffer, func(p []byte, off int64) error {
		for written := 0; written < len(p); { // where not all fits, the next write says why
			n, err := to.WriteAt(ctx, p[written:], off+int64(written))
			if err == nil && n == 0 {
				err = fmt.Errorf("only %d of %d bytes were written: %w", written, len(p), blobstore.ErrNoSpace)
			}
			if err != nil {
				return err
			}
			written += n
		}
		sum.add(p, off)
		end = off + int64(len(p))
		t.counted += int64(len(p))
		r.progress.Bytes.Add(int64(len(p)))
		got()
		return nil
	})
	if err == nil && size < a.Size {
		err = ErrChanged
	}
	if err == nil && end < a.Size {
		_, err = r.to.SetAttr(ctx, ino, blobstore.AttrChange{Set: blobstore.SetSize, Size: a.Size})
	}
	if err != nil {
		return 0, err
	}
	// A small file is stored with all that it is to be at once, where the store can do that. Extended attributes can't come with it, and a large one is only
	// completed when it is known to be right.
	small := a.Size <= bufferSize && len(names) == 0 && r.options.Job == ""
	var lost error
	if small {
		lost, err = r.describe(ctx, t, to, &made)
	} else if err = to.Flush(ctx); err == nil {
		lost, err = r.copyXattrs(ctx, t.source, names, t.src, ino, true)
	}
	got()
	if err == nil {
		err = verify(ctx, got, to, a, sum, buffer)
	}
	if err != nil {
		return 0, err
	}
	if now, err := t.source.Drive.Attr(ctx, t.src); err != nil {
		return 0, err
	} else if !unchanged(a, &now) {
		return 0, ErrChanged
	}
	if !small {
		var unowned error
		if unowned, err = r.describe(ctx, t, to, &made); unowned != nil {
			lost = unowned
		}
	}
	if err == nil {
		err = r.stillHere(ctx, t, ino)
	}
	if err != nil {
		return 0, err
	}
	r.record(t.source.Drive, blobstore.ActionOpen, t.path(), t.src)
	r.record(r.to, blobstore.ActionCreate, t.to(), ino)
	r.progress.Copied.Add(1)
	r.progress.CopiedBytes.Add(a.Size)
	return ino, lost
}

// create makes a file in the making.
func (r *run) create(ctx context.Context, t *task) (blobstore.File, blobstore.Attr, error) {
	const flags = blobstore.OpenRead | blobstore.OpenWrite | blobstore.OpenExclusive | blobstore.OpenNoAtime
	node := r.newNode(&t.attr, t.source)
	node.Mode = unix.S_IFREG | makingMode
	f, attr, _, err := r.to.Create(ctx, t.in.dst.Ino, t.name, node, flags)
	if errors.Is(err, blobstore.ErrPermission) {
		f, attr, _, err = r.to.Create(ctx, t.in.dst.Ino, t.name, r.ownNode(node), flags)
	}
	return f, attr, err
}

// describe completes a file: with its mode it is no longer in the making. lost says what of it can't be kept.
func (r *run) describe(ctx context.Context, t *task, to blobstore.File, made *blobstore.Attr) (lost, err error) {
	err = r.setAttr(ctx, made, &t.attr, t.source)
	if errors.Is(err, ErrNotKept) {
		lost, err = err, nil
	}
	if err != nil {
		return lost, err
	}
	return lost, to.Flush(ctx)
}

// stillHere gives errTakenAway unless a file that was just completed has its name.
func (r *run) stillHere(ctx context.Context, t *task, ino blobstore.Ino) error {
	there, err := r.to.Lookup(ctx, t.in.dst.Ino, t.name)
	if errors.Is(err, blobstore.ErrNotExist) {
		return errTakenAway
	}
	if err != nil {
		return err
	}
	r.to.Forget(there.Ino, 1)
	if there.Ino != ino {
		return errTakenAway
	}
	return nil
}

// verify reads back what was stored.
func verify(ctx context.Context, got func(), f blobstore.File, want *blobstore.Attr, sum digest, buffer []byte) error {
	back := newDigest()
	end, err := eachPiece(ctx, f, want.Size, isSparse(want), buffer, func(p []byte, off int64) error {
		back.add(p, off)
		got()
		return nil
	})
	if err == nil && (end != want.Size || back.sum() != sum.sum()) {
		err = ErrDiffers
	}
	return err
}

// unchanged says whether a node of a source still is as it was.
func unchanged(before, now *blobstore.Attr) bool {
	return before.Ino == now.Ino && before.Generation == now.Generation && before.Mode == now.Mode && before.Size == now.Size &&
		before.MtimeNs == now.MtimeNs && before.CtimeNs == now.CtimeNs
}

// discard takes away a file that can't be completed, also when the run ends; what can't be taken away the next run does. What it holds that can't be stored is
// dropped with it.
func (r *run) discard(ctx context.Context, t *task, ino blobstore.Ino) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_, _ = r.to.SetAttr(ctx, ino, blobstore.AttrChange{Set: blobstore.SetSize | blobstore.SetMode, Mode: makingMode})
	if r.stillHere(ctx, t, ino) == nil {
		_ = r.to.Unlink(ctx, t.in.dst.Ino, t.name)
	}
}

// copyOther copies a symbolic link or a special file, which is made under its name at once: made again it is the same.
func (r *run) copyOther(ctx context.Context, t *task, buffer []byte) (dst blobstore.Ino, err error) {
	ctx, got, stop := patient(ctx)
	defer stop()
	node := r.newNode(&t.attr, t.source)
	if t.attr.Type() == unix.S_IFLNK {
		if node.Target, err = t.source.Drive.Readlink(ctx, t.src); err != nil {
			return 0, err
		}
	}
	made, err := r.make(ctx, t.in.dst.Ino, t.name, node)
	isNew := err == nil
	if errors.Is(err, blobstore.ErrExist) {
		if made, err = r.to.Lookup(ctx, t.in.dst.Ino, t.name); err == nil {
			err = r.same(ctx, got, t, &made, buffer)
		}
	}
	if err != nil {
		return 0, err
	}
	if isNew {
		r.record(r.to, blobstore.ActionCreate, t.to(), made.Ino)
	}
	names, err := xattrNames(ctx, t.source, t.src)
	if err != nil {
		return made.Ino, err
	}
	lost, err := r.copyXattrs(ctx, t.source, names, t.src, made.Ino, false)
	if err == nil && (isNew || made.MtimeNs != t.attr.MtimeNs || made.Mode != t.attr.Mode) {
		err = r.setAttr(ctx, &made, &t.attr, t.source)
	}
	if err == nil {
		err = lost
	}
	r.progress.Others.Add(1)
	return made.Ino, err
}

// remove removes the source of a copy that is whole, once that is durable, if the source still is what was copied.
func (r *run) remove(ctx context.Context, t *task, dst blobstore.Ino) error {
	ctx, _, stop := patient(ctx)
	defer stop()
	if err := r.sync(ctx, t, dst); err != nil {
		return err
	}
	now, err := t.source.Drive.Lookup(ctx, t.parent, t.name)
	if err != nil {
		return err
	}
	t.source.Drive.Forget(now.Ino, 1)
	if t.group != nil {
		now.CtimeNs = t.attr.CtimeNs // which removing its other names has changed
	}
	if !unchanged(&t.attr, &now) {
		return ErrChanged
	}
	if err := t.source.Drive.Unlink(ctx, t.parent, t.name); err != nil {
		return err
	}
	if t.attr.IsRegular() {
		r.progress.Removed.Add(1)
	}
	return nil
}

// sync makes a copy and its name durable.
func (r *run) sync(ctx context.Context, t *task, dst blobstore.Ino) error {
	if t.attr.IsRegular() {
		f, err := r.to.Open(ctx, dst, blobstore.OpenRead|blobstore.OpenNoAtime)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(ctx), f.Close())
	}
	return r.syncFolder(ctx, t.in.dst.Ino)
}

func (r *run) syncFolder(ctx context.Context, ino blobstore.Ino) error {
	dir, err := r.to.OpenDir(ctx, ino)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(ctx), dir.Close())
}

// removeFolder removes a folder of the source that is copied and empty by now. One in which something is left, which came while it was copied, stays.
func (r *run) removeFolder(ctx context.Context, f *folder) error {
	if err := r.syncFolder(ctx, f.dst.Ino); err != nil {
		return err
	}
	err := f.source.Drive.Rmdir(ctx, f.up.src, f.name)
	if errors.Is(err, blobstore.ErrNotEmpty) {
		return fmt.Errorf("something came into it meanwhile: %w", err)
	}
	return err
}
