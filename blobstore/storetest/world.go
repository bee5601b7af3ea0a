package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
)

const (
	root = blobstore.RootIno

	// noIno is a number that no store gives to one of its first nodes.
	noIno blobstore.Ino = 1<<39 + 12345

	// longAgo is a time that no clock shows any more, 2001-09-09 in nanoseconds: a node that has it was told to.
	longAgo int64 = 1_000_000_000_123_456_789

	readWrite = blobstore.OpenRead | blobstore.OpenWrite

	testTimeout  = 5 * time.Minute
	clockTimeout = 10 * time.Second // a clock that has not moved by then stands still
)

// A world is a store with the drive of one user, alice. Its helpers end the test when what they do fails.
type world struct {
	*testing.T
	Fixture
	drive blobstore.Drive
	ctx   context.Context
	open  map[blobstore.Drive]bool
}

func newWorld(t *testing.T, f Fixture) *world {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	w := &world{T: t, Fixture: f, ctx: ctx, open: make(map[blobstore.Drive]bool)}
	t.Cleanup(func() {
		defer cancel()
		for d := range w.open {
			w.closeDrive(d)
		}
	})
	w.drive = w.openDrive("alice")
	return w
}

func (w *world) openDrive(user auth.UserID) blobstore.Drive {
	w.Helper()
	d, err := w.Store.Open(w.ctx, w.Session(user))
	w.ok(err, "open the drive of %s", user)
	w.open[d] = true
	return d
}

func (w *world) closeDrive(d blobstore.Drive) {
	w.Helper()
	delete(w.open, d)
	if err := d.Close(w.ctx); err != nil {
		w.Errorf("close drive: %v", err)
	}
}

// on is the same world with another drive.
func (w *world) on(d blobstore.Drive) *world {
	other := *w
	other.drive = d
	return &other
}

// reopen closes all drives and the store, and opens the store and alice's drive again.
func (w *world) reopen() {
	w.Helper()
	for d := range w.open {
		w.closeDrive(d)
	}
	w.Store = w.Reopen()
	w.drive = w.openDrive("alice")
}

func (w *world) ok(err error, what string, args ...any) {
	w.Helper()
	if err != nil {
		w.Fatalf("%s: %v", fmt.Sprintf(what, args...), err)
	}
}

// gives checks that an operation failed as it should.
func (w *world) gives(err, want error, what string, args ...any) {
	w.Helper()
	if !errors.Is(err, want) {
		w.Errorf("%s: got error %v, want %v", fmt.Sprintf(what, args...), err, want)
	}
}

// isNotThere checks the error of looking up a name where no name can be.
func (w *world) isNotThere(err error, what string, args ...any) {
	w.Helper()
	if !errors.Is(err, blobstore.ErrNotDir) {
		w.gives(err, blobstore.ErrNotExist, what, args...)
	}
}

func (w *world) newNode(mode uint32) blobstore.NewNode {
	uid, gid := w.drive.Owner()
	return blobstore.NewNode{Mode: mode, UID: uid, GID: gid}
}

func (w *world) make(parent blobstore.Ino, name string, node blobstore.NewNode) blobstore.Attr {
	w.Helper()
	a, err := w.drive.Make(w.ctx, parent, name, node)
	w.ok(err, "make %q", name)
	return a
}

func (w *world) mkdir(parent blobstore.Ino, name string) blobstore.Ino {
	w.Helper()
	return w.make(parent, name, w.newNode(unix.S_IFDIR|0o755)).Ino
}

func (w *world) symlink(parent blobstore.Ino, name, target string) blobstore.Ino {
	w.Helper()
	node := w.newNode(unix.S_IFLNK | 0o777)
	node.Target = target
	return w.make(parent, name, node).Ino
}

// mkfile makes a regular file with a content, and closes it.
func (w *world) mkfile(parent blobstore.Ino, name, content string) blobstore.Ino {
	w.Helper()
	f, ino := w.create(parent, name)
	w.write(f, 0, content)
	w.close(f)
	return ino
}

// create makes a regular file and leaves it open.
func (w *world) create(parent blobstore.Ino, name string) (blobstore.File, blobstore.Ino) {
	w.Helper()
	f, a, created, err := w.drive.Create(w.ctx, parent, name, w.newNode(unix.S_IFREG|0o644), readWrite|blobstore.OpenExclusive)
	w.ok(err, "create %q", name)
	if !created {
		w.Errorf("create %q says that the file was there before", name)
	}
	return f, a.Ino
}

func (w *world) openFile(ino blobstore.Ino) blobstore.File {
	w.Helper()
	f, err := w.drive.Open(w.ctx, ino, readWrite)
	w.ok(err, "open node %d", ino)
	return f
}

// close does what close(2) does.
func (w *world) close(f blobstore.File) {
	w.Helper()
	w.ok(f.Flush(w.ctx), "flush")
	w.ok(f.Close(), "close")
}

func (w *world) write(f blobstore.File, off int64, p string) {
	w.Helper()
	n, err := f.WriteAt(w.ctx, []byte(p), off)
	w.ok(err, "write %d bytes at %d", len(p), off)
	if n != len(p) {
		w.Fatalf("write %d bytes at %d: got %d", len(p), off, n)
	}
}

// readAt reads n bytes, fewer at the end.
func (w *world) readAt(f blobstore.File, off int64, n int) string {
	w.Helper()
	p := bytes.Repeat([]byte{0xa5}, n) // what a read leaves as it is shows
	got, err := f.ReadAt(w.ctx, p, off)
	w.ok(err, "read %d bytes at %d", n, off)
	return string(p[:got])
}

// content reads a whole file, piece by piece.
func (w *world) content(f blobstore.File) string {
	w.Helper()
	var all strings.Builder
	for {
		p := w.readAt(f, int64(all.Len()), 1<<18)
		if p == "" {
			return all.String()
		}
		all.WriteString(p)
	}
}

// cat reads the whole file of a number.
func (w *world) cat(ino blobstore.Ino) string {
	w.Helper()
	f, err := w.drive.Open(w.ctx, ino, blobstore.OpenRead)
	w.ok(err, "open node %d", ino)
	defer w.close(f)
	return w.content(f)
}

// same compares contents, which may be too long to print.
func (w *world) same(got, want, what string, args ...any) {
	w.Helper()
	if got == want {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	w.Fatalf("%s: got %d bytes, want %d; they differ from byte %d: got %.20q, want %.20q",
		fmt.Sprintf(what, args...), len(got), len(want), at, got[at:], want[at:])
}

func (w *world) attr(ino blobstore.Ino) blobstore.Attr {
	w.Helper()
	a, err := w.drive.Attr(w.ctx, ino)
	w.ok(err, "attributes of node %d", ino)
	return a
}

func (w *world) setAttr(ino blobstore.Ino, change blobstore.AttrChange) blobstore.Attr {
	w.Helper()
	a, err := w.drive.SetAttr(w.ctx, ino, change)
	w.ok(err, "set attributes of node %d", ino)
	return a
}

func (w *world) chmod(ino blobstore.Ino, mode uint32) blobstore.Attr {
	w.Helper()
	return w.setAttr(ino, blobstore.AttrChange{Set: blobstore.SetMode, Mode: mode})
}

func (w *world) truncate(ino blobstore.Ino, size int64) blobstore.Attr {
	w.Helper()
	return w.setAttr(ino, blobstore.AttrChange{Set: blobstore.SetSize, Size: size})
}

func (w *world) setMtime(ino blobstore.Ino, ns int64) {
	w.Helper()
	w.setAttr(ino, blobstore.AttrChange{Set: blobstore.SetMtime, MtimeNs: ns})
}

func (w *world) lookup(parent blobstore.Ino, name string) blobstore.Attr {
	w.Helper()
	a, err := w.drive.Lookup(w.ctx, parent, name)
	w.ok(err, "look up %q", name)
	return a
}

func (w *world) missing(parent blobstore.Ino, name string) {
	w.Helper()
	_, err := w.drive.Lookup(w.ctx, parent, name)
	w.gives(err, blobstore.ErrNotExist, "look up %q", name)
}

func (w *world) gone(ino blobstore.Ino) {
	w.Helper()
	_, err := w.drive.Attr(w.ctx, ino)
	w.gives(err, blobstore.ErrNotExist, "attributes of node %d", ino)
}

func (w *world) unlink(parent blobstore.Ino, name string) {
	w.Helper()
	w.ok(w.drive.Unlink(w.ctx, parent, name), "unlink %q", name)
}

func (w *world) rmdir(parent blobstore.Ino, name string) {
	w.Helper()
	w.ok(w.drive.Rmdir(w.ctx, parent, name), "remove folder %q", name)
}

func (w *world) link(ino, parent blobstore.Ino, name string) blobstore.Attr {
	w.Helper()
	a, err := w.drive.Link(w.ctx, ino, parent, name)
	w.ok(err, "link %q", name)
	return a
}

func (w *world) nlink(ino blobstore.Ino, want uint32) {
	w.Helper()
	if got := w.attr(ino).Nlink; got != want {
		w.Errorf("node %d: got nlink %d, want %d", ino, got, want)
	}
}

func (w *world) openDir(ino blobstore.Ino) blobstore.Dir {
	w.Helper()
	d, err := w.drive.OpenDir(w.ctx, ino)
	w.ok(err, "open folder %d", ino)
	return d
}

// list reads a folder to its end: all entries by name.
func (w *world) list(ino blobstore.Ino, attributes bool) map[string]blobstore.Entry {
	w.Helper()
	d := w.openDir(ino)
	defer func() { w.ok(d.Close(), "close folder %d", ino) }()
	entries := make(map[string]blobstore.Entry)
	err := d.Read(w.ctx, 0, attributes, func(e *blobstore.Entry) bool {
		if _, twice := entries[e.Name]; twice {
			w.Errorf("folder %d: %q is listed twice", ino, e.Name)
		}
		entries[e.Name] = *e
		return true
	})
	w.ok(err, "list folder %d", ino)
	return entries
}

// names are the sorted names in a folder, without dots.
func (w *world) names(ino blobstore.Ino) []string {
	w.Helper()
	entries := w.list(ino, false)
	delete(entries, ".")
	delete(entries, "..")
	return slices.Sorted(maps.Keys(entries))
}

func (w *world) holds(ino blobstore.Ino, want ...string) {
	w.Helper()
	slices.Sort(want)
	if got := w.names(ino); !slices.Equal(got, want) {
		w.Errorf("folder %d: got names %.200q, want %.200q", ino, got, want)
	}
}

// tree tells all that is to be known of everything in the drive, one line for each path.
func (w *world) tree() []string {
	w.Helper()
	lines := []string{"/ " + w.describe(root)}
	var walk func(path string, ino blobstore.Ino)
	walk = func(path string, ino blobstore.Ino) {
		for _, name := range w.names(ino) {
			a := w.lookup(ino, name)
			path := path + "/" + name
			lines = append(lines, path+" "+w.describe(a.Ino))
			if a.IsDir() {
				walk(path, a.Ino)
			}
		}
	}
	walk("", root)
	return lines
}

func (w *world) describe(ino blobstore.Ino) string {
	w.Helper()
	a := w.attr(ino)
	a.AtimeNs, a.Allocated = 0, 0 // change with reading, and with storing in the background
	var content string
	switch a.Type() {
	case unix.S_IFDIR:
		a.Size = 0
	case unix.S_IFREG:
		content = w.cat(ino)
	case unix.S_IFLNK:
		target, err := w.drive.Readlink(w.ctx, ino)
		w.ok(err, "read link %d", ino)
		content = target
	}
	xattrs := make(map[string]string) // fmt prints maps in order
	if a.IsDir() || a.IsRegular() {
		names, err := w.drive.ListXattr(w.ctx, ino)
		w.ok(err, "list xattrs of node %d", ino)
		for _, name := range names {
			if isFact(name) && name != blobstore.XattrJob {
				continue // comes to be known in the background, and counts what is done
			}
			value, err := w.drive.GetXattr(w.ctx, ino, name)
			w.ok(err, "get xattr %q of node %d", name, ino)
			xattrs[name] = string(value)
		}
	}
	return fmt.Sprintf("%+v %q %q", a, content, xattrs)
}

// unchanged checks that nothing in the drive is another than before f.
func (w *world) unchanged(f func()) {
	w.Helper()
	before := w.tree()
	f()
	w.sameTree(w.tree(), before)
}

func (w *world) sameTree(got, want []string) {
	w.Helper()
	for _, line := range want {
		if !slices.Contains(got, line) {
			w.Errorf("the drive had and has no more: %.300s", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			w.Errorf("the drive has and had not: %.300s", line)
		}
	}
}
