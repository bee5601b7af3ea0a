package storetest

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// strangeNames are names that go wrong where a name is taken for text, a path, an option, a pattern or a line.
var strangeNames = []string{
	" ", "  ", "...", "..a", "-rf", "a b", "tab\there", "line\nbreak", "\r", "\x01", "\x7f", "\x1b[31m", "*", "?", "[a-z]", "%s", "%00",
	"_", "'", `"`, "`id`", "$HOME", `\`, `\x00`, "a\\", "a:b", "con", ".", "nul.txt", "A", "a", "é", "e\u0301", "ÉTÉ", "日本語", "\u202etxt",
	"\ufeff", "\xff", "\xff\xfe", "\xc3", "\xc3\x28", "\xed\xa0\x80", "\x80\x80", "{}", "<>", "|", ";", "&", "#", "~", "null", "NULL", "0",
	strings.Repeat("x", 254), strings.Repeat("x", blobstore.MaxNameLen), strings.Repeat("\xff", blobstore.MaxNameLen),
	strings.Repeat("é", 127) + "x",
}

// badNames are names that no folder can hold; blobstore.CheckName has the error of each.
var badNames = []string{
	"", ".", "..", "/", "a/b", "/a", "a/", "../a", "a\x00", "\x00", strings.Repeat("x", blobstore.MaxNameLen+1), strings.Repeat("x", 5000),
}

var nameTests = []test{
	{"a name is found after it was made, and not before", func(w *world) {
		w.missing(root, "a")
		ino := w.mkdir(root, "a")
		if got := w.lookup(root, "a"); got.Ino != ino || !got.IsDir() {
			w.Errorf("got %+v, want folder %d", got, ino)
		}
		w.missing(root, "A")
		w.missing(ino, "a")
	}},
	{"a name may have any bytes but a slash and NUL", func(w *world) {
		var names []string
		for c := 1; c < 256; c++ {
			if c != '/' {
				names = append(names, "x"+string([]byte{byte(c)}))
			}
		}
		w.keepsNames(names)
	}},
	{"a name is bytes, not text, a path or a pattern", func(w *world) {
		var names []string
		for _, name := range strangeNames {
			if blobstore.CheckName(name) == nil {
				names = append(names, name)
			}
		}
		w.keepsNames(names)
	}},
	{"a name that no folder can hold is refused by every method", func(w *world) {
		file := w.mkfile(root, "file", "")
		node := w.newNode(unix.S_IFREG | 0o644)
		w.unchanged(func() {
			for _, name := range badNames {
				want := blobstore.CheckName(name)
				_, err := w.drive.Lookup(w.ctx, root, name)
				w.gives(err, want, "look up %.20q", name)
				_, _, _, err = w.drive.Create(w.ctx, root, name, node, readWrite)
				w.gives(err, want, "create %.20q", name)
				_, err = w.drive.Make(w.ctx, root, name, node)
				w.gives(err, want, "make %.20q", name)
				_, err = w.drive.Link(w.ctx, file, root, name)
				w.gives(err, want, "link %.20q", name)
				w.gives(w.drive.Unlink(w.ctx, root, name), want, "unlink %.20q", name)
				w.gives(w.drive.Rmdir(w.ctx, root, name), want, "rmdir %.20q", name)
				err = w.drive.Rename(w.ctx, blobstore.Rename{Parent: root, Name: name, NewParent: root, NewName: "new"})
				w.gives(err, want, "rename from %.20q", name)
				err = w.drive.Rename(w.ctx, blobstore.Rename{Parent: root, Name: "file", NewParent: root, NewName: name})
				w.gives(err, want, "rename to %.20q", name)
			}
		})
	}},
	{"a number that no node has gives ErrNotExist", func(w *world) {
		w.mkfile(root, "secret", "")
		w.unchanged(func() {
			for what, call := range callsOn(w, noIno) {
				w.gives(call(), blobstore.ErrNotExist, "%s", what)
			}
			err := w.drive.Rename(w.ctx, blobstore.Rename{Parent: root, Name: "secret", NewParent: noIno, NewName: "new"})
			w.gives(err, blobstore.ErrNotExist, "Rename to")
			_, err = w.drive.Link(w.ctx, w.lookup(root, "secret").Ino, noIno, "new")
			w.gives(err, blobstore.ErrNotExist, "Link in")
		})
	}},
	{"a removed file and a removed folder give ErrNotExist", func(w *world) {
		file, dir := w.mkfile(root, "file", "x"), w.mkdir(root, "dir")
		w.unlink(root, "file")
		w.rmdir(root, "dir")
		w.gone(file)
		w.gone(dir)
		_, err := w.drive.Open(w.ctx, file, readWrite)
		w.gives(err, blobstore.ErrNotExist, "open")
		_, err = w.drive.Make(w.ctx, dir, "new", w.newNode(unix.S_IFREG|0o644))
		w.gives(err, blobstore.ErrNotExist, "make in a removed folder")
		_, err = w.drive.Link(w.ctx, file, root, "again")
		w.gives(err, blobstore.ErrNotExist, "link a removed file")
	}},
	{"nothing can be in what is not a folder", func(w *world) {
		w.symlink(root, "link", ".")
		w.mkfile(root, "file", "x")
		w.mkfile(root, "other", "x")
		w.make(root, "pipe", w.newNode(unix.S_IFIFO|0o644))
		other := w.lookup(root, "other").Ino
		node := w.newNode(unix.S_IFREG | 0o644)
		w.unchanged(func() {
			for _, name := range []string{"link", "file", "pipe"} {
				parent := w.lookup(root, name).Ino
				_, err := w.drive.Lookup(w.ctx, parent, "a")
				w.isNotThere(err, "look up in %s", name)
				_, _, _, err = w.drive.Create(w.ctx, parent, "a", node, readWrite)
				w.gives(err, blobstore.ErrNotDir, "create in %s", name)
				_, err = w.drive.Make(w.ctx, parent, "a", node)
				w.gives(err, blobstore.ErrNotDir, "make in %s", name)
				_, err = w.drive.Link(w.ctx, other, parent, "a")
				w.gives(err, blobstore.ErrNotDir, "link in %s", name)
				w.gives(w.drive.Unlink(w.ctx, parent, "a"), blobstore.ErrNotDir, "unlink in %s", name)
				w.gives(w.drive.Rmdir(w.ctx, parent, "a"), blobstore.ErrNotDir, "rmdir in %s", name)
				err = w.drive.Rename(w.ctx, blobstore.Rename{Parent: parent, Name: "a", NewParent: root, NewName: "new"})
				w.gives(err, blobstore.ErrNotDir, "rename from %s", name)
				err = w.drive.Rename(w.ctx, blobstore.Rename{Parent: root, Name: "other", NewParent: parent, NewName: "a"})
				w.gives(err, blobstore.ErrNotDir, "rename to %s", name)
				_, err = w.drive.OpenDir(w.ctx, parent)
				w.gives(err, blobstore.ErrNotDir, "open %s as a folder", name)
			}
		})
	}},
	{"Create makes a file and opens it", func(w *world) {
		f, a, created, err := w.drive.Create(w.ctx, root, "a", w.newNode(unix.S_IFREG|0o640), readWrite)
		w.ok(err, "create")
		uid, gid := w.drive.Owner()
		if !created || !a.IsRegular() || a.Mode&0o7777 != 0o640 || a.Nlink != 1 || a.Size != 0 || a.UID != uid || a.GID != gid {
			w.Errorf("got created %v, %+v, want a new empty file of mode 0640", created, a)
		}
		w.write(f, 0, "hello")
		w.same(w.content(f), "hello", "content")
		w.close(f)
	}},
	{"Create opens a file that is there as it is", func(w *world) {
		ino := w.mkfile(root, "a", "content")
		f, a, created, err := w.drive.Create(w.ctx, root, "a", w.newNode(unix.S_IFREG|0o600), readWrite)
		w.ok(err, "create")
		if created || a.Ino != ino || a.Size != 7 || a.Mode&0o7777 != 0o644 {
			w.Errorf("got created %v, %+v, want node %d with its 7 bytes and mode 0644", created, a, ino)
		}
		w.same(w.content(f), "content", "content")
		w.close(f)
	}},
	{"Create empties a file that is there if asked to", func(w *world) {
		ino := w.mkfile(root, "a", "content")
		w.setMtime(ino, longAgo)
		f, a, created, err := w.drive.Create(w.ctx, root, "a", w.newNode(unix.S_IFREG|0o600), readWrite|blobstore.OpenTruncate)
		w.ok(err, "create")
		if created || a.Ino != ino || a.Size != 0 || a.MtimeNs == longAgo {
			w.Errorf("got created %v, %+v, want node %d, empty and modified now", created, a, ino)
		}
		w.same(w.content(f), "", "content")
		w.close(f)
	}},
	{"Create with OpenExclusive takes nothing that is there", func(w *world) {
		w.mkfile(root, "file", "content")
		w.mkdir(root, "dir")
		w.symlink(root, "link", "nowhere")
		w.unchanged(func() {
			for _, name := range []string{"file", "dir", "link"} {
				_, _, _, err := w.drive.Create(w.ctx, root, name, w.newNode(unix.S_IFREG|0o600),
					readWrite|blobstore.OpenExclusive|blobstore.OpenTruncate)
				w.gives(err, blobstore.ErrExist, "create %s", name)
			}
		})
	}},
	{"Create opens no folder, follows no link and waits for no pipe", func(w *world) {
		w.mkdir(root, "dir")
		w.symlink(root, "link", "new")
		w.make(root, "pipe", w.newNode(unix.S_IFIFO|0o644))
		w.unchanged(func() {
			for name, want := range map[string]error{
				"dir": blobstore.ErrIsDir, "link": blobstore.ErrLoop, "pipe": blobstore.ErrInvalid,
			} {
				_, _, _, err := w.drive.Create(w.ctx, root, name, w.newNode(unix.S_IFREG|0o600), readWrite)
				w.gives(err, want, "create %s", name)
			}
		})
	}},
	{"Make makes each type, but not of a name that is there", func(w *world) {
		for name, kind := range map[string]uint32{
			"file": unix.S_IFREG, "dir": unix.S_IFDIR, "pipe": unix.S_IFIFO, "socket": unix.S_IFSOCK,
		} {
			a := w.make(root, name, w.newNode(kind|0o751))
			if a.Mode != kind|0o751 {
				w.Errorf("make %s: got mode %o, want %o", name, a.Mode, kind|0o751)
			}
			if got := w.attr(a.Ino); got.Mode != a.Mode || got.Ino != a.Ino {
				w.Errorf("attributes of %s: got %+v, want %+v", name, got, a)
			}
		}
		w.unchanged(func() {
			for _, name := range []string{"file", "dir", "pipe", "socket"} {
				for _, kind := range []uint32{unix.S_IFREG, unix.S_IFDIR, unix.S_IFIFO} {
					_, err := w.drive.Make(w.ctx, root, name, w.newNode(kind|0o755))
					w.gives(err, blobstore.ErrExist, "make %s again", name)
				}
			}
		})
	}},
	{"Unlink takes files and no folders", func(w *world) {
		ino := w.mkfile(root, "file", "content")
		w.mkdir(root, "dir")
		w.symlink(root, "link", "dir")
		w.unlink(root, "file")
		w.unlink(root, "link")
		w.missing(root, "file")
		w.gone(ino)
		w.gives(w.drive.Unlink(w.ctx, root, "dir"), blobstore.ErrIsDir, "unlink a folder")
		w.gives(w.drive.Unlink(w.ctx, root, "file"), blobstore.ErrNotExist, "unlink again")
		w.holds(root, "dir")
	}},
	{"Rmdir takes empty folders and nothing else", func(w *world) {
		dir := w.mkdir(root, "dir")
		w.mkfile(dir, "file", "content")
		w.mkdir(dir, "sub")
		w.unchanged(func() {
			w.gives(w.drive.Rmdir(w.ctx, root, "dir"), blobstore.ErrNotEmpty, "remove a full folder")
			w.gives(w.drive.Rmdir(w.ctx, dir, "file"), blobstore.ErrNotDir, "remove a file")
			w.gives(w.drive.Rmdir(w.ctx, dir, "nothing"), blobstore.ErrNotExist, "remove nothing")
		})
		w.rmdir(dir, "sub")
		w.unlink(dir, "file")
		w.rmdir(root, "dir")
		w.missing(root, "dir")
		w.gone(dir)
	}},
	{"a folder counts the folders in it", func(w *world) {
		w.nlink(root, 2)
		dir := w.mkdir(root, "dir")
		w.nlink(root, 3)
		w.nlink(dir, 2)
		w.mkdir(dir, "sub")
		w.mkfile(dir, "file", "")
		w.nlink(dir, 3)
		w.nlink(root, 3)
		w.rmdir(dir, "sub")
		w.nlink(dir, 2)
		w.unlink(dir, "file")
		w.rmdir(root, "dir")
		w.nlink(root, 2)
	}},
	{"a node made after another was removed is another node", func(w *world) {
		type identity struct {
			ino        blobstore.Ino
			generation uint64
		}
		seen := make(map[identity]bool)
		for range 20 {
			a := w.make(root, "a", w.newNode(unix.S_IFREG|0o644))
			id := identity{a.Ino, a.Generation}
			if seen[id] {
				w.Errorf("number %d of generation %d was given before", a.Ino, a.Generation)
			}
			seen[id] = true
			w.unlink(root, "a")
		}
	}},
	{"a node that was forgotten is found by its name as before", func(w *world) {
		dir := w.mkdir(root, "dir")
		ino := w.mkfile(dir, "a", "content")
		w.lookup(dir, "a")
		w.drive.Forget(ino, 2)
		w.drive.Forget(dir, 1)
		if got := w.lookup(root, "dir").Ino; got != dir {
			w.Errorf("got folder %d, want %d", got, dir)
		}
		if got := w.lookup(dir, "a").Ino; got != ino {
			w.Errorf("got file %d, want %d", got, ino)
		}
		w.same(w.cat(ino), "content", "content")
	}},
	{"an open file outlives being forgotten and renamed", func(w *world) {
		f, ino := w.create(root, "a")
		w.write(f, 0, "one")
		w.drive.Forget(ino, 1)
		w.ok(w.drive.Rename(w.ctx, blobstore.Rename{Parent: root, Name: "a", NewParent: root, NewName: "b"}), "rename")
		w.write(f, 3, "two")
		w.close(f)
		w.same(w.cat(w.lookup(root, "b").Ino), "onetwo", "content")
	}},
}

// keepsNames makes a file of each name, with the name as content, in a folder of their own, and finds each again by lookup
// and in the listing, also after the store was opened anew.
func (w *world) keepsNames(names []string) {
	w.Helper()
	dir := w.mkdir(root, "names")
	for _, name := range names {
		w.mkfile(dir, name, name)
	}
	check := func() {
		dir := w.lookup(root, "names").Ino
		w.holds(dir, append([]string(nil), names...)...)
		for _, name := range names {
			w.same(w.cat(w.lookup(dir, name).Ino), name, "content of %q", name)
		}
	}
	check()
	w.reopen()
	check()

	dir = w.lookup(root, "names").Ino
	for _, name := range names {
		if err := w.drive.Unlink(w.ctx, dir, name); err != nil {
			w.Error(errors.Join(errors.New("unlink "+name), err))
		}
	}
	w.holds(dir)
}
