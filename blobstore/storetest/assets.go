package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
)

// describeTimeout is how long the background may take to describe the few small files of a test.
const describeTimeout = 30 * time.Second

// assetTests are of stores that implement blobstore.Assets, and pass for others.
var assetTests = []test{
	{"a file is an asset with an id, and what its content says comes to be known", func(w *world) {
		before := time.Now().Add(-time.Second)
		content := photo(31, 17, "2019:07:14 18:30:05", "+02:00")
		ino := w.mkfile(w.mkdir(root, "2019"), "beach.jpg", content)
		w.setMtime(ino, longAgo)
		a := w.described(ino)
		want := blobstore.Asset{
			ID: a.ID, Drive: "alice", Ino: ino, Path: "2019/beach.jpg", Size: int64(len(content)), Created: a.Created, Changed: time.Unix(0, longAgo),
			Described: true, Type: "image/jpeg", SHA256: sumOf(content), Width: 31, Height: 17, Taken: time.Date(2019, 7, 14, 16, 30, 5, 0, time.UTC),
		}
		w.sameAsset(a, want)
		if a.Created.Before(before) || a.Created.After(time.Now().Add(time.Second)) {
			w.Errorf("it was made at %v, which is not just now", a.Created)
		}
		w.opened(ino, 3)
		w.reopen()
		ino = w.lookup(w.lookup(root, "2019").Ino, "beach.jpg").Ino
		want.Ino, want.AccessCount = ino, 3
		a = w.described(ino)
		if a.LastAccessed.Before(before) {
			w.Errorf("it was last accessed at %v", a.LastAccessed)
		}
		want.LastAccessed = a.LastAccessed
		w.sameAsset(a, want)
	}},
	{"what is known of a file are xattrs, listed with its own", func(w *world) {
		content := photo(31, 17, "2019:07:14 18:30:05", "+02:00")
		ino := w.mkfile(root, "beach.jpg", content)
		a := w.described(ino)
		facts := map[string]string{
			blobstore.XattrID:          a.ID.String(),
			blobstore.XattrType:        "image/jpeg",
			blobstore.XattrSHA256:      hex.EncodeToString(sumOf(content)),
			blobstore.XattrWidth:       "31",
			blobstore.XattrHeight:      "17",
			blobstore.XattrTaken:       "2019-07-14T16:30:05Z",
			blobstore.XattrCreated:     a.Created.UTC().Format(time.RFC3339Nano),
			blobstore.XattrAccessCount: "0",
		}
		w.setXattr(ino, "user.own", "mine", blobstore.XattrSet)
		w.knows(ino, facts)
		w.hasXattrs(ino, map[string]string{"user.own": "mine"})
		w.setXattr(ino, blobstore.XattrJob, "job-1", blobstore.XattrSet)
		facts[blobstore.XattrJob] = "job-1"
		w.knows(ino, facts)
		text := w.mkfile(root, "note", "plain text")
		w.described(text)
		names := w.facts(text)
		for _, name := range []string{blobstore.XattrWidth, blobstore.XattrHeight, blobstore.XattrTaken, blobstore.XattrLastAccessed, blobstore.XattrJob} {
			if slices.Contains(names, name) {
				w.Errorf("%s of a text is listed", name)
			}
			_, err := w.drive.GetXattr(w.ctx, text, name)
			w.gives(err, blobstore.ErrNoXattr, "%s of a text", name)
		}
		for _, ino := range []blobstore.Ino{root, w.mkdir(root, "dir")} {
			w.knows(ino, nil)
			for name := range facts {
				_, err := w.drive.GetXattr(w.ctx, ino, name)
				w.gives(err, blobstore.ErrNoXattr, "%s of a folder", name)
			}
		}
	}},
	{"what is known of a file is nobody's to set or remove, but for the job", func(w *world) {
		for _, ino := range []blobstore.Ino{root, w.mkdir(root, "dir"), w.mkfile(root, "a", "content")} {
			for _, name := range []string{
				blobstore.XattrID, blobstore.XattrType, blobstore.XattrSHA256, blobstore.XattrWidth, blobstore.XattrHeight, blobstore.XattrTaken,
				blobstore.XattrCreated, blobstore.XattrJob + "s",
			} {
				w.gives(w.drive.SetXattr(w.ctx, ino, name, []byte("1"), blobstore.XattrSet), blobstore.ErrPermission, "set %s", name)
				w.gives(w.drive.RemoveXattr(w.ctx, ino, name), blobstore.ErrPermission, "remove %s", name)
			}
		}
	}},
	{"an id is one file's, and stays", func(w *world) {
		ids := make(map[string]string)
		remember := func(drive *world, name string) {
			id := drive.fact(drive.lookup(root, name).Ino, blobstore.XattrID)
			if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(id) {
				w.Errorf("%q is no UUID", id)
			}
			for other, known := range ids {
				if known == id && other != name {
					w.Errorf("%s and %s have the same id", name, other)
				}
			}
			if known := ids[name]; known != "" && known != id {
				w.Errorf("the id of %s was %s and is %s", name, known, id)
			}
			ids[name] = id
		}
		for i := range 20 {
			name := fmt.Sprint("file", i)
			w.mkfile(root, name, "the same content")
			remember(w, name)
		}
		bob := w.on(w.openDrive("bob"))
		bob.mkfile(root, "bob's", "the same content")
		remember(bob, "bob's")

		ino := w.lookup(root, "file1").Ino
		f := w.openFile(ino)
		w.write(f, 100, "changed")
		w.close(f)
		w.truncate(ino, 3)
		w.chmod(ino, 0o600)
		w.link(ino, root, "link")
		remember(w, "file1")
		if got := w.fact(w.lookup(root, "link").Ino, blobstore.XattrID); got != ids["file1"] {
			w.Errorf("under its other name it has the id %s, want %s", got, ids["file1"])
		}
		dir := w.mkdir(root, "dir")
		w.ok(w.rename(root, "file2", dir, "moved", blobstore.RenameReplace), "rename")
		w.ok(w.rename(root, "dir", root, "folder", blobstore.RenameReplace), "rename")
		w.ok(w.rename(dir, "moved", root, "file3", blobstore.RenameReplace), "rename")
		ids["file3"] = ids["file2"]
		delete(ids, "file2")
		remember(w, "file3")
		w.reopen()
		for name := range ids {
			if name != "bob's" {
				remember(w, name)
			}
		}
	}},
	{"a copy, and a file that takes the name of one that is gone, have ids of their own", func(w *world) {
		src := w.mkfile(root, "a", "content")
		id := w.fact(src, blobstore.XattrID)
		from, to := w.openFile(src), w.openFile(w.mkfile(root, "copy", ""))
		if _, err := w.drive.CopyRange(w.ctx, from, 0, to, 0, 7); err != nil && !errors.Is(err, blobstore.ErrNotSupported) {
			w.Errorf("copy: %v", err)
		}
		w.close(from)
		w.close(to)
		if got := w.fact(w.lookup(root, "copy").Ino, blobstore.XattrID); got == id {
			w.Errorf("the copy has the id of the original, %s", id)
		}
		w.unlink(root, "a")
		if got := w.fact(w.mkfile(root, "a", "content"), blobstore.XattrID); got == id {
			w.Errorf("a new file has the id of one that is gone, %s", id)
		}
	}},
	{"a job can be set, replaced and removed, and is plain text of up to 255 bytes", func(w *world) {
		for _, ino := range []blobstore.Ino{w.mkfile(root, "a", "content"), w.mkdir(root, "dir")} {
			_, err := w.drive.GetXattr(w.ctx, ino, blobstore.XattrJob)
			w.gives(err, blobstore.ErrNoXattr, "no job")
			w.gives(w.drive.RemoveXattr(w.ctx, ino, blobstore.XattrJob), blobstore.ErrNoXattr, "remove no job")
			w.gives(w.drive.SetXattr(w.ctx, ino, blobstore.XattrJob, []byte("x"), blobstore.XattrReplace), blobstore.ErrNoXattr, "replace no job")
			w.setXattr(ino, blobstore.XattrJob, "Nächtlicher Import 7", blobstore.XattrCreate)
			w.gives(w.drive.SetXattr(w.ctx, ino, blobstore.XattrJob, []byte("x"), blobstore.XattrCreate), blobstore.ErrExist, "create a job that is there")
			for _, bad := range []string{strings.Repeat("j", blobstore.MaxJobLen+1), strings.Repeat("j", blobstore.MaxXattrValue), "a\nb", "a\x00", "\x1b[31m", "\xff\xfe"} {
				w.gives(w.drive.SetXattr(w.ctx, ino, blobstore.XattrJob, []byte(bad), blobstore.XattrSet), blobstore.ErrInvalid, "a job of %d bytes, %.10q", len(bad), bad)
			}
			w.same(w.fact(ino, blobstore.XattrJob), "Nächtlicher Import 7", "job")
			longest := strings.Repeat("j", blobstore.MaxJobLen)
			w.setXattr(ino, blobstore.XattrJob, longest, blobstore.XattrReplace)
			w.same(w.fact(ino, blobstore.XattrJob), longest, "job")
			w.ok(w.drive.RemoveXattr(w.ctx, ino, blobstore.XattrJob), "remove the job")
			_, err = w.drive.GetXattr(w.ctx, ino, blobstore.XattrJob)
			w.gives(err, blobstore.ErrNoXattr, "the job that was removed")
			if slices.Contains(w.facts(ino), blobstore.XattrJob) {
				w.Error("the job that was removed is listed")
			}
		}
	}},
	{"what is made in a folder takes its job, and keeps it wherever it goes", func(w *world) {
		dir, plain := w.mkdir(root, "import"), w.mkdir(root, "plain")
		old := w.mkfile(dir, "old", "")
		w.setXattr(dir, blobstore.XattrJob, "job-1", blobstore.XattrSet)
		w.same(strings.Join(w.facts(dir), " "), blobstore.XattrJob, "what is known of the folder")
		created := w.mkfile(dir, "created", "")
		made := w.make(dir, "made", w.newNode(unix.S_IFREG|0o644)).Ino
		within := w.mkdir(dir, "within")
		deep := w.mkfile(within, "deep", "")
		w.symlink(dir, "link", "created")
		for _, ino := range []blobstore.Ino{created, made, within, deep} {
			w.same(w.fact(ino, blobstore.XattrJob), "job-1", "job of node %d", ino)
		}
		moving := w.mkfile(plain, "moving", "")
		w.ok(w.rename(plain, "moving", dir, "moved in", blobstore.RenameReplace), "rename")
		w.ok(w.rename(dir, "created", plain, "moved out", blobstore.RenameReplace), "rename")
		w.link(old, dir, "another name")
		f, _, isNew, err := w.drive.Create(w.ctx, dir, "old", w.newNode(unix.S_IFREG|0o644), readWrite)
		w.ok(err, "open a file that is there")
		w.close(f)
		if isNew {
			w.Error("the file was made anew")
		}
		for _, ino := range []blobstore.Ino{old, moving, plain} {
			_, err := w.drive.GetXattr(w.ctx, ino, blobstore.XattrJob)
			w.gives(err, blobstore.ErrNoXattr, "job of node %d", ino)
		}
		w.setXattr(dir, blobstore.XattrJob, "job-2", blobstore.XattrSet)
		w.same(w.fact(w.mkfile(dir, "next", ""), blobstore.XattrJob), "job-2", "job of the next file")
		w.ok(w.drive.RemoveXattr(w.ctx, dir, blobstore.XattrJob), "remove the folder's job")
		_, err = w.drive.GetXattr(w.ctx, w.mkfile(dir, "last", ""), blobstore.XattrJob)
		w.gives(err, blobstore.ErrNoXattr, "job of the last file")
		w.reopen()
		w.same(w.fact(w.lookup(w.lookup(root, "plain").Ino, "moved out").Ino, blobstore.XattrJob), "job-1", "job of what was moved out")
		w.finds(blobstore.AssetQuery{Job: "job-1"}, "import/made", "import/within/deep", "plain/moved out")
		w.finds(blobstore.AssetQuery{Job: "job-2"}, "import/next")
	}},
	{"content that changes is described again", func(w *world) {
		ino := w.mkfile(root, "a", photo(31, 17, "2019:07:14 18:30:05", ""))
		w.described(ino)
		f := w.openFile(ino)
		w.write(f, 0, "just text, ")
		w.close(f)
		w.truncate(ino, 10)
		a := w.described(ino)
		if a.Type != "text/plain" || a.Width != 0 || !a.Taken.IsZero() || a.Size != 10 {
			w.Errorf("got %+v", a)
		}
		f, err := w.drive.Open(w.ctx, ino, readWrite|blobstore.OpenTruncate)
		w.ok(err, "open and truncate")
		w.write(f, 0, "not a text")
		w.close(f)
		w.described(ino)
		from, to := w.openFile(w.mkfile(root, "photo", photo(5, 6, "2019:07:14 18:30:05", ""))), w.openFile(ino)
		if _, err := w.drive.CopyRange(w.ctx, from, 0, to, 0, 1<<20); errors.Is(err, blobstore.ErrNotSupported) {
			w.write(to, 0, w.content(from))
		} else {
			w.ok(err, "copy")
		}
		w.close(from)
		w.close(to)
		if a := w.described(ino); a.Type != "image/jpeg" || a.Width != 5 {
			w.Errorf("got %+v", a)
		}
	}},
	{"files that say nothing, or nothing intelligible, are described too", func(w *world) {
		content := photo(31, 17, "2019:07:14 18:30:05", "")
		for name, file := range map[string]struct{ content, kind string }{
			"empty.jpg":     {"", ""},
			"cut.jpg":       {content[:40], "image/jpeg"},
			"corrupt.jpg":   {content[:20] + strings.Repeat("\xff", 40) + content[60:], "image/jpeg"},
			"bytes":         {"\x00\x01\xff", ""},
			"of many parts": {strings.Repeat("0123456789abcdef", 1<<16), "text/plain"},
		} {
			a := w.described(w.mkfile(root, name, file.content))
			if a.Type == "" || file.kind != "" && a.Type != file.kind || !bytes.Equal(a.SHA256, sumOf(file.content)) {
				w.Errorf("%s: got %+v", name, a)
			}
		}
	}},
	{"only files are assets, each once however many names it has", func(w *world) {
		dir := w.mkdir(root, "dir")
		ino := w.mkfile(dir, "b", "content")
		w.link(ino, root, "a")
		w.link(ino, dir, "c")
		w.symlink(root, "link", "a")
		w.make(root, "pipe", w.newNode(unix.S_IFIFO|0o644))
		for _, query := range []blobstore.AssetQuery{{}, {Folder: "dir"}, {Name: "a"}, {Name: "[bc]"}, {Folder: "dir", Name: "c"}, {Shallow: true}} {
			found := w.find(query)
			if len(found) != 1 || found[0].Ino != ino {
				w.Errorf("%+v: got %+v, want the one file", query, found)
				continue
			}
			if in, name := path.Split(found[0].Path); query.Folder != "" && in != "dir/" || query.Shallow && in != "" || query.Name != "" && !strings.Contains(query.Name, name) {
				w.Errorf("%+v: found as %s", query, found[0].Path)
			}
		}
		w.unlink(root, "a")
		w.unlink(dir, "b")
		w.finds(blobstore.AssetQuery{}, "dir/c")
		w.unlink(dir, "c")
		w.finds(blobstore.AssetQuery{})
	}},
	{"assets are found by each thing that is known of them", func(w *world) {
		a, b := w.mkdir(root, "a"), w.mkdir(root, "b")
		ab := w.mkdir(a, "b")
		w.setXattr(ab, blobstore.XattrJob, "job", blobstore.XattrSet)
		all := []blobstore.Asset{ // each made after the one before it is described, and so at a time of its own
			w.described(w.mkfile(root, "top.txt", "text")),
			w.described(w.mkfile(a, "Photo.JPG", photo(3, 2, "2019:07:14 18:30:05", ""))),
			w.described(w.mkfile(ab, "photo.jpeg", photo(3, 2, "", ""))),
			w.described(w.mkfile(ab, "empty", "")),
			w.described(w.mkfile(b, "strange [1] é\xff.txt", "0123456789")),
		}
		w.finds(blobstore.AssetQuery{}, "top.txt", "a/Photo.JPG", "a/b/photo.jpeg", "a/b/empty", "b/strange [1] é\xff.txt")
		for _, folder := range []string{"a", "/a", "a/"} {
			w.finds(blobstore.AssetQuery{Folder: folder}, "a/Photo.JPG", "a/b/photo.jpeg", "a/b/empty")
		}
		w.finds(blobstore.AssetQuery{Folder: "a", Shallow: true}, "a/Photo.JPG")
		w.finds(blobstore.AssetQuery{Shallow: true}, "top.txt")
		w.finds(blobstore.AssetQuery{Folder: "a/b/photo.jpeg"})
		w.finds(blobstore.AssetQuery{Folder: "nowhere"})
		w.finds(blobstore.AssetQuery{Folder: "../alice"})
		w.finds(blobstore.AssetQuery{Name: "*.jp*g"}, "a/Photo.JPG", "a/b/photo.jpeg")
		w.finds(blobstore.AssetQuery{Name: "PHOTO.???"}, "a/Photo.JPG")
		w.finds(blobstore.AssetQuery{Name: "photo"})
		w.finds(blobstore.AssetQuery{Name: "a/*"})
		w.finds(blobstore.AssetQuery{Name: `*\[1\]*`}, "b/strange [1] é\xff.txt")
		w.finds(blobstore.AssetQuery{Name: "[s-t]*.txt"}, "top.txt", "b/strange [1] é\xff.txt")
		w.finds(blobstore.AssetQuery{Name: "[^a-s]*.txt"}, "top.txt")
		w.finds(blobstore.AssetQuery{Types: []string{"image/jpeg"}}, "a/Photo.JPG", "a/b/photo.jpeg")
		w.finds(blobstore.AssetQuery{Types: []string{"image/*"}, Folder: "a/b"}, "a/b/photo.jpeg")
		w.finds(blobstore.AssetQuery{Types: []string{"image/png", "text/*"}}, "top.txt", "b/strange [1] é\xff.txt")
		w.finds(blobstore.AssetQuery{Types: []string{"image/%"}})
		w.finds(blobstore.AssetQuery{Job: "job"}, "a/b/photo.jpeg", "a/b/empty")
		w.finds(blobstore.AssetQuery{Job: "jo"})
		w.finds(blobstore.AssetQuery{MinSize: 5, MaxSize: 10}, "b/strange [1] é\xff.txt")
		w.finds(blobstore.AssetQuery{MaxSize: 4}, "top.txt", "a/b/empty")
		w.finds(blobstore.AssetQuery{MinSize: 10, Types: []string{"text/plain"}}, "b/strange [1] é\xff.txt")
		w.finds(blobstore.AssetQuery{Since: all[1].Created, Until: all[3].Created}, "a/Photo.JPG", "a/b/photo.jpeg")
		w.finds(blobstore.AssetQuery{Since: all[4].Created}, all[4].Path)
		w.finds(blobstore.AssetQuery{Until: all[0].Created})
		w.finds(blobstore.AssetQuery{Since: time.Now().Add(time.Hour)})
		newest := w.find(blobstore.AssetQuery{Order: blobstore.ByCreation})
		if len(newest) != len(all) || !slices.IsSortedFunc(newest, func(a, b blobstore.Asset) int { return b.Created.Compare(a.Created) }) {
			w.Errorf("by creation: got %v", newest)
		}
	}},
	{"in pages each asset comes once, in one order", func(w *world) {
		hostile := []string{"a b", "a\nb", "a'b", `a"b`, "a\\b", "%", "_", "\xff", "ü", "A", "a", "-", "~", "\x01", "'; drop table assets; --"}
		for _, folder := range []string{"one", "two \xfe", "'%_"} {
			dir := w.mkdir(root, folder)
			for _, name := range hostile {
				w.mkfile(dir, name, name)
			}
		}
		for i := range 30 {
			w.mkfile(root, strconv.Itoa(i), "")
		}
		const all = 3*15 + 30
		for _, query := range []blobstore.AssetQuery{{}, {Order: blobstore.ByCreation}, {Folder: "two \xfe"}, {Name: "*a*"}, {MinSize: 1, Order: blobstore.ByCreation}} {
			want := w.find(query)
			for _, limit := range []int{1, 7, all - 1, all, 2000} {
				query.Limit = limit
				w.sameIDs(w.find(query), want, "%+v", query)
			}
		}
		if got := w.find(blobstore.AssetQuery{Limit: 1}); len(got) != all {
			w.Errorf("got %d assets, want %d", len(got), all)
		}
	}},
	{"what goes while a list is read takes nothing else out of it", func(w *world) {
		for i := range 20 {
			w.mkfile(root, fmt.Sprintf("%02d", i), "")
		}
		first := w.page(w.Session("alice"), blobstore.AssetQuery{Limit: 5})
		for i := range 5 {
			w.unlink(root, fmt.Sprintf("%02d", i))
		}
		if first.Next == "" {
			w.Fatal("the first page of 20 assets says that it is the last")
		}
		var rest []string
		for after := first.Next; after != ""; {
			page := w.page(w.Session("alice"), blobstore.AssetQuery{Limit: 5, After: after})
			for _, a := range page.Assets {
				rest = append(rest, a.Path)
			}
			after = page.Next
		}
		want := []string{"05", "06", "07", "08", "09", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19"}
		if !slices.Equal(rest, want) {
			w.Errorf("got %q, want %q", rest, want)
		}
	}},
	{"a user finds what is on their own drive, an admin on all, a guest on the public one", func(w *world) {
		w.mkfile(root, "photo", "alice's")
		bob := w.on(w.openDrive("bob"))
		bob.mkfile(root, "photo", "bob's")
		public := w.on(w.openNamed(w.Admin(), blobstore.PublicDrive))
		public.mkfile(root, "photo", "everybody's")
		for _, c := range []struct {
			session auth.Session
			drives  []blobstore.DriveName
			want    []string
		}{
			{w.Session("alice"), nil, []string{"alice"}},
			{w.Session("bob"), nil, []string{"bob"}},
			{w.Session("alice"), []blobstore.DriveName{"bob", "public", "alice'", "%", "*", "", ".mediafs"}, nil},
			{w.Session("alice"), []blobstore.DriveName{"bob", "alice", "alice"}, []string{"alice"}},
			{w.Session("carl"), nil, nil},
			{w.Session("carl"), []blobstore.DriveName{"alice"}, nil},
			{auth.Guest(), nil, []string{"public"}},
			{auth.Guest(), []blobstore.DriveName{"alice"}, nil},
			{w.Admin(), nil, []string{"alice", "bob", "public"}},
			{w.Admin(), []blobstore.DriveName{"bob", "public"}, []string{"bob", "public"}},
			{w.Admin(), []blobstore.DriveName{"nobody", "../alice", ".mediafs"}, nil},
		} {
			var got []string
			for _, a := range w.findAs(c.session, blobstore.AssetQuery{Drives: c.drives, Limit: 2}) {
				got = append(got, string(a.Drive))
				if a.Path != "photo" {
					w.Errorf("found %q on the drive of %s", a.Path, a.Drive)
				}
			}
			if !slices.Equal(got, c.want) {
				w.Errorf("%s %s of %q: got assets on %q, want %q", c.session.Role, c.session.User, c.drives, got, c.want)
			}
		}
	}},
	{"a cursor of somebody else's leads nowhere but to one's own", func(w *world) {
		bob := w.on(w.openDrive("bob"))
		for i := range 4 {
			w.mkfile(root, fmt.Sprint("a", i), "")
			bob.mkfile(root, fmt.Sprint("b", i), "")
		}
		page := w.page(w.Session("bob"), blobstore.AssetQuery{Limit: 2})
		for _, query := range []blobstore.AssetQuery{{After: page.Next}, {After: page.Next, Drives: []blobstore.DriveName{"bob"}}} {
			found, err := w.assets().FindAssets(w.ctx, w.Session("alice"), query)
			for _, a := range found.Assets {
				if a.Drive != "alice" {
					w.Errorf("alice finds %s of %s with bob's cursor (%v)", a.Path, a.Drive, err)
				}
			}
		}
	}},
	{"folders are listed by name, page by page, and those of one's own drive alone", func(w *world) {
		bob := w.on(w.openDrive("bob"))
		albums := w.mkdir(root, "albums")
		bob.mkdir(bob.mkdir(root, "albums"), "bob's")
		var want []string
		for _, name := range []string{"2024", "2025", "b", "not UTF-8 \xff", "über"} {
			ino := w.mkdir(albums, name)
			w.mkdir(ino, "deeper")
			w.setMtime(ino, longAgo)
			want = append(want, "albums/"+name)
		}
		slices.Sort(want)
		w.mkfile(albums, "photo", "no folder")
		w.symlink(albums, "link", "2024")
		for limit := range 7 {
			var got []string
			for _, f := range w.foldersAs(w.Session("alice"), blobstore.FolderQuery{Folder: "/albums/", Limit: limit}) {
				got = append(got, f.Path)
				if f.Drive != "alice" || f.Changed.UnixNano() != longAgo {
					w.Errorf("got %+v", f)
				}
			}
			if !slices.Equal(got, want) {
				w.Errorf("in pages of %d: got %q, want %q", limit, got, want)
			}
		}
		for what, c := range map[string]struct {
			session auth.Session
			query   blobstore.FolderQuery
			want    []string
		}{
			"the root":            {w.Session("alice"), blobstore.FolderQuery{}, []string{"alice:albums"}},
			"what holds none":     {w.Session("alice"), blobstore.FolderQuery{Folder: "albums/2024/deeper"}, nil},
			"an admin's":          {w.Admin(), blobstore.FolderQuery{Folder: "albums", Limit: 3}, append(prefixed("alice:", want), "bob:albums/bob's")},
			"an admin's of bob":   {w.Admin(), blobstore.FolderQuery{Folder: "albums", Drives: []blobstore.DriveName{"bob"}}, []string{"bob:albums/bob's"}},
			"another's":           {w.Session("alice"), blobstore.FolderQuery{Drives: []blobstore.DriveName{"bob"}}, nil},
			"a guest's":           {auth.Guest(), blobstore.FolderQuery{}, nil},
			"one without a drive": {w.Session("carl"), blobstore.FolderQuery{}, nil},
		} {
			var got []string
			for _, f := range w.foldersAs(c.session, c.query) {
				got = append(got, string(f.Drive)+":"+f.Path)
			}
			if !slices.Equal(got, c.want) {
				w.Errorf("%s: got %q, want %q", what, got, c.want)
			}
		}
		for what, c := range map[string]struct {
			session auth.Session
			query   blobstore.FolderQuery
			want    error
		}{
			"what is not there":       {w.Session("alice"), blobstore.FolderQuery{Folder: "nothing"}, blobstore.ErrNotExist},
			"what is another's":       {w.Session("alice"), blobstore.FolderQuery{Folder: "albums/bob's"}, blobstore.ErrNotExist},
			"the same, by their name": {w.Session("alice"), blobstore.FolderQuery{Folder: "albums", Drives: []blobstore.DriveName{"bob"}}, blobstore.ErrNotExist},
			"a guest":                 {auth.Guest(), blobstore.FolderQuery{Folder: "albums"}, blobstore.ErrNotExist},
			"a file":                  {w.Session("alice"), blobstore.FolderQuery{Folder: "albums/photo"}, blobstore.ErrNotDir},
			"a link":                  {w.Session("alice"), blobstore.FolderQuery{Folder: "albums/link"}, blobstore.ErrNotDir},
			"the zero session":        {auth.Session{}, blobstore.FolderQuery{}, auth.ErrInvalid},
			"a cursor that isn't":     {w.Session("alice"), blobstore.FolderQuery{After: "\x00'; drop table nodes"}, blobstore.ErrInvalid},
		} {
			page, err := w.assets().FindFolders(w.ctx, c.session, c.query)
			w.gives(err, c.want, "folders of %s", what)
			if len(page.Folders) > 0 {
				w.Errorf("of %s: got %v", what, page.Folders)
			}
		}
		page, err := w.assets().FindFolders(w.ctx, w.Session("alice"), blobstore.FolderQuery{Folder: "albums", Limit: 2})
		w.ok(err, "the first page")
		if page, err = w.assets().FindFolders(w.ctx, w.Session("bob"), blobstore.FolderQuery{Folder: "albums", After: page.Next}); err == nil {
			for _, f := range page.Folders {
				if f.Drive != "bob" {
					w.Errorf("bob finds %s with alice's cursor", f.Path)
				}
			}
		}
	}},
	{"nobody finds anything without a session, and what is no query is refused", func(w *world) {
		w.mkfile(root, "photo", "alice's")
		over := w.Session("alice")
		over.Expires = time.Now().Add(-time.Second)
		ended, cancel := context.WithCancelCause(w.ctx)
		stop := errors.New("stop")
		cancel(stop)
		for what, c := range map[string]struct {
			ctx     context.Context
			session auth.Session
			query   blobstore.AssetQuery
			want    error
		}{
			"the zero session":     {w.ctx, auth.Session{}, blobstore.AssetQuery{}, auth.ErrInvalid},
			"an expired session":   {w.ctx, over, blobstore.AssetQuery{}, auth.ErrExpired},
			"a pattern that isn't": {w.ctx, w.Session("alice"), blobstore.AssetQuery{Name: "[a"}, blobstore.ErrInvalid},
			"half an escape":       {w.ctx, w.Session("alice"), blobstore.AssetQuery{Name: `a\`}, blobstore.ErrInvalid},
			"a cursor that isn't":  {w.ctx, w.Session("alice"), blobstore.AssetQuery{After: "\x00'; drop table assets"}, blobstore.ErrInvalid},
			"an ended context":     {ended, w.Session("alice"), blobstore.AssetQuery{}, stop},
		} {
			page, err := w.assets().FindAssets(c.ctx, c.session, c.query)
			w.gives(err, c.want, "find assets with %s", what)
			if len(page.Assets) > 0 {
				w.Errorf("with %s: got %v", what, page.Assets)
			}
		}
	}},
}

// photo is a JPEG of so many pixels, taken at a time and an offset from UTC as EXIF writes them; "": it does not say when.
func photo(width, height int, at, zone string) string {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, width, height)), nil); err != nil {
		panic(err) // a buffer takes all
	}
	if at == "" {
		return b.String()
	}
	le := binary.LittleEndian
	tag := func(exif []byte, id, kind uint16, count, value uint32) []byte {
		return le.AppendUint32(le.AppendUint32(le.AppendUint16(le.AppendUint16(exif, id), kind), count), value)
	}
	exif := []byte("Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00")
	exif = tag(exif, 0x8769, 4, 1, 26) // where the next list of tags is
	exif = append(exif, 0, 0, 0, 0, 2, 0)
	exif = tag(exif, 0x9003, 2, uint32(len(at)+1), 56)
	exif = tag(exif, 0x9011, 2, uint32(len(zone)+1), uint32(56+len(at)+1))
	exif = append(exif, "\x00\x00\x00\x00"+at+"\x00"+zone+"\x00\x00\x00\x00\x00"...)
	segment := binary.BigEndian.AppendUint16([]byte{0xff, 0xd8, 0xff, 0xe1}, uint16(len(exif)+2))
	return string(segment) + string(exif) + b.String()[2:]
}

func sumOf(content string) []byte {
	sum := sha256.Sum256([]byte(content))
	return sum[:]
}

// assets is the store as one that knows assets. The test is skipped for one that does not.
func (w *world) assets() blobstore.Assets {
	w.Helper()
	assets, ok := w.Store.(blobstore.Assets)
	if !ok {
		w.Skip("the store knows no assets")
	}
	return assets
}

func (w *world) page(session auth.Session, query blobstore.AssetQuery) blobstore.AssetPage {
	w.Helper()
	page, err := w.assets().FindAssets(w.ctx, session, query)
	w.ok(err, "find assets by %+v", query)
	if query.Limit > 0 && len(page.Assets) > query.Limit {
		w.Errorf("got a page of %d assets, want at most %d", len(page.Assets), query.Limit)
	}
	return page
}

// prefixed are strings with the same in front of each.
func prefixed(prefix string, all []string) (with []string) {
	for _, s := range all {
		with = append(with, prefix+s)
	}
	return with
}

// foldersAs lists all folders, page by page.
func (w *world) foldersAs(session auth.Session, query blobstore.FolderQuery) (all []blobstore.Folder) {
	w.Helper()
	for {
		page, err := w.assets().FindFolders(w.ctx, session, query)
		w.ok(err, "folders by %+v", query)
		if query.Limit > 0 && len(page.Folders) > query.Limit {
			w.Errorf("got a page of %d folders, want at most %d", len(page.Folders), query.Limit)
		}
		all = append(all, page.Folders...)
		if page.Next == "" {
			return all
		}
		if len(page.Folders) == 0 || page.Next == query.After {
			w.Fatalf("the page after %q has %d folders, and %q comes after it", query.After, len(page.Folders), page.Next)
		}
		query.After = page.Next
	}
}

// findAs finds all assets, page by page. No page but the only one is empty.
func (w *world) findAs(session auth.Session, query blobstore.AssetQuery) (all []blobstore.Asset) {
	w.Helper()
	for {
		page := w.page(session, query)
		all = append(all, page.Assets...)
		if page.Next == "" {
			return all
		}
		if len(page.Assets) == 0 || page.Next == query.After {
			w.Fatalf("the page after %q has %d assets, and %q comes after it", query.After, len(page.Assets), page.Next)
		}
		query.After = page.Next
	}
}

// find is findAs for the user of the world's drive.
func (w *world) find(query blobstore.AssetQuery) []blobstore.Asset {
	w.Helper()
	return w.findAs(w.Session("alice"), query)
}

// finds checks the paths of what is found, in whatever order.
func (w *world) finds(query blobstore.AssetQuery, want ...string) {
	w.Helper()
	var got []string
	for _, a := range w.find(query) {
		got = append(got, a.Path)
	}
	slices.Sort(got)
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		w.Errorf("%+v: got %q, want %q", query, got, want)
	}
}

func (w *world) sameIDs(got, want []blobstore.Asset, what string, args ...any) {
	w.Helper()
	ids := func(assets []blobstore.Asset) (ids []string) {
		for _, a := range assets {
			ids = append(ids, a.ID.String())
		}
		return ids
	}
	if g, all := ids(got), ids(want); !slices.Equal(g, all) {
		w.Errorf("%s: got %d assets, %q; want %d, %q", fmt.Sprintf(what, args...), len(g), g, len(all), all)
	}
}

// described waits until the content of a file is described, and checks that it is what is there.
func (w *world) described(ino blobstore.Ino) blobstore.Asset {
	w.Helper()
	content := w.cat(ino)
	w.assets()
	for deadline := time.Now().Add(describeTimeout); ; time.Sleep(10 * time.Millisecond) {
		found := w.find(blobstore.AssetQuery{})
		i := slices.IndexFunc(found, func(a blobstore.Asset) bool { return a.Ino == ino })
		if i < 0 {
			w.Fatalf("node %d is not found; %d assets are", ino, len(found))
		}
		a := found[i]
		if a.Size != int64(len(content)) {
			w.Fatalf("node %d: got %d bytes, want %d", ino, a.Size, len(content))
		}
		if a.Described {
			if !bytes.Equal(a.SHA256, sumOf(content)) {
				w.Fatalf("node %d is said to be described, with the checksum %x; that of its content is %x", ino, a.SHA256, sumOf(content))
			}
			return a
		}
		if time.Now().After(deadline) {
			w.Fatalf("node %d was not described in %v: %+v", ino, describeTimeout, a)
		}
	}
}

func (w *world) sameAsset(got, want blobstore.Asset) {
	w.Helper()
	times := func(a *blobstore.Asset) (list [4]int64) {
		for i, t := range []*time.Time{&a.Created, &a.Changed, &a.Taken, &a.LastAccessed} {
			if !t.IsZero() {
				list[i] = t.UnixNano()
			}
			*t = time.Time{}
		}
		return list
	}
	if g, t := times(&got), times(&want); g != t || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		w.Errorf("got %+v with the times %d, want %+v with %d", got, g, want, t)
	}
}

// facts are the names of the xattrs that are facts, as they are listed.
func (w *world) facts(ino blobstore.Ino) []string {
	w.Helper()
	names, err := w.drive.ListXattr(w.ctx, ino)
	w.ok(err, "list xattrs of node %d", ino)
	return slices.DeleteFunc(names, func(name string) bool { return !isFact(name) })
}

// knows checks that the xattrs of a node which are facts are these, as listed and as read.
func (w *world) knows(ino blobstore.Ino, want map[string]string) {
	w.Helper()
	names := w.facts(ino)
	if slices.Sort(names); len(slices.Compact(names)) != len(want) {
		w.Errorf("node %d: got facts %q, want %q", ino, names, want)
	}
	for name, value := range want {
		if !slices.Contains(names, name) {
			w.Errorf("node %d: %s is not listed", ino, name)
		}
		w.same(w.fact(ino, name), value, "%s", name)
	}
}
