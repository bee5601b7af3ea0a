package storetest

import (
	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

var renameTests = []test{
	{"a file moves within its folder and keeps its number", func(w *world) {
		ino := w.mkfile(root, "a", "content")
		w.moves(root, "a", root, "b")
		w.holds(root, "b")
		if got := w.lookup(root, "b").Ino; got != ino {
			w.Errorf("got node %d, want %d", got, ino)
		}
		w.same(w.cat(ino), "content", "content")
		w.nlink(ino, 1)
	}},
	{"a file moves to another folder", func(w *world) {
		from, to := w.mkdir(root, "from"), w.mkdir(root, "to")
		ino := w.mkfile(from, "a", "content")
		w.moves(from, "a", to, "b")
		w.holds(from)
		w.holds(to, "b")
		w.same(w.cat(ino), "content", "content")
		w.nlink(from, 2)
		w.nlink(to, 2)
	}},
	{"links and special files move as files do", func(w *world) {
		to := w.mkdir(root, "to")
		w.symlink(root, "link", "target")
		w.make(root, "pipe", w.newNode(unix.S_IFIFO|0o600))
		w.moves(root, "link", to, "link")
		w.moves(root, "pipe", to, "pipe")
		w.holds(to, "link", "pipe")
	}},
	{"a folder moves with all that is in it", func(w *world) {
		from, to := w.mkdir(root, "from"), w.mkdir(root, "to")
		dir := w.mkdir(from, "dir")
		deep := w.mkdir(w.mkdir(dir, "1"), "2")
		ino := w.mkfile(deep, "a", "content")
		w.nlink(from, 3)
		w.moves(from, "dir", to, "moved")
		w.nlink(from, 2)
		w.nlink(to, 3)
		w.nlink(dir, 3)
		w.holds(from)
		w.holds(to, "moved")
		if got := w.list(dir, true)[".."].Attr.Ino; got != to {
			w.Errorf("got parent %d, want %d", got, to)
		}
		at := to
		for _, name := range []string{"moved", "1", "2", "a"} {
			at = w.lookup(at, name).Ino
		}
		if at != ino {
			w.Errorf("got node %d at the end of the path, want %d", at, ino)
		}
	}},
	{"a file replaces a file, which goes", func(w *world) {
		dir := w.mkdir(root, "dir")
		a, b := w.mkfile(root, "a", "new"), w.mkfile(dir, "b", "old")
		w.moves(root, "a", dir, "b")
		w.holds(root, "dir")
		w.holds(dir, "b")
		w.same(w.cat(w.lookup(dir, "b").Ino), "new", "content")
		w.nlink(a, 1)
		w.gone(b)
	}},
	{"a replaced file that is open lives until it closes", func(w *world) {
		w.mkfile(root, "a", "new")
		b := w.mkfile(root, "b", "old")
		f := w.openFile(b)
		w.moves(root, "a", root, "b")
		w.same(w.content(f), "old", "content of the replaced file")
		w.nlink(b, 0)
		w.close(f)
		w.gone(b)
		w.same(w.cat(w.lookup(root, "b").Ino), "new", "content of the name")
	}},
	{"a replaced file that has another name keeps that", func(w *world) {
		w.mkfile(root, "a", "new")
		b := w.mkfile(root, "b", "old")
		w.link(b, root, "c")
		w.moves(root, "a", root, "b")
		w.nlink(b, 1)
		w.same(w.cat(w.lookup(root, "c").Ino), "old", "content")
	}},
	{"files, links and special files replace each other", func(w *world) {
		w.mkfile(root, "file", "content")
		w.symlink(root, "link", "dir")
		w.mkdir(root, "dir")
		w.make(root, "pipe", w.newNode(unix.S_IFIFO|0o600))
		w.moves(root, "file", root, "link")
		w.moves(root, "pipe", root, "link")
		w.symlink(root, "link2", "dir")
		w.moves(root, "link2", root, "link")
		if a := w.lookup(root, "link"); a.Type() != unix.S_IFLNK {
			w.Errorf("got mode %o, want a symbolic link", a.Mode)
		}
		w.holds(root, "dir", "link")
	}},
	{"a folder replaces an empty folder, and no other", func(w *world) {
		dir, empty, full := w.mkdir(root, "dir"), w.mkdir(root, "empty"), w.mkdir(root, "full")
		w.mkfile(full, "file", "")
		w.mkdir(dir, "sub")
		w.unchanged(func() {
			w.refuses(root, "dir", root, "full", blobstore.RenameReplace, blobstore.ErrNotEmpty)
		})
		w.moves(root, "dir", root, "empty")
		w.gone(empty)
		w.holds(root, "empty", "full")
		w.holds(dir, "sub")
		w.nlink(root, 4)
	}},
	{"a folder replaces no file, and a file no folder", func(w *world) {
		w.mkdir(root, "dir")
		w.mkfile(root, "file", "content")
		w.symlink(root, "link", "dir")
		w.unchanged(func() {
			w.refuses(root, "dir", root, "file", blobstore.RenameReplace, blobstore.ErrNotDir)
			w.refuses(root, "dir", root, "link", blobstore.RenameReplace, blobstore.ErrNotDir)
			w.refuses(root, "file", root, "dir", blobstore.RenameReplace, blobstore.ErrIsDir)
			w.refuses(root, "link", root, "dir", blobstore.RenameReplace, blobstore.ErrIsDir)
		})
	}},
	{"a folder does not come to be inside itself", func(w *world) {
		a := w.mkdir(root, "a")
		b := w.mkdir(a, "b")
		c := w.mkdir(b, "c")
		w.unchanged(func() {
			for _, mode := range []blobstore.RenameMode{blobstore.RenameReplace, blobstore.RenameNoReplace} {
				for _, to := range []blobstore.Ino{a, b, c} {
					w.refuses(root, "a", to, "new", mode, blobstore.ErrInvalid)
				}
			}
			w.refuses(root, "a", b, "c", blobstore.RenameReplace, blobstore.ErrInvalid)
			w.refuses(root, "a", b, "c", blobstore.RenameExchange, blobstore.ErrInvalid)
			w.refuses(b, "c", root, "a", blobstore.RenameExchange, blobstore.ErrInvalid)
		})
	}},
	{"nothing replaces a folder that it is inside", func(w *world) {
		a := w.mkdir(root, "a")
		w.mkdir(w.mkdir(a, "b"), "c")
		w.mkfile(a, "file", "content")
		w.unchanged(func() {
			w.refuses(a, "b", root, "a", blobstore.RenameReplace, blobstore.ErrNotEmpty)
			w.refuses(w.lookup(a, "b").Ino, "c", root, "a", blobstore.RenameReplace, blobstore.ErrNotEmpty)
			w.refuses(a, "file", root, "a", blobstore.RenameReplace, blobstore.ErrNotEmpty) // do_renameat2 of the kernel
		})
	}},
	{"nothing happens if both names are one node", func(w *world) {
		dir := w.mkdir(root, "dir")
		ino := w.mkfile(root, "a", "content")
		w.link(ino, dir, "b")
		w.unchanged(func() {
			w.moves(root, "a", dir, "b")
			w.moves(root, "a", root, "a")
			w.moves(root, "dir", root, "dir")
			w.ok(w.rename(root, "a", dir, "b", blobstore.RenameExchange), "exchange two names of one node")
			w.ok(w.rename(root, "a", root, "a", blobstore.RenameExchange), "exchange a name with itself")
		})
	}},
	{"a name that is not there can't be moved", func(w *world) {
		w.mkfile(root, "a", "content")
		dir := w.mkdir(root, "dir")
		w.unchanged(func() {
			for _, mode := range []blobstore.RenameMode{blobstore.RenameReplace, blobstore.RenameNoReplace, blobstore.RenameExchange} {
				w.refuses(root, "b", root, "c", mode, blobstore.ErrNotExist)
				w.refuses(dir, "a", root, "c", mode, blobstore.ErrNotExist)
			}
			w.refuses(root, "b", root, "a", blobstore.RenameReplace, blobstore.ErrNotExist)
		})
	}},
	{"nothing moves into a folder that was removed", func(w *world) {
		dir := w.mkdir(root, "dir")
		w.mkfile(root, "a", "content")
		w.rmdir(root, "dir")
		w.unchanged(func() {
			w.refuses(root, "a", dir, "a", blobstore.RenameReplace, blobstore.ErrNotExist)
		})
	}},
	{"RenameNoReplace moves only to a name that is free", func(w *world) {
		dir := w.mkdir(root, "dir")
		ino := w.mkfile(root, "a", "content")
		w.mkfile(root, "b", "other")
		w.unchanged(func() {
			for _, to := range []string{"a", "b", "dir"} {
				w.refuses(root, "a", root, to, blobstore.RenameNoReplace, blobstore.ErrExist)
			}
			w.refuses(root, "dir", root, "b", blobstore.RenameNoReplace, blobstore.ErrExist)
		})
		w.ok(w.rename(root, "a", dir, "c", blobstore.RenameNoReplace), "rename to a free name")
		w.holds(root, "b", "dir")
		if got := w.lookup(dir, "c").Ino; got != ino {
			w.Errorf("got node %d, want %d", got, ino)
		}
	}},
	{"RenameExchange lets two nodes of any kinds change places", func(w *world) {
		one, other := w.mkdir(root, "one"), w.mkdir(root, "other")
		a, b := w.mkfile(one, "a", "a's"), w.mkfile(other, "b", "b's")
		w.exchanges(one, "a", other, "b")
		w.same(w.cat(a), "a's", "content")
		w.same(w.cat(b), "b's", "content")
		w.exchanges(root, "one", root, "other")
		w.symlink(root, "link", "target")
		w.exchanges(root, "link", other, "b")
		w.exchanges(root, "one", root, "other")
		w.nlink(a, 1)
		w.nlink(b, 1)
	}},
	{"RenameExchange of a folder and a file moves the count of folders", func(w *world) {
		left, right := w.mkdir(root, "left"), w.mkdir(root, "right")
		dir := w.mkdir(left, "x")
		w.mkfile(dir, "in it", "content")
		w.mkfile(right, "y", "content")
		w.nlink(left, 3)
		w.exchanges(left, "x", right, "y")
		w.nlink(left, 2)
		w.nlink(right, 3)
		w.nlink(dir, 2)
		if got := w.list(dir, false)[".."].Attr.Ino; got != right {
			w.Errorf("got parent %d, want %d", got, right)
		}
		w.holds(dir, "in it")
		w.exchanges(left, "x", right, "y")
		w.nlink(left, 3)
		w.nlink(right, 2)
		w.exchanges(root, "right", left, "x")
		w.nlink(left, 3)
		w.nlink(root, 4)
	}},
	{"RenameExchange needs both names", func(w *world) {
		w.mkfile(root, "a", "content")
		w.unchanged(func() {
			w.refuses(root, "a", root, "b", blobstore.RenameExchange, blobstore.ErrNotExist)
		})
	}},
	{"a chain of renames ends where it should after the store was opened anew", func(w *world) {
		dir := w.mkdir(root, "dir")
		w.mkfile(root, "a", "a's")
		w.mkfile(root, "b", "b's")
		w.moves(root, "a", dir, "a")
		w.moves(root, "b", root, "a")
		w.exchanges(root, "a", dir, "a")
		w.moves(root, "dir", root, "folder")
		before := w.tree()
		w.reopen()
		w.sameTree(w.tree(), before)
		w.same(w.cat(w.lookup(root, "a").Ino), "a's", "content")
	}},
}

func (w *world) rename(from blobstore.Ino, name string, to blobstore.Ino, newName string, mode blobstore.RenameMode) error {
	return w.drive.Rename(w.ctx, blobstore.Rename{Parent: from, Name: name, NewParent: to, NewName: newName, Mode: mode})
}

func (w *world) moves(from blobstore.Ino, name string, to blobstore.Ino, newName string) {
	w.Helper()
	w.ok(w.rename(from, name, to, newName, blobstore.RenameReplace), "rename %q to %q", name, newName)
}

func (w *world) exchanges(from blobstore.Ino, name string, to blobstore.Ino, newName string) {
	w.Helper()
	one, other := w.lookup(from, name).Ino, w.lookup(to, newName).Ino
	w.ok(w.rename(from, name, to, newName, blobstore.RenameExchange), "exchange %q and %q", name, newName)
	if got := w.lookup(from, name).Ino; got != other {
		w.Errorf("%q: got node %d, want %d", name, got, other)
	}
	if got := w.lookup(to, newName).Ino; got != one {
		w.Errorf("%q: got node %d, want %d", newName, got, one)
	}
}

func (w *world) refuses(from blobstore.Ino, name string, to blobstore.Ino, newName string, mode blobstore.RenameMode, want error) {
	w.Helper()
	w.gives(w.rename(from, name, to, newName, mode), want, "rename %q to %q in mode %d", name, newName, mode)
}
