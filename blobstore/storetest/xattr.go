package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"mediafs/blobstore"
)

// xattrTests keep to names in "user." and to files and folders, where every Linux filesystem has xattrs (xattr(7)).
var xattrTests = []test{
	{"a node has the xattrs it was given, and no others", func(w *world) {
		for _, ino := range []blobstore.Ino{w.mkfile(root, "file", "content"), w.mkdir(root, "dir"), root} {
			w.hasXattrs(ino, nil)
			w.setXattr(ino, "user.b", "2", blobstore.XattrSet)
			w.setXattr(ino, "user.a", "1", blobstore.XattrSet)
			w.setXattr(ino, "user.b", "two", blobstore.XattrSet)
			w.hasXattrs(ino, map[string]string{"user.a": "1", "user.b": "two"})
			w.ok(w.drive.RemoveXattr(w.ctx, ino, "user.a"), "remove xattr")
			w.hasXattrs(ino, map[string]string{"user.b": "two"})
		}
		w.reopen()
		for _, name := range []string{"file", "dir"} {
			w.hasXattrs(w.lookup(root, name).Ino, map[string]string{"user.b": "two"})
		}
	}},
	{"an xattr that is not there can't be read, replaced or removed", func(w *world) {
		ino := w.mkfile(root, "a", "")
		w.setXattr(ino, "user.b", "", blobstore.XattrSet)
		w.unchanged(func() {
			_, err := w.drive.GetXattr(w.ctx, ino, "user.a")
			w.gives(err, blobstore.ErrNoXattr, "get")
			w.gives(w.drive.RemoveXattr(w.ctx, ino, "user.a"), blobstore.ErrNoXattr, "remove")
			err = w.drive.SetXattr(w.ctx, ino, "user.a", []byte("x"), blobstore.XattrReplace)
			w.gives(err, blobstore.ErrNoXattr, "replace")
		})
	}},
	{"XattrCreate sets only what is not there", func(w *world) {
		ino := w.mkfile(root, "a", "")
		w.setXattr(ino, "user.a", "1", blobstore.XattrCreate)
		err := w.drive.SetXattr(w.ctx, ino, "user.a", []byte("2"), blobstore.XattrCreate)
		w.gives(err, blobstore.ErrExist, "create again")
		w.hasXattrs(ino, map[string]string{"user.a": "1"})
		w.setXattr(ino, "user.a", "3", blobstore.XattrReplace)
		w.hasXattrs(ino, map[string]string{"user.a": "3"})
	}},
	{"values are bytes, and may be none", func(w *world) {
		ino := w.mkfile(root, "a", "")
		var all strings.Builder
		for c := range 256 {
			all.WriteByte(byte(c))
		}
		want := map[string]string{"user.all": all.String(), "user.none": "", "user.nul": "\x00"}
		for name, value := range want {
			w.setXattr(ino, name, value, blobstore.XattrSet)
		}
		w.hasXattrs(ino, want)
		w.reopen()
		w.hasXattrs(w.lookup(root, "a").Ino, want)
	}},
	{"names are bytes, up to 255", func(w *world) {
		want := map[string]string{
			"user.a b": "1", "user.\xff\xfe": "2", "user.a.b=c": "3", "user.A": "4", "user.a": "5", "user.%": "6", "user.日本": "7",
			"user." + strings.Repeat("n", blobstore.MaxXattrName-len("user.")): "8",
		}
		ino := w.mkfile(root, "a", "")
		for name, value := range want {
			w.setXattr(ino, name, value, blobstore.XattrSet)
		}
		w.hasXattrs(ino, want)
		long := "user." + strings.Repeat("n", blobstore.MaxXattrName-len("user.")+1)
		w.gives(w.drive.SetXattr(w.ctx, ino, long, nil, blobstore.XattrSet), blobstore.ErrTooBig, "a name of 256 bytes")
		w.hasXattrs(ino, want)
	}},
	{"a value has at most 64 KiB", func(w *world) {
		size := blobstore.MaxXattrValue
		if w.XattrSpace > 0 {
			size = w.XattrSpace - len("user.big")
		}
		ino := w.mkfile(root, "a", "")
		w.setXattr(ino, "user.big", strings.Repeat("x", size), blobstore.XattrSet)
		w.hasXattrs(ino, map[string]string{"user.big": strings.Repeat("x", size)})
		w.unchanged(func() {
			value := make([]byte, blobstore.MaxXattrValue+1)
			w.gives(w.drive.SetXattr(w.ctx, ino, "user.more", value, blobstore.XattrSet), blobstore.ErrTooBig, "set 64 KiB and a byte")
		})
	}},
	{"a node's names never take more than listxattr(2) can return", func(w *world) {
		const most = 64 << 10 // XATTR_LIST_MAX of limits.h
		ino := w.mkfile(root, "a", "")
		var err error
		for i := 0; err == nil && i < 300; i++ {
			name := fmt.Sprintf("user.%03d", i) + strings.Repeat("n", blobstore.MaxXattrName-len("user.000"))
			err = w.drive.SetXattr(w.ctx, ino, name, []byte("v"), blobstore.XattrSet)
		}
		if !errors.Is(err, blobstore.ErrNoSpace) && !errors.Is(err, blobstore.ErrTooBig) {
			w.Errorf("got error %v for 300 names of 255 bytes, want %v", err, blobstore.ErrNoSpace)
		}
		names, err := w.drive.ListXattr(w.ctx, ino)
		w.ok(err, "list xattrs")
		size := 0
		for _, name := range names {
			size += len(name) + 1
		}
		if size == 0 || size > most {
			w.Errorf("got names of %d bytes, want up to %d", size, most)
		}
	}},
	{"what was passed and returned belongs to the caller", func(w *world) {
		ino := w.mkfile(root, "a", "")
		value := []byte("value")
		w.ok(w.drive.SetXattr(w.ctx, ino, "user.a", value, blobstore.XattrSet), "set xattr")
		clear(value)
		got, err := w.drive.GetXattr(w.ctx, ino, "user.a")
		w.ok(err, "get xattr")
		clear(got)
		w.hasXattrs(ino, map[string]string{"user.a": "value"})
	}},
	{"all names of a node share its xattrs, which go with it", func(w *world) {
		ino := w.mkfile(root, "a", "")
		w.setXattr(ino, "user.a", "1", blobstore.XattrSet)
		w.link(ino, root, "b")
		w.unlink(root, "a")
		w.hasXattrs(w.lookup(root, "b").Ino, map[string]string{"user.a": "1"})
		w.unlink(root, "b")
		w.hasXattrs(w.mkfile(root, "b", ""), nil)
	}},
	{"a file without a name has its xattrs while it is open", func(w *world) {
		f, ino := w.create(root, "a")
		w.setXattr(ino, "user.a", "1", blobstore.XattrSet)
		w.unlink(root, "a")
		w.hasXattrs(ino, map[string]string{"user.a": "1"})
		w.setXattr(ino, "user.b", "2", blobstore.XattrSet)
		w.hasXattrs(ino, map[string]string{"user.a": "1", "user.b": "2"})
		w.close(f)
	}},
}

func (w *world) setXattr(ino blobstore.Ino, name, value string, mode blobstore.XattrMode) {
	w.Helper()
	w.ok(w.drive.SetXattr(w.ctx, ino, name, []byte(value), mode), "set xattr %q of node %d", name, ino)
}

// hasXattrs looks at names in "user." that are no facts: a system may give its files others, and the store tells what it knows.
func (w *world) hasXattrs(ino blobstore.Ino, want map[string]string) {
	w.Helper()
	names, err := w.drive.ListXattr(w.ctx, ino)
	w.ok(err, "list xattrs of node %d", ino)
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, "user.") || isFact(name) })
	if len(names) != len(want) {
		w.Errorf("node %d: got xattrs %.100q, want %d", ino, names, len(want))
	}
	for name, value := range want {
		if !slices.Contains(names, name) {
			w.Errorf("node %d: xattr %.100q is not listed", ino, name)
		}
		got, err := w.drive.GetXattr(w.ctx, ino, name)
		w.ok(err, "get xattr %q of node %d", name, ino)
		w.same(string(got), value, "xattr %q", name)
	}
}

// isFact says whether an xattr is what a store knows of a node.
func isFact(name string) bool { return strings.HasPrefix(name, blobstore.XattrFacts) }
