package storetest

import (
	"strings"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

var attrTests = []test{
	{"a node has the mode it was made with, whatever the umask of this process", func(w *world) {
		for _, kind := range []uint32{unix.S_IFREG, unix.S_IFDIR, unix.S_IFIFO} {
			for _, mode := range []uint32{0o777, 0o700, 0o1777, 0o4755, 0o6711, 0o755, 0o666 | 0o100} {
				if kind == unix.S_IFDIR {
					mode &^= unix.S_ISUID | unix.S_ISGID
				}
				if a := w.make(root, "made", w.newNode(kind|mode)); a.Mode != kind|mode {
					w.Errorf("make: got mode %o, want %o", a.Mode, kind|mode)
				}
				w.removeAny(root, "made")
			}
		}
		f, a, _, err := w.drive.Create(w.ctx, root, "created", w.newNode(unix.S_IFREG|0o4777), readWrite)
		w.ok(err, "create")
		if a.Mode != unix.S_IFREG|0o4777 {
			w.Errorf("create: got mode %o, want %o", a.Mode, unix.S_IFREG|0o4777)
		}
		w.close(f)
	}},
	{"all twelve bits of a mode change, and the type never does", func(w *world) {
		for ino, kind := range map[blobstore.Ino]uint32{
			w.mkfile(root, "file", ""): unix.S_IFREG, w.mkdir(root, "dir"): unix.S_IFDIR,
			w.make(root, "pipe", w.newNode(unix.S_IFIFO|0o600)).Ino: unix.S_IFIFO,
		} {
			for bit := range 12 {
				mode := uint32(1)<<bit | 0o700 // so that a store that is not run by root can still use the node
				if a := w.chmod(ino, mode); a.Mode != kind|mode {
					w.Errorf("got mode %o, want %o", a.Mode, kind|mode)
				}
				if a := w.chmod(ino, unix.S_IFBLK|mode); a.Mode != kind|mode {
					w.Errorf("with another type: got mode %o, want %o", a.Mode, kind|mode)
				}
			}
			w.chmod(ino, 0o751)
		}
		w.reopen()
		for _, name := range w.names(root) {
			if a := w.lookup(root, name); a.Mode&0o7777 != 0o751 {
				w.Errorf("%s after reopening: got mode %o, want 0751", name, a.Mode)
			}
		}
	}},
	{"a node can have no permissions at all", func(w *world) {
		if !w.AnyOwner {
			return
		}
		ino, dir := w.mkfile(root, "file", "content"), w.mkdir(root, "dir")
		w.chmod(ino, 0)
		w.chmod(dir, 0)
		w.same(w.cat(ino), "content", "content") // whether someone may read is the kernel's business
		w.holds(dir)
	}},
	{"owner and group change each by itself", func(w *world) {
		if !w.AnyOwner {
			return
		}
		ino := w.mkfile(root, "a", "content")
		uid, gid := w.drive.Owner()
		for _, change := range []blobstore.AttrChange{
			{Set: blobstore.SetUID, UID: 1234, GID: gid},
			{Set: blobstore.SetGID, UID: 1234, GID: 4321},
			{Set: blobstore.SetUID | blobstore.SetGID, UID: uid, GID: 1<<32 - 2},
		} {
			if a := w.setAttr(ino, change); a.UID != change.UID || a.GID != change.GID {
				w.Errorf("got owner %d:%d, want %d:%d", a.UID, a.GID, change.UID, change.GID)
			}
		}
	}},
	{"a node belongs to who made it", func(w *world) {
		if !w.AnyOwner {
			return
		}
		for _, kind := range []uint32{unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFIFO} {
			a := w.make(root, "made", blobstore.NewNode{Mode: kind | 0o755, UID: 1234, GID: 4321, Target: "target"})
			if a.UID != 1234 || a.GID != 4321 {
				w.Errorf("type %o: got owner %d:%d, want 1234:4321", kind, a.UID, a.GID)
			}
			w.removeAny(root, "made")
		}
	}},
	{"what is made in a folder with the set-group-ID bit has the folder's group, and a folder the bit too", func(w *world) {
		dir := w.mkdir(root, "dir")
		_, group := w.drive.Owner()
		other := group
		if w.AnyOwner {
			group, other = 4321, 99
			w.setAttr(dir, blobstore.AttrChange{Set: blobstore.SetGID, GID: group})
		}
		w.chmod(dir, 0o2775)
		for kind, want := range map[uint32]uint32{
			unix.S_IFREG: unix.S_IFREG | 0o755, unix.S_IFDIR: unix.S_IFDIR | 0o2755, unix.S_IFIFO: unix.S_IFIFO | 0o755,
		} {
			node := w.newNode(kind | 0o755)
			node.GID = other
			if a := w.make(dir, "made", node); a.Mode != want || a.GID != group {
				w.Errorf("got mode %o and group %d, want %o and %d", a.Mode, a.GID, want, group)
			}
			w.removeAny(dir, "made")
		}
		node := w.newNode(unix.S_IFREG | 0o644)
		node.GID = other
		f, a, _, err := w.drive.Create(w.ctx, dir, "created", node, readWrite)
		w.ok(err, "create")
		if a.GID != group {
			w.Errorf("create: got group %d, want %d", a.GID, group)
		}
		w.close(f)
	}},
	{"SetKillPriv takes the bits that let a file run as another", func(w *world) {
		ino := w.mkfile(root, "a", "content")
		for before, want := range map[uint32]uint32{
			0o4755: 0o755, 0o2755: 0o755, 0o6755: 0o755, 0o6745: 0o2745, 0o1755: 0o1755, // inode(7): no S_IXGRP, no S_ISGID
		} {
			w.chmod(ino, before)
			if a := w.setAttr(ino, blobstore.AttrChange{Set: blobstore.SetKillPriv}); a.Mode&0o7777 != want {
				w.Errorf("mode %o: got %o, want %o", before, a.Mode&0o7777, want)
			}
			a := w.setAttr(ino, blobstore.AttrChange{Set: blobstore.SetKillPriv | blobstore.SetMode, Mode: before})
			if a.Mode&0o7777 != want {
				w.Errorf("mode %o set with it: got %o, want %o", before, a.Mode&0o7777, want)
			}
			w.chmod(ino, before)
			a = w.setAttr(ino, blobstore.AttrChange{Set: blobstore.SetKillPriv | blobstore.SetSize, Size: 3})
			if a.Mode&0o7777 != want || a.Size != 3 {
				w.Errorf("mode %o, truncated with it: got %o and size %d, want %o and 3", before, a.Mode&0o7777, a.Size, want)
			}
		}
		dir := w.mkdir(root, "dir")
		w.chmod(dir, 0o2755)
		if a := w.setAttr(dir, blobstore.AttrChange{Set: blobstore.SetKillPriv}); a.Mode&0o7777 != 0o2755 {
			w.Errorf("a folder: got mode %o, want 2755", a.Mode&0o7777)
		}
	}},
	{"several attributes change at once, and others stay", func(w *world) {
		ino := w.mkfile(root, "a", "content")
		before := w.attr(ino)
		a := w.setAttr(ino, blobstore.AttrChange{
			Set:  blobstore.SetMode | blobstore.SetSize | blobstore.SetMtime,
			Mode: 0o711, Size: 3, MtimeNs: longAgo, UID: 77, GID: 77, AtimeNs: 77,
		})
		want := before
		want.Mode, want.Size, want.MtimeNs = unix.S_IFREG|0o711, 3, longAgo
		a.CtimeNs, a.Allocated = want.CtimeNs, want.Allocated
		if a != want {
			w.Errorf("got %+v, want %+v", a, want)
		}
		w.same(w.cat(ino), "con", "content")
	}},
	{"only a regular file has a size to set", func(w *world) {
		dir := w.mkdir(root, "dir")
		link := w.symlink(root, "link", "target")
		pipe := w.make(root, "pipe", w.newNode(unix.S_IFIFO|0o600)).Ino
		w.unchanged(func() {
			for ino, want := range map[blobstore.Ino]error{
				root: blobstore.ErrIsDir, dir: blobstore.ErrIsDir, link: blobstore.ErrInvalid, pipe: blobstore.ErrInvalid,
			} {
				_, err := w.drive.SetAttr(w.ctx, ino, blobstore.AttrChange{Set: blobstore.SetSize | blobstore.SetMtime})
				w.gives(err, want, "set the size of node %d", ino)
			}
		})
	}},
	{"a size past the limit or below nothing is refused, and nothing else changes with it", func(w *world) {
		ino := w.mkfile(root, "a", "content")
		w.unchanged(func() {
			for size, want := range map[int64]error{
				blobstore.MaxFileSize + 1: blobstore.ErrTooLarge, 1<<63 - 1: blobstore.ErrTooLarge, -1: blobstore.ErrInvalid,
			} {
				_, err := w.drive.SetAttr(w.ctx, ino, blobstore.AttrChange{
					Set: blobstore.SetSize | blobstore.SetMode | blobstore.SetMtime, Size: size, Mode: 0o777, MtimeNs: longAgo,
				})
				w.gives(err, want, "set size %d", size)
			}
		})
	}},
	{"a content takes about as much space as it has bytes", func(w *world) {
		ino := w.mkfile(root, "a", strings.Repeat("x", 1<<20))
		f := w.openFile(ino)
		w.ok(f.Sync(w.ctx), "sync")
		a := w.attr(ino)
		if a.Allocated < 1<<20 || a.Allocated > 1<<20+2*w.Hole+1<<16 || a.Blocks() != a.Allocated/512 {
			w.Errorf("got %d bytes and %d blocks for 1 MiB", a.Allocated, a.Blocks())
		}
		w.close(f)
	}},
}

func (w *world) removeAny(parent blobstore.Ino, name string) {
	w.Helper()
	if a := w.lookup(parent, name); a.IsDir() {
		w.rmdir(parent, name)
	} else {
		w.unlink(parent, name)
	}
}
