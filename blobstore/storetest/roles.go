package storetest

import (
	"errors"
	"slices"
	"time"

	"mediafs/auth"
	"mediafs/blobstore"
)

var roleTests = []test{
	{"to a user every drive but their own is not there", func(w *world) {
		w.openDrive("bob")
		alice := w.Session("alice")
		for _, name := range []blobstore.DriveName{"bob", "carl", blobstore.PublicDrive, "", ".", "..", "../bob", "bob/", "bob\x00", ".mediafs", "BOB", "%"} {
			w.opensNot(alice, name, blobstore.ErrNotExist)
		}
		own := w.openNamed(alice, "alice")
		if own.ID() != w.drive.ID() {
			w.Errorf("alice's own drive by its name: got number %d, want %d", own.ID(), w.drive.ID())
		}
		w.gives(w.Store.Drives(w.ctx, alice, 0, func(blobstore.DriveInfo) bool { w.Error("alice is told of a drive"); return true }),
			blobstore.ErrAccess, "list drives as a user")
	}},
	{"a session of nobody, or one that is over, opens and lists nothing", func(w *world) {
		over := w.Admin()
		over.Expires = time.Now().Add(-time.Second)
		noRole := w.Admin()
		noRole.Role = ""
		for _, c := range []struct {
			session auth.Session
			want    error
		}{{auth.Session{}, auth.ErrInvalid}, {noRole, auth.ErrInvalid}, {over, auth.ErrExpired}} {
			w.opensNot(c.session, "alice", c.want)
			w.opensNot(c.session, blobstore.PublicDrive, c.want)
			w.gives(w.Store.Drives(w.ctx, c.session, 0, func(blobstore.DriveInfo) bool { return true }), c.want, "list drives")
		}
	}},
	{"an admin lists all drives in the order of their numbers, in parts too", func(w *world) {
		for _, user := range []auth.UserID{"bob", "carl", "dora"} {
			w.openDrive(user)
		}
		all := w.drives(0, 100)
		var names []string
		for i, info := range all {
			names = append(names, string(info.Name))
			if i > 0 && info.ID <= all[i-1].ID || info.ID == 0 || info.ID > blobstore.MaxDriveID {
				w.Errorf("number %d after %v", info.ID, all[:i])
			}
		}
		names = slices.DeleteFunc(names, func(name string) bool { return name == string(w.Admin().User) })
		if slices.Sort(names); !slices.Equal(names, []string{"alice", "bob", "carl", "dora", "public"}) {
			w.Errorf("got drives %q", names)
		}
		var parts []blobstore.DriveInfo
		for after := blobstore.DriveID(0); ; after = parts[len(parts)-1].ID {
			part := w.drives(after, 2)
			parts = append(parts, part...)
			if len(part) < 2 {
				break
			}
		}
		if !slices.Equal(parts, all) {
			w.Errorf("in parts: got %v, want %v", parts, all)
		}
	}},
	{"an admin has full rights in every drive, and its owner sees what comes of it", func(w *world) {
		w.furnish()
		admin := w.on(w.openNamed(w.Admin(), "alice"))
		if admin.drive.ID() != w.drive.ID() {
			w.Errorf("got number %d, want %d", admin.drive.ID(), w.drive.ID())
		}
		ino := admin.mkfile(root, "by an admin", "content")
		admin.chmod(ino, 0o640)
		w.ok(admin.drive.SetXattr(w.ctx, ino, "user.by", []byte("an admin"), blobstore.XattrSet), "set xattr")
		admin.link(ino, root, "link")
		w.ok(admin.rename(root, "link", admin.mkdir(root, "folder"), "moved", blobstore.RenameReplace), "rename")
		admin.unlink(root, "latest")
		f := admin.openFile(admin.lookup(root, "best.jpg").Ino)
		admin.write(f, 0, "changed")
		admin.close(f)
		w.same(w.cat(w.lookup(w.lookup(root, "folder").Ino, "moved").Ino), "content", "what the admin made")
		w.same(w.cat(w.lookup(root, "best.jpg").Ino)[:11], "changedgjpe", "what the admin changed")
		w.missing(root, "latest")
		w.sameTree(w.tree(), admin.tree())
	}},
	{"opening a drive that is not there makes none", func(w *world) {
		for _, name := range []blobstore.DriveName{"nobody", "", ".", "..", "../alice", "alice/", "a\x00", ".mediafs", "-rf"} {
			w.opensNot(w.Admin(), name, blobstore.ErrNotExist)
		}
		for _, info := range w.drives(0, 100) {
			if info.Name != "alice" && info.Name != blobstore.PublicDrive && string(info.Name) != string(w.Admin().User) {
				w.Errorf("there is a drive %q", info.Name)
			}
		}
	}},
	{"a guest reads the public drive and changes nothing of it", func(w *world) {
		public := w.on(w.openNamed(w.Admin(), blobstore.PublicDrive))
		public.furnish()
		ino := public.mkfile(root, "secret", "for everybody") // the name that callsOn uses
		guest := w.on(w.openAs(auth.Guest()))
		w.same(guest.cat(guest.lookup(root, "secret").Ino), "for everybody", "content")
		w.sameTree(guest.tree(), public.tree())
		public.unchanged(func() {
			for what, call := range callsOn(guest, root) {
				switch what {
				case "Lookup", "Attr", "OpenDir", "ListXattr":
					w.ok(call(), "%s by a guest", what)
				case "Readlink", "GetXattr", "Open": // of a folder
					if err := call(); err == nil {
						w.Errorf("%s by a guest: got no error", what)
					}
				default:
					w.gives(call(), blobstore.ErrReadOnly, "%s by a guest", what)
				}
			}
			for _, flags := range []blobstore.OpenFlags{readWrite, blobstore.OpenWrite, blobstore.OpenRead | blobstore.OpenTruncate, blobstore.OpenRead | blobstore.OpenAppend} {
				_, err := guest.drive.Open(w.ctx, ino, flags)
				w.gives(err, blobstore.ErrReadOnly, "open with flags %b by a guest", flags)
			}
			f, err := guest.drive.Open(w.ctx, ino, blobstore.OpenRead)
			w.ok(err, "open by a guest")
			_, err = f.WriteAt(w.ctx, []byte("x"), 0)
			w.gives(err, blobstore.ErrReadOnly, "write by a guest")
			w.gives(f.Allocate(w.ctx, blobstore.AllocatePunchHole, 0, 1), blobstore.ErrReadOnly, "allocate by a guest")
			_, err = guest.drive.CopyRange(w.ctx, f, 0, f, 100, 1)
			w.gives(err, blobstore.ErrReadOnly, "copy by a guest")
			w.ok(errors.Join(f.Flush(w.ctx), f.Close()), "close by a guest")
		})
		w.opensNot(auth.Guest(), "alice", blobstore.ErrNotExist)
		w.gives(w.Store.Drives(w.ctx, auth.Guest(), 0, func(blobstore.DriveInfo) bool { return true }), blobstore.ErrAccess, "list drives as a guest")
		w.holds(root) // nothing public is in a user's drive
	}},
	{"a drive goes on with another session of the same user, with what is pending", func(w *world) {
		f, ino := w.create(root, "a")
		w.write(f, 0, "written before")
		w.ok(w.drive.Renew(w.ctx, w.Session("alice")), "renew")
		w.write(f, 8, "after it")
		w.close(f)
		w.same(w.cat(ino), "written after it", "content")
	}},
	{"a drive goes on with no session of anybody else", func(w *world) {
		ino := w.mkfile(root, "a", "content")
		over, admin := w.Session("alice"), w.Session("alice")
		over.Expires = time.Now().Add(-time.Second)
		admin.Role = auth.RoleAdmin
		for what, c := range map[string]struct {
			session auth.Session
			want    error
		}{
			"of another user":     {w.Session("bob"), auth.ErrRevoked},
			"of another role":     {admin, auth.ErrRevoked},
			"of a guest":          {auth.Guest(), auth.ErrRevoked},
			"of an admin":         {w.Admin(), auth.ErrRevoked},
			"that is over":        {over, auth.ErrExpired},
			"of nobody whatever ": {auth.Session{}, auth.ErrInvalid},
		} {
			if err := w.drive.Renew(w.ctx, c.session); !errors.Is(err, c.want) && !errors.Is(err, auth.ErrRevoked) {
				w.Errorf("a session %s: got %v, want %v", what, err, c.want)
			}
		}
		w.same(w.cat(ino), "content", "content")
		w.mkfile(root, "b", "still alice's")
	}},
	{"facts that a drive tells as xattrs are nobody's to set or remove", func(w *world) {
		ino := w.mkfile(root, "a", "content")
		for _, name := range []string{blobstore.XattrAccessCount, blobstore.XattrFacts + "anything"} {
			w.gives(w.drive.SetXattr(w.ctx, ino, name, []byte("1"), blobstore.XattrSet), blobstore.ErrPermission, "set %s", name)
			w.gives(w.drive.RemoveXattr(w.ctx, ino, name), blobstore.ErrPermission, "remove %s", name)
		}
		_, err := w.drive.GetXattr(w.ctx, ino, blobstore.XattrFacts+"anything")
		w.gives(err, blobstore.ErrNoXattr, "get a fact that there is not")
		w.hasXattrs(ino, nil)
	}},
}

// drives are up to most drives after a number, as an admin sees them.
func (w *world) drives(after blobstore.DriveID, most int) (list []blobstore.DriveInfo) {
	w.Helper()
	err := w.Store.Drives(w.ctx, w.Admin(), after, func(info blobstore.DriveInfo) bool {
		list = append(list, info)
		return len(list) < most
	})
	w.ok(err, "list drives")
	return list
}

func (w *world) openAs(session auth.Session) blobstore.Drive {
	w.Helper()
	d, err := w.Store.Open(w.ctx, session)
	w.ok(err, "open the drive of a %s", session.Role)
	w.open[d] = true
	return d
}

func (w *world) openNamed(session auth.Session, name blobstore.DriveName) blobstore.Drive {
	w.Helper()
	d, err := w.Store.OpenDrive(w.ctx, session, name)
	w.ok(err, "open the drive %q", name)
	w.open[d] = true
	return d
}

func (w *world) opensNot(session auth.Session, name blobstore.DriveName, want error) {
	w.Helper()
	d, err := w.Store.OpenDrive(w.ctx, session, name)
	w.gives(err, want, "open the drive %q as a %s", name, session.Role)
	if err == nil {
		w.open[d] = true
	}
}
