package storetest

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
)

var sessionTests = []test{
	{"the zero session opens nothing", func(w *world) {
		w.refused(auth.Session{}, auth.ErrInvalid)
	}},
	{"a session without a user or without a role opens nothing", func(w *world) {
		nobody, noRole := w.Session("alice"), w.Session("alice")
		nobody.User, noRole.Role = "", ""
		w.refused(nobody, auth.ErrInvalid)
		w.refused(noRole, auth.ErrInvalid)
	}},
	{"an expired session opens nothing", func(w *world) {
		s := w.Session("alice")
		s.Expires = time.Now().Add(-time.Second)
		w.refused(s, auth.ErrExpired)
	}},
	{"a user id that is not one safe element of a path opens nothing", func(w *world) {
		for _, user := range []auth.UserID{
			"..", ".", "../alice", "alice/..", "/", "alice/", "a\x00b", "-rf", ".hidden", "al ice", "alice\n", "ålice",
			auth.UserID(strings.Repeat("a", auth.MaxUserID+1)),
		} {
			s := w.Session("alice")
			s.User = user
			if d, err := w.Store.Open(w.ctx, s); err == nil {
				w.open[d] = true
				w.Errorf("user %q got a drive", user)
			}
		}
	}},
	{"a new drive is an empty folder of its owner", func(w *world) {
		uid, gid := w.drive.Owner()
		a := w.attr(root)
		if !a.IsDir() || a.Ino != root || a.Nlink != 2 || a.UID != uid || a.GID != gid {
			w.Errorf("got root %+v, want folder 1 with nlink 2 of %d:%d", a, uid, gid)
		}
		w.holds(root)
	}},
	{"drives of two users have two numbers", func(w *world) {
		alice, bob := w.drive.ID(), w.openDrive("bob").ID()
		if alice == bob || max(alice, bob) > blobstore.MaxDriveID {
			w.Errorf("got numbers %d and %d, want two different ones up to %d", alice, bob, blobstore.MaxDriveID)
		}
	}},
	{"two sessions of one user share a drive, and each sees what the other has closed", func(w *world) {
		other := w.on(w.openDrive("alice"))
		ino := w.mkfile(root, "a", "first")
		w.same(other.cat(other.lookup(root, "a").Ino), "first", "content seen by the other session")
		f := other.openFile(other.lookup(root, "a").Ino)
		other.write(f, 0, "other")
		other.close(f)
		w.same(w.cat(ino), "other", "content after the other session wrote")
	}},
	{"a user sees and changes nothing of another, whatever the names and numbers", isolation},
	{"everything is there again after the store was closed and opened", func(w *world) {
		w.furnish()
		before := w.tree()
		w.reopen()
		w.sameTree(w.tree(), before)
	}},
	{"closing a drive stores what no flush has", func(w *world) {
		f, _ := w.create(root, "a")
		w.write(f, 0, "written, never flushed")
		w.reopen()
		w.same(w.cat(w.lookup(root, "a").Ino), "written, never flushed", "content")
	}},
	{"what a flush or a sync has stored is there for a drive opened afterwards", func(w *world) {
		flushed, _ := w.create(root, "flushed")
		w.write(flushed, 0, "one")
		w.ok(flushed.Flush(w.ctx), "flush")
		synced, _ := w.create(root, "synced")
		w.write(synced, 0, "two")
		w.ok(synced.Sync(w.ctx), "sync")
		later := w.on(w.openDrive("alice"))
		w.same(later.cat(later.lookup(root, "flushed").Ino), "one", "flushed content")
		w.same(later.cat(later.lookup(root, "synced").Ino), "two", "synced content")
	}},
	{"usage counts no more than there is", func(w *world) {
		w.furnish()
		u, err := w.drive.Usage(w.ctx)
		w.ok(err, "usage")
		if u.TotalBytes <= 0 || u.FreeBytes < 0 || u.FreeBytes > u.TotalBytes ||
			u.TotalFiles < 0 || u.FreeFiles < 0 || u.FreeFiles > u.TotalFiles {
			w.Errorf("got usage %+v, want what is free to be between nothing and the total", u)
		}
	}},
}

func (w *world) refused(s auth.Session, want error) {
	w.Helper()
	d, err := w.Store.Open(w.ctx, s)
	w.gives(err, want, "open a drive")
	if err == nil {
		w.open[d] = true
	}
}

// furnish puts something of every kind into the drive.
func (w *world) furnish() {
	w.Helper()
	dir := w.mkdir(root, "Reisen 2024")
	deep := w.mkdir(dir, "été\xff")
	photo := w.mkfile(deep, "photo.jpg", strings.Repeat("jpeg", 50_000))
	w.link(photo, root, "best.jpg")
	w.symlink(root, "latest", "Reisen 2024/été\xff")
	w.make(dir, "pipe", w.newNode(unix.S_IFIFO|0o600))
	w.make(dir, "socket", w.newNode(unix.S_IFSOCK|0o600))
	w.mkfile(dir, "empty", "")
	video, ino := w.create(dir, "video.mkv")
	w.write(video, 1<<20+17, "far behind a hole")
	w.close(video)
	w.ok(w.drive.SetXattr(w.ctx, ino, "user.origin", []byte("https://example.org/\x00\xff"), blobstore.XattrSet), "set xattr")
	w.ok(w.drive.SetXattr(w.ctx, dir, "user.empty", nil, blobstore.XattrSet), "set xattr")
	w.setMtime(ino, longAgo)
	w.chmod(photo, 0o640)
	w.chmod(deep, 0o1770)
}

// isolation: bob's drive is a stranger to alice's, though his names try to lead out of his own, and his numbers are hers.
func isolation(w *world) {
	w.furnish()
	secret := w.mkfile(root, "secret", "for alice alone")
	var known []blobstore.Ino
	for _, name := range w.names(root) {
		known = append(known, w.lookup(root, name).Ino)
	}

	w.unchanged(func() {
		for _, user := range []auth.UserID{"bob", "alice2", "Alice", "ali_e", "alice@example.org"} {
			stranger := w.on(w.openDrive(user))
			stranger.holds(root)
			for _, name := range append(w.names(root), "../alice/secret", "..", "alice", "/", "secret\x00", "%", "_lice") {
				if _, err := stranger.drive.Lookup(w.ctx, root, name); err == nil {
					w.Errorf("%s finds %q", user, name)
				}
			}
			for _, ino := range known {
				for what, call := range callsOn(stranger, ino) {
					w.gives(call(), blobstore.ErrNotExist, "%s: %s with alice's number %d", user, what, ino)
				}
			}
		}
	})

	w.unchanged(func() {
		bob := w.on(w.openDrive("bob"))
		link := bob.symlink(root, "to alice", "../alice/secret")
		_, err := bob.drive.Lookup(w.ctx, link, "secret")
		w.isNotThere(err, "look up beneath a symbolic link")
		for i := range 30 { // so that his numbers come to be hers where each drive counts its own
			bob.mkfile(root, fmt.Sprintf("secret%d", i), "for bob alone")
		}
		for _, ino := range known {
			if f, err := bob.drive.Open(w.ctx, ino, readWrite); err == nil {
				if got := bob.content(f); got != "for bob alone" {
					w.Errorf("bob reads %.40q from number %d", got, ino)
				}
				bob.write(f, 0, "overwritten by bob")
				bob.close(f)
			}
		}
		bob.unlink(root, "to alice")
		hers, his := w.openFile(secret), bob.openFile(bob.lookup(root, "secret0").Ino)
		if _, err := bob.drive.CopyRange(w.ctx, hers, 0, his, 0, 8); err == nil {
			w.Errorf("bob's drive copies from a file of alice's")
		}
		w.close(hers)
		bob.close(his)
	})
}

// callsOn are all methods of a drive that take a number, called with one; those that would make something are called so
// that it must not come to be.
func callsOn(w *world, ino blobstore.Ino) map[string]func() error {
	d, ctx := w.drive, w.ctx
	file := w.newNode(unix.S_IFREG | 0o644)
	rename := func(from, to blobstore.Ino) func() error {
		return func() error {
			return d.Rename(ctx, blobstore.Rename{Parent: from, Name: "secret", NewParent: to, NewName: "stolen"})
		}
	}
	return map[string]func() error{
		"Lookup":      func() error { _, err := d.Lookup(ctx, ino, "secret"); return err },
		"Create":      func() error { _, _, _, err := d.Create(ctx, ino, "new", file, readWrite); return err },
		"Make":        func() error { _, err := d.Make(ctx, ino, "new", file); return err },
		"Link of":     func() error { _, err := d.Link(ctx, ino, root, "new"); return err },
		"Unlink":      func() error { return d.Unlink(ctx, ino, "secret") },
		"Rmdir":       func() error { return d.Rmdir(ctx, ino, "secret") },
		"Rename from": rename(ino, root),
		"Readlink":    func() error { _, err := d.Readlink(ctx, ino); return err },
		"OpenDir":     func() error { _, err := d.OpenDir(ctx, ino); return err },
		"Attr":        func() error { _, err := d.Attr(ctx, ino); return err },
		"SetAttr": func() error {
			_, err := d.SetAttr(ctx, ino, blobstore.AttrChange{Set: blobstore.SetSize})
			return err
		},
		"Open":        func() error { _, err := d.Open(ctx, ino, readWrite|blobstore.OpenTruncate); return err },
		"GetXattr":    func() error { _, err := d.GetXattr(ctx, ino, "user.origin"); return err },
		"SetXattr":    func() error { return d.SetXattr(ctx, ino, "user.origin", []byte("x"), blobstore.XattrSet) },
		"ListXattr":   func() error { _, err := d.ListXattr(ctx, ino); return err },
		"RemoveXattr": func() error { return d.RemoveXattr(ctx, ino, "user.origin") },
	}
}
