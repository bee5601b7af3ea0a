package storetest

import (
	"strings"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

var linkTests = []test{
	{"two names of a file are one node", func(w *world) {
		dir := w.mkdir(root, "dir")
		ino := w.mkfile(root, "a", "content")
		if a := w.link(ino, dir, "b"); a.Ino != ino || a.Nlink != 2 {
			w.Errorf("got %+v, want node %d with 2 names", a, ino)
		}
		if a := w.lookup(dir, "b"); a.Ino != ino || a.Nlink != 2 {
			w.Errorf("got %+v, want node %d with 2 names", a, ino)
		}
		f := w.openFile(w.lookup(dir, "b").Ino)
		w.write(f, 0, "CON")
		w.close(f)
		w.same(w.cat(w.lookup(root, "a").Ino), "CONtent", "content by the other name")
		w.unlink(root, "a")
		w.nlink(ino, 1)
		w.same(w.cat(ino), "CONtent", "content after one name went")
		w.unlink(dir, "b")
		w.gone(ino)
	}},
	{"links and special files can have two names too", func(w *world) {
		for name, ino := range map[string]blobstore.Ino{
			"link": w.symlink(root, "link", "target"),
			"pipe": w.make(root, "pipe", w.newNode(unix.S_IFIFO|0o600)).Ino,
		} {
			if a := w.link(ino, root, name+"2"); a.Ino != ino || a.Nlink != 2 {
				w.Errorf("got %+v, want node %d with 2 names", a, ino)
			}
		}
	}},
	{"a folder gets no second name", func(w *world) {
		dir := w.mkdir(root, "dir")
		w.unchanged(func() {
			for ino, parent := range map[blobstore.Ino]blobstore.Ino{dir: root, root: dir} {
				_, err := w.drive.Link(w.ctx, ino, parent, "new")
				w.gives(err, blobstore.ErrPermission, "link folder %d", ino)
			}
		})
	}},
	{"Link takes no name that is there", func(w *world) {
		ino := w.mkfile(root, "a", "content")
		w.mkfile(root, "b", "other")
		w.mkdir(root, "dir")
		w.unchanged(func() {
			for _, name := range []string{"a", "b", "dir"} {
				_, err := w.drive.Link(w.ctx, ino, root, name)
				w.gives(err, blobstore.ErrExist, "link as %s", name)
			}
		})
	}},
	{"a file that lost its last name while open gets no other", func(w *world) {
		f, ino := w.create(root, "a")
		w.unlink(root, "a")
		_, err := w.drive.Link(w.ctx, ino, root, "b")
		w.gives(err, blobstore.ErrNotExist, "link")
		w.holds(root)
		w.close(f)
	}},
	{"a symbolic link keeps its target byte for byte", func(w *world) {
		targets := []string{
			"a", ".", "..", "/", "/etc/passwd", "../../../../etc/passwd", "a//b/./..//", "trailing/", " ", "\xff\xfe\n", "日本語",
			strings.Repeat("x", blobstore.MaxNameLen+1), strings.Repeat("d/", 2000), strings.Repeat("x", blobstore.MaxTargetLen),
		}
		check := func() {
			for i, target := range targets {
				a := w.lookup(root, string(rune('a'+i)))
				got, err := w.drive.Readlink(w.ctx, a.Ino)
				w.ok(err, "read link")
				w.same(got, target, "target")
				if a.Type() != unix.S_IFLNK || a.Size != int64(len(target)) || a.Mode&0o777 != 0o777 {
					w.Errorf("got mode %o and size %d, want a link of %d bytes and mode 0777", a.Mode, a.Size, len(target))
				}
			}
		}
		for i, target := range targets {
			w.symlink(root, string(rune('a'+i)), target)
		}
		check()
		w.reopen()
		check()
	}},
	{"a symbolic link has a target of 1 to 4095 bytes", func(w *world) {
		for target, want := range map[string]error{
			"": blobstore.ErrNotExist, strings.Repeat("x", blobstore.MaxTargetLen+1): blobstore.ErrNameTooLong, // symlink(2)
		} {
			node := w.newNode(unix.S_IFLNK | 0o777)
			node.Target = target
			_, err := w.drive.Make(w.ctx, root, "link", node)
			w.gives(err, want, "link to %d bytes", len(target))
		}
		w.holds(root)
	}},
	{"only a symbolic link has a target", func(w *world) {
		for _, ino := range []blobstore.Ino{
			root, w.mkdir(root, "dir"), w.mkfile(root, "file", "content"), w.make(root, "pipe", w.newNode(unix.S_IFIFO|0o600)).Ino,
		} {
			_, err := w.drive.Readlink(w.ctx, ino)
			w.gives(err, blobstore.ErrInvalid, "read link %d", ino)
		}
	}},
	{"only a regular file opens", func(w *world) {
		for ino, want := range map[blobstore.Ino]error{
			root: blobstore.ErrIsDir, w.mkdir(root, "dir"): blobstore.ErrIsDir,
			w.symlink(root, "link", "file"):                         blobstore.ErrInvalid,
			w.make(root, "pipe", w.newNode(unix.S_IFIFO|0o600)).Ino: blobstore.ErrInvalid,
		} {
			for _, flags := range []blobstore.OpenFlags{blobstore.OpenRead, readWrite} {
				_, err := w.drive.Open(w.ctx, ino, flags)
				w.gives(err, want, "open node %d", ino)
			}
		}
	}},
	{"a device keeps its number", func(w *world) {
		if !w.AnyOwner {
			return
		}
		// new_encode_dev of the kernel: the low 8 bits of the minor, 12 of the major, the other 12 of the minor
		for i, rdev := range []uint32{0x0103, 0x0801, 5<<8 | 1, 0xfff00 | 0xff, 1<<20 | 0x0800, 0xffffffff} {
			for _, kind := range []uint32{unix.S_IFCHR, unix.S_IFBLK} {
				name := string(rune('a'+i)) + string(rune('0'+kind>>12))
				node := w.newNode(kind | 0o600)
				node.Rdev = rdev
				for what, a := range map[string]blobstore.Attr{
					"made": w.make(root, name, node), "looked up": w.lookup(root, name),
				} {
					if a.Mode != kind|0o600 || a.Rdev != rdev || a.Size != 0 {
						w.Errorf("%s: got mode %o, device %#x and size %d, want %o, %#x and 0", what, a.Mode, a.Rdev, a.Size, kind|0o600, rdev)
					}
				}
			}
		}
	}},
}
