package storetest

import (
	"context"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

var contextTests = []test{
	{"nothing is changed for a context that has ended", func(w *world) {
		ino := w.mkfile(root, "a", "content")
		w.mkdir(root, "dir")
		ctx, cancel := context.WithCancel(w.ctx)
		cancel()
		node := w.newNode(unix.S_IFREG | 0o644)
		w.unchanged(func() {
			for what, call := range map[string]func() error{
				"Create": func() error { _, _, _, err := w.drive.Create(ctx, root, "new", node, readWrite); return err },
				"Make":   func() error { _, err := w.drive.Make(ctx, root, "new", node); return err },
				"Link":   func() error { _, err := w.drive.Link(ctx, ino, root, "new"); return err },
				"Unlink": func() error { return w.drive.Unlink(ctx, root, "a") },
				"Rmdir":  func() error { return w.drive.Rmdir(ctx, root, "dir") },
				"Rename": func() error {
					return w.drive.Rename(ctx, blobstore.Rename{Parent: root, Name: "a", NewParent: root, NewName: "new"})
				},
				"SetAttr": func() error {
					_, err := w.drive.SetAttr(ctx, ino, blobstore.AttrChange{Set: blobstore.SetSize})
					return err
				},
				"SetXattr": func() error { return w.drive.SetXattr(ctx, ino, "user.a", nil, blobstore.XattrSet) },
			} {
				w.gives(call(), context.Canceled, "%s", what)
			}
		})
	}},
	{"a listing ends with its context", func(w *world) {
		w.mkfile(root, "a", "content")
		d := w.openDir(root)
		ctx, cancel := context.WithCancel(w.ctx)
		cancel()
		err := d.Read(ctx, 0, true, func(*blobstore.Entry) bool { return true })
		w.gives(err, context.Canceled, "list")
		w.ok(d.Close(), "close")
	}},
	{"no drive is opened for a context that has ended", func(w *world) {
		ctx, cancel := context.WithCancel(w.ctx)
		cancel()
		_, err := w.Store.Open(ctx, w.Session("bob"))
		w.gives(err, context.Canceled, "open a drive")
	}},
	{"a sync for a context that has ended loses nothing that was written", func(w *world) {
		f, ino := w.create(root, "a")
		w.write(f, 0, "content")
		ctx, cancel := context.WithCancel(w.ctx)
		cancel()
		if err := f.Sync(ctx); err != nil {
			w.gives(err, context.Canceled, "sync")
		}
		w.close(f)
		w.same(w.cat(ino), "content", "content")
		w.reopen()
		w.same(w.cat(w.lookup(root, "a").Ino), "content", "content after reopening")
	}},
}
