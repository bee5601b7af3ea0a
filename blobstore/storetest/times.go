package storetest

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

var timeTests = []test{
	{"times are kept to the nanosecond, also before 1970 and after 2038", func(w *world) {
		times := []int64{0, 1, -1, 999_999_999, 1_000_000_000, -1_500_000_001, longAgo, 1<<31*1e9 + 123_456_789, 4_102_444_800_987_654_321}
		for i, ns := range times {
			ino := w.mkfile(root, fmt.Sprint(i), "content")
			a := w.setAttr(ino, blobstore.AttrChange{Set: blobstore.SetAtime | blobstore.SetMtime, AtimeNs: ns, MtimeNs: -ns/2 + 1})
			if a.AtimeNs != ns || a.MtimeNs != -ns/2+1 {
				w.Errorf("got atime %d and mtime %d, want %d and %d", a.AtimeNs, a.MtimeNs, ns, -ns/2+1)
			}
		}
		w.reopen()
		for i, ns := range times {
			if a := w.lookup(root, fmt.Sprint(i)); a.AtimeNs != ns || a.MtimeNs != -ns/2+1 {
				w.Errorf("after reopening: got atime %d and mtime %d, want %d and %d", a.AtimeNs, a.MtimeNs, ns, -ns/2+1)
			}
		}
	}},
	{"folders, links and special files have times to set too", func(w *world) {
		for _, ino := range []blobstore.Ino{
			root, w.mkdir(root, "dir"), w.symlink(root, "link", "target"), w.make(root, "pipe", w.newNode(unix.S_IFIFO|0o600)).Ino,
		} {
			w.setAttr(ino, blobstore.AttrChange{Set: blobstore.SetAtime | blobstore.SetMtime, AtimeNs: longAgo + 1, MtimeNs: longAgo})
			if a := w.attr(ino); a.AtimeNs != longAgo+1 || a.MtimeNs != longAgo {
				w.Errorf("node %d: got atime %d and mtime %d, want %d and %d", ino, a.AtimeNs, a.MtimeNs, longAgo+1, longAgo)
			}
		}
	}},
	{"atime and mtime are set each by itself", func(w *world) {
		ino := w.mkfile(root, "a", "content")
		before := w.attr(ino)
		w.setAttr(ino, blobstore.AttrChange{Set: blobstore.SetAtime, AtimeNs: longAgo})
		if a := w.attr(ino); a.AtimeNs != longAgo || a.MtimeNs != before.MtimeNs {
			w.Errorf("got atime %d and mtime %d, want %d and %d", a.AtimeNs, a.MtimeNs, longAgo, before.MtimeNs)
		}
		w.setMtime(ino, longAgo+7)
		if a := w.attr(ino); a.AtimeNs != longAgo || a.MtimeNs != longAgo+7 {
			w.Errorf("got atime %d and mtime %d, want %d and %d", a.AtimeNs, a.MtimeNs, longAgo, longAgo+7)
		}
	}},
	{"a new node has the time of now", func(w *world) {
		const day = int64(24 * time.Hour)
		now := time.Now().UnixNano()
		for _, ino := range []blobstore.Ino{w.mkfile(root, "file", "content"), w.mkdir(root, "dir"), w.symlink(root, "link", "target")} {
			a := w.attr(ino)
			for _, ns := range []int64{a.AtimeNs, a.MtimeNs, a.CtimeNs} {
				if ns < now-day || ns > now+day {
					w.Errorf("node %d: got %+v at %d", ino, a, now)
				}
			}
		}
	}},
	{"a time set after a write stays when the file is flushed and closed", func(w *world) {
		f, ino := w.create(root, "a")
		w.write(f, 0, "content")
		w.setMtime(ino, longAgo)
		w.mtimeIs(ino, longAgo)
		w.ok(f.Flush(w.ctx), "flush")
		w.mtimeIs(ino, longAgo)
		w.ok(f.Sync(w.ctx), "sync")
		w.mtimeIs(ino, longAgo)
		w.close(f)
		w.mtimeIs(ino, longAgo)
		w.reopen()
		w.mtimeIs(w.lookup(root, "a").Ino, longAgo)
		w.same(w.cat(w.lookup(root, "a").Ino), "content", "content")
	}},
	{"a time set between two writes does not stay", func(w *world) {
		f, ino := w.create(root, "a")
		w.write(f, 0, "content")
		w.setMtime(ino, longAgo)
		w.write(f, 0, "another")
		if w.attr(ino).MtimeNs == longAgo {
			w.Errorf("the write left mtime as it was")
		}
		w.close(f)
		if w.attr(ino).MtimeNs == longAgo {
			w.Errorf("the write left mtime as it was, once it was stored")
		}
	}},
	{"reading, opening and closing leave mtime alone", func(w *world) {
		ino := w.mkfile(root, "a", "content")
		w.setMtime(ino, longAgo)
		w.cat(ino)
		w.chmod(ino, 0o700)
		w.link(ino, root, "b")
		w.moves(root, "a", root, "c")
		f := w.openFile(ino)
		w.write(f, 0, "")
		w.close(f)
		w.mtimeIs(ino, longAgo)
	}},
	{"writing, truncating and emptying a file set mtime", func(w *world) {
		ino := w.mkfile(root, "a", "content")
		f := w.openFile(ino)
		for what, change := range map[string]func(){
			"write":  func() { w.write(f, 0, "x") },
			"shrink": func() { w.truncate(ino, 1) },
			"grow":   func() { w.truncate(ino, 10) },
			"zero":   func() { w.ok(f.Allocate(w.ctx, blobstore.AllocateZero, 0, 3), "zero") },
			"punch":  func() { w.ok(f.Allocate(w.ctx, blobstore.AllocatePunchHole, 0, 3), "punch") },
			"empty": func() {
				g, err := w.drive.Open(w.ctx, ino, readWrite|blobstore.OpenTruncate)
				w.ok(err, "open")
				w.close(g)
			},
		} {
			w.write(f, 0, "content")
			w.setMtime(ino, longAgo)
			change()
			if w.attr(ino).MtimeNs == longAgo {
				w.Errorf("%s left mtime as it was", what)
			}
		}
		w.close(f)
	}},
	{"a folder is modified when names in it come, go or move", func(w *world) {
		dir, other := w.mkdir(root, "dir"), w.mkdir(root, "other")
		ino := w.mkfile(root, "file", "content")
		for _, step := range []struct {
			what   string
			change func()
			also   blobstore.Ino // another folder that is modified
		}{
			{"make a folder", func() { w.mkdir(dir, "sub") }, 0},
			{"make a file", func() { w.make(dir, "pipe", w.newNode(unix.S_IFIFO|0o600)) }, 0},
			{"create", func() { w.mkfile(dir, "a", "") }, 0},
			{"link", func() { w.link(ino, dir, "link") }, 0},
			{"rename", func() { w.moves(dir, "a", dir, "b") }, 0},
			{"move away", func() { w.moves(dir, "b", other, "b") }, other},
			{"move here", func() { w.moves(other, "b", dir, "c") }, other},
			{"replace", func() { w.moves(dir, "c", dir, "link") }, 0},
			{"unlink", func() { w.unlink(dir, "link") }, 0},
			{"remove a folder", func() { w.rmdir(dir, "sub") }, 0},
		} {
			folders := []blobstore.Ino{dir}
			if step.also != 0 {
				folders = append(folders, step.also)
			}
			for _, folder := range folders {
				w.setMtime(folder, longAgo)
			}
			step.change()
			for _, folder := range folders {
				if a := w.attr(folder); a.MtimeNs == longAgo || a.CtimeNs < a.MtimeNs {
					w.Errorf("%s: folder %d has mtime %d and ctime %d", step.what, folder, a.MtimeNs, a.CtimeNs)
				}
			}
		}
	}},
	{"a folder is not modified by what happens beneath the names in it", func(w *world) {
		dir := w.mkdir(root, "dir")
		sub := w.mkdir(dir, "sub")
		ino := w.mkfile(dir, "a", "content")
		w.setMtime(dir, longAgo)
		f := w.openFile(ino)
		w.write(f, 0, "x")
		w.close(f)
		w.chmod(ino, 0o700)
		w.mkfile(sub, "b", "content")
		w.list(dir, true)
		w.link(ino, root, "elsewhere")
		w.mtimeIs(dir, longAgo)
	}},
	{"ctime moves on with every change of a node", func(w *world) {
		dir := w.mkdir(root, "dir")
		ino := w.mkfile(root, "a", "content")
		f := w.openFile(ino)
		at, aside := "a", "b"
		move := func(mode blobstore.RenameMode) {
			w.ok(w.rename(root, at, root, aside, mode), "rename %q to %q", at, aside)
			at, aside = aside, at
		}
		xattr := func(value string) { w.setXattr(ino, "user.x", value, blobstore.XattrSet) }
		for _, step := range []struct {
			what            string
			prepare, change func()
		}{
			{"chmod", nil, func() { w.chmod(ino, 0o700) }},
			{"utimens", nil, func() { w.setMtime(ino, longAgo) }},
			{"write", nil, func() { w.write(f, 0, "x") }},
			{"truncate", func() { w.truncate(ino, 9) }, func() { w.truncate(ino, 8) }},
			{"rename", nil, func() { move(blobstore.RenameReplace) }},
			{"exchange", func() { w.removeIfThere(root, aside); w.mkdir(root, aside) }, func() { move(blobstore.RenameExchange) }},
			{"get another name", func() { w.removeIfThere(root, "n") }, func() { w.link(ino, root, "n") }},
			{"lose a name", func() { w.removeIfThere(root, "n"); w.link(ino, root, "n") }, func() { w.unlink(root, "n") }},
			{"lose a name to another file", func() {
				w.removeIfThere(root, "n")
				w.link(ino, root, "n")
				w.make(root, "other", w.newNode(unix.S_IFREG|0o644))
			}, func() { w.moves(root, "other", root, "n") }},
			{"set an xattr", nil, func() { xattr("value") }},
			{"remove an xattr", func() { xattr("value") }, func() {
				w.ok(w.drive.RemoveXattr(w.ctx, ino, "user.x"), "remove xattr")
			}},
		} {
			w.advances(ino, step.what, step.prepare, step.change)
		}
		w.advances(dir, "rename a folder", func() { w.moves(root, "dir", root, "d") }, func() { w.moves(root, "d", root, "dir") })
		w.close(f)
	}},
}

var atimeTests = []test{
	{"reading moves an atime that is not later than the last change, and then no more", func(w *world) {
		ino := w.mkfile(root, "f", "content")
		w.setAttr(ino, blobstore.AttrChange{Set: blobstore.SetAtime | blobstore.SetMtime, AtimeNs: longAgo, MtimeNs: longAgo})
		before := w.attr(ino)
		var moved blobstore.Attr
		for end := time.Now().Add(clockTimeout); moved.AtimeNs <= before.CtimeNs && time.Now().Before(end); { // a clock may tick late
			w.cat(ino)
			if moved = w.attr(ino); moved.AtimeNs == longAgo && !w.OwnAtime {
				return
			}
		}
		if moved.AtimeNs <= before.CtimeNs || moved.MtimeNs != longAgo || moved.CtimeNs != before.CtimeNs {
			w.Fatalf("before %+v, and %+v then: want atime alone to move", before, moved)
		}
		w.cat(ino)
		w.reopen()
		if got := w.lookup(root, "f"); got.AtimeNs != moved.AtimeNs || got.MtimeNs != longAgo || got.CtimeNs != before.CtimeNs {
			w.Errorf("after reading again and reopening %+v, want %+v", got, moved)
		}
	}},
	{"an atime that is set after reading stays", func(w *world) {
		ino := w.mkfile(root, "f", "content")
		w.setAttr(ino, blobstore.AttrChange{Set: blobstore.SetAtime, AtimeNs: longAgo})
		for _, ns := range []int64{longAgo + 1, longAgo} {
			w.cat(ino)
			a := w.setAttr(ino, blobstore.AttrChange{Set: blobstore.SetAtime, AtimeNs: ns})
			if got := w.attr(ino).AtimeNs; a.AtimeNs != ns || got != ns {
				w.Errorf("got atime %d and %d, want %d", a.AtimeNs, got, ns)
			}
		}
		w.reopen()
		if got := w.lookup(root, "f").AtimeNs; got != longAgo {
			w.Errorf("after reopening: got atime %d, want %d", got, longAgo)
		}
	}},
	{"an atime that is later than the last change moves when it is a day old", func(w *world) {
		a := blobstore.Attr{AtimeNs: 2, MtimeNs: 1, CtimeNs: 1}
		if day := int64(24 * time.Hour); blobstore.AtimeDue(&a, 1+day) || !blobstore.AtimeDue(&a, 2+day) {
			w.Error("it moves before, or does not")
		}
	}},
	{"reading that is to leave no trace leaves none", func(w *world) {
		ino := w.mkfile(root, "f", "content")
		w.setAttr(ino, blobstore.AttrChange{Set: blobstore.SetAtime, AtimeNs: longAgo})
		f, err := w.drive.Open(w.ctx, ino, blobstore.OpenRead|blobstore.OpenNoAtime)
		w.ok(err, "open")
		w.content(f)
		w.close(f)
		if got := w.attr(ino).AtimeNs; got != longAgo {
			w.Errorf("got atime %d, want %d", got, longAgo)
		}
	}},
}

func (w *world) mtimeIs(ino blobstore.Ino, want int64) {
	w.Helper()
	if got := w.attr(ino).MtimeNs; got != want {
		w.Errorf("node %d: got mtime %d, want %d", ino, got, want)
	}
}

// advances repeats a change until it moves the ctime of a node on: a clock may tick only every few milliseconds.
func (w *world) advances(ino blobstore.Ino, what string, prepare, change func()) {
	w.Helper()
	for end := time.Now().Add(clockTimeout); time.Now().Before(end); {
		if prepare != nil {
			prepare()
		}
		before := w.attr(ino).CtimeNs
		change()
		if w.attr(ino).CtimeNs > before {
			return
		}
	}
	w.Errorf("%s leaves ctime as it was", what)
}

// removeIfThere removes a name if it is there.
func (w *world) removeIfThere(parent blobstore.Ino, name string) {
	w.Helper()
	if _, err := w.drive.Lookup(w.ctx, parent, name); err == nil {
		w.removeAny(parent, name)
	}
}
