package storetest

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

var dirTests = []test{
	{"a folder lists itself and its parent among its names", func(w *world) {
		dir := w.mkdir(root, "dir")
		w.mkfile(dir, "a", "")
		for _, attributes := range []bool{false, true} {
			entries := w.list(dir, attributes)
			for name, want := range map[string]blobstore.Ino{".": dir, "..": root} {
				e, ok := entries[name]
				if !ok || e.Attr.Ino != want || !e.Attr.IsDir() || e.Complete {
					w.Errorf("got %+v for %q, want folder %d, not complete", e, name, want)
				}
			}
			if len(entries) != 3 {
				w.Errorf("got %d entries, want 3", len(entries))
			}
		}
		if e := w.list(root, false)[".."]; e.Attr.Ino != root {
			w.Errorf("got parent %d of the root, want itself", e.Attr.Ino)
		}
	}},
	{"each entry has the number and type of its node", func(w *world) {
		want := map[string]uint32{"file": unix.S_IFREG, "dir": unix.S_IFDIR, "pipe": unix.S_IFIFO, "socket": unix.S_IFSOCK}
		for name, kind := range want {
			w.make(root, name, w.newNode(kind|0o700))
		}
		w.symlink(root, "link", "target")
		want["link"] = unix.S_IFLNK
		for _, attributes := range []bool{false, true} {
			entries := w.list(root, attributes)
			for name, kind := range want {
				e := entries[name]
				if e.Attr.Type() != kind || e.Attr.Ino != w.lookup(root, name).Ino {
					w.Errorf("got %+v for %s, want type %o and node %d", e, name, kind, w.lookup(root, name).Ino)
				}
			}
		}
	}},
	{"an entry that is complete has all attributes", func(w *world) {
		w.furnish()
		for name, e := range w.list(root, true) {
			if want := w.attrOf(name, e); e.Complete && !sameButAtime(e.Attr, want) {
				w.Errorf("%s: got %+v, want %+v", name, e.Attr, want)
			}
		}
	}},
	{"a complete entry counts what was written and not yet stored", func(w *world) {
		f, _ := w.create(root, "a")
		w.write(f, 0, "four")
		if e := w.list(root, true)["a"]; e.Complete && e.Attr.Size != 4 {
			w.Errorf("got size %d, want 4", e.Attr.Size)
		}
		w.close(f)
	}},
	{"positions are from 1 to 1<<63-1, and each entry has its own", func(w *world) {
		for i := range 50 {
			w.make(root, fmt.Sprint(i), w.newNode(unix.S_IFREG|0o644))
		}
		seen := make(map[uint64]string)
		for name, e := range w.list(root, false) {
			if e.Position == 0 || e.Position > 1<<63-1 {
				w.Errorf("%s: got position %d", name, e.Position)
			}
			if other, ok := seen[e.Position]; ok {
				w.Errorf("%s and %s: got one position %d", name, other, e.Position)
			}
			seen[e.Position] = name
		}
	}},
	{"a listing goes on from any position", func(w *world) {
		for i := range 40 {
			w.make(root, fmt.Sprintf("file %d", i), w.newNode(unix.S_IFREG|0o644))
		}
		d := w.openDir(root)
		var all []blobstore.Entry
		w.readDir(d, 0, -1, &all)
		if len(all) != 42 {
			w.Fatalf("got %d entries, want 42", len(all))
		}
		for i := len(all) - 1; i >= 0; i-- { // backwards, as nobody reads
			var rest []blobstore.Entry
			w.readDir(d, all[i].Position, -1, &rest)
			if len(rest) != len(all)-i-1 {
				w.Fatalf("after entry %d: got %d more, want %d", i, len(rest), len(all)-i-1)
			}
			for j, e := range rest {
				if want := all[i+1+j].Name; e.Name != want {
					w.Fatalf("after entry %d: got %q as number %d, want %q", i, e.Name, j, want)
				}
			}
		}
		w.ok(d.Close(), "close")
	}},
	{"reading from the start sees the folder as it is now", func(w *world) {
		w.mkfile(root, "a", "")
		d := w.openDir(root)
		for _, step := range []struct {
			what func()
			want int
		}{
			{func() {}, 3},
			{func() { w.mkfile(root, "b", "") }, 4},
			{func() { w.unlink(root, "a") }, 3},
			{func() { w.moves(root, "b", root, "c") }, 3},
		} {
			step.what()
			var all []blobstore.Entry
			w.readDir(d, 0, -1, &all)
			if len(all) != step.want {
				w.Errorf("got %d entries, want %d: %+v", len(all), step.want, all)
			}
		}
		w.ok(d.Close(), "close")
	}},
	{"an empty folder has no names, and a folder that was emptied none any more", func(w *world) {
		dir := w.mkdir(root, "dir")
		w.holds(dir)
		w.mkfile(dir, "a", "")
		w.unlink(dir, "a")
		w.holds(dir)
	}},
	{"of 3000 names listed in pieces, those that stay are passed exactly once", func(w *world) {
		dir := w.mkdir(root, "dir")
		for i := range 3000 {
			w.make(dir, fmt.Sprintf("stays or goes %d", i), w.newNode(unix.S_IFREG|0o644))
		}
		d := w.openDir(dir)
		counts := make(map[string]int)
		added, removed := 0, 0
		for position := uint64(0); ; {
			var piece []blobstore.Entry
			w.readDir(d, position, 70, &piece)
			if len(piece) == 0 {
				break
			}
			for _, e := range piece {
				position = e.Position
				counts[e.Name]++
			}
			for range 7 { // every tenth of the 3000 goes, from the last on, and 150 others come
				if removed < 3000 {
					removed += 10
					w.unlink(dir, fmt.Sprintf("stays or goes %d", 3000-removed))
				}
				if added < 150 {
					added++
					w.make(dir, fmt.Sprintf("comes %d", added), w.newNode(unix.S_IFREG|0o644))
				}
			}
		}
		w.ok(d.Close(), "close")
		for i := range 3000 {
			name := fmt.Sprintf("stays or goes %d", i)
			if got := counts[name]; got > 1 || got == 0 && i%10 != 0 {
				w.Errorf("%q was passed %d times", name, got)
			}
		}
		if counts["."] != 1 || counts[".."] != 1 {
			w.Errorf(`"." and ".." were passed %d and %d times`, counts["."], counts[".."])
		}
	}},
	{"removing each name as it is listed empties a folder", func(w *world) {
		dir := w.mkdir(root, "dir")
		for i := range 300 {
			w.make(dir, fmt.Sprint(i), w.newNode(unix.S_IFREG|0o644))
		}
		d := w.openDir(dir)
		for position := uint64(0); ; {
			var piece []blobstore.Entry
			w.readDir(d, position, 7, &piece)
			if len(piece) == 0 {
				break
			}
			for _, e := range piece {
				position = e.Position
				if e.Name != "." && e.Name != ".." {
					w.unlink(dir, e.Name)
				}
			}
		}
		w.ok(d.Close(), "close")
		w.holds(dir)
		w.rmdir(root, "dir")
	}},
	{"a removed folder that is open has no names and gets none", func(w *world) {
		dir := w.mkdir(root, "dir")
		w.mkfile(dir, "a", "")
		d := w.openDir(dir)
		w.unlink(dir, "a")
		w.rmdir(root, "dir")
		err := d.Read(w.ctx, 0, true, func(e *blobstore.Entry) bool {
			if e.Name != "." && e.Name != ".." {
				w.Errorf("lists %q", e.Name)
			}
			return true
		})
		if err != nil {
			w.gives(err, blobstore.ErrNotExist, "list a removed folder") // iterate_dir of the kernel gives ENOENT
		}
		_, err = w.drive.Make(w.ctx, dir, "b", w.newNode(unix.S_IFREG|0o644))
		w.gives(err, blobstore.ErrNotExist, "make in a removed folder")
		_, _, _, err = w.drive.Create(w.ctx, dir, "b", w.newNode(unix.S_IFREG|0o644), readWrite)
		w.gives(err, blobstore.ErrNotExist, "create in a removed folder")
		w.mkfile(root, "c", "")
		_, err = w.drive.Link(w.ctx, w.lookup(root, "c").Ino, dir, "c")
		w.gives(err, blobstore.ErrNotExist, "link in a removed folder")
		w.gives(w.rename(root, "c", dir, "c", blobstore.RenameReplace), blobstore.ErrNotExist, "rename into a removed folder")
		w.ok(d.Close(), "close")
		w.gone(dir)
	}},
	{"a folder can be synced", func(w *world) {
		dir := w.mkdir(root, "dir")
		w.mkfile(dir, "a", "")
		d := w.openDir(dir)
		w.ok(d.Sync(w.ctx), "sync")
		w.ok(d.Close(), "close")
	}},
	{"a folder with long names and many subfolders lists whole", func(w *world) {
		var want []string
		for i := range 200 {
			name := fmt.Sprintf("%03d", i) + strings.Repeat("n", blobstore.MaxNameLen-3)
			w.mkdir(root, name)
			want = append(want, name)
		}
		w.nlink(root, 202)
		w.holds(root, want...)
	}},
}

// attrOf are the attributes of an entry's node.
func (w *world) attrOf(name string, e blobstore.Entry) blobstore.Attr {
	w.Helper()
	if name == "." || name == ".." {
		return w.attr(root)
	}
	a := w.lookup(root, name)
	if a.Ino != e.Attr.Ino {
		w.Errorf("%s: got node %d in the listing, want %d", name, e.Attr.Ino, a.Ino)
	}
	return a
}

func sameButAtime(a, b blobstore.Attr) bool {
	a.AtimeNs, b.AtimeNs = 0, 0
	a.Allocated, b.Allocated = 0, 0 // may go on growing while content is stored in the background
	return a == b
}

// readDir takes up to n entries, all if n is negative. The one after the last is offered and not taken.
func (w *world) readDir(d blobstore.Dir, after uint64, n int, into *[]blobstore.Entry) {
	w.Helper()
	err := d.Read(w.ctx, after, false, func(e *blobstore.Entry) bool {
		if len(*into) == n {
			return false
		}
		*into = append(*into, *e)
		return true
	})
	w.ok(err, "list after %d", after)
}
