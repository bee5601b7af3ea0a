package storetest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/memstore"
)

// Random runs random sequences of operations on a store and on the model, package memstore, and compares every answer: the
// error, the attributes (without ino, space and the times of the clock), the content and the names. What fails is made as
// short as it can be, and printed. Each sequence has a drive of its own in one store.
//
// How many sequences there are, how long they are and which, the flags of package rapid say: -rapid.checks (100),
// -rapid.steps (30 on average) and -rapid.seed, which a failure names.
func Random(t *testing.T, open func(t *testing.T) Fixture) {
	if err := flag.Set("rapid.nofailfile", "true"); err != nil { // the seed is enough, and a test leaves no files behind
		t.Fatal(err)
	}
	f := open(t)
	model := memstore.New()
	sequence := 0
	rapid.Check(t, func(t *rapid.T) {
		sequence++
		user := auth.UserID(fmt.Sprintf("random-%d", sequence))
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		r := &random{
			ctx:  ctx,
			real: openFor(ctx, t, f.Store, f.Session(user)), model: openFor(ctx, t, model, auth.Session{User: user, Role: auth.RoleUser}),
			known: []pair{{root, root}}, folders: make(map[blobstore.Ino]bool),
		}
		defer r.close(t)
		r.setAttr(t, r.known[0], blobstore.AttrChange{Set: blobstore.SetMode, Mode: 0o755}) // stores may begin with another
		t.Repeat(map[string]func(*rapid.T){
			"lookup": r.lookup, "create": r.create, "make": r.make, "link": r.link, "unlink": r.unlink, "rmdir": r.rmdir,
			"rename": r.rename, "readlink": r.readlink, "list": r.list, "attr": r.attr, "chmod": r.chmod, "truncate": r.truncate,
			"utimens": r.utimens, "open": r.open, "read": r.read, "write": r.write, "write more": r.write, "flush": r.flush,
			"release": r.release, "allocate": r.allocate, "copy": r.copy, "xattr": r.xattr,
		})
		r.compareTrees(t, "", pair{root, root})
	})
}

func openFor(ctx context.Context, t *rapid.T, store blobstore.Store, session auth.Session) blobstore.Drive {
	d, err := store.Open(ctx, session)
	if err != nil {
		t.Fatalf("open the drive of %s: %v", session.User, err)
	}
	return d
}

// A pair is one node in both stores.
type pair struct{ model, real blobstore.Ino }

// An openPair is one file, open in both.
type openPair struct {
	model, real blobstore.File
	node        pair
}

// A random is a sequence under way: a drive of the store, the model's, and what the operations can be about.
type random struct {
	ctx         context.Context
	model, real blobstore.Drive
	known       []pair                 // all nodes ever seen, also those that are gone
	folders     map[blobstore.Ino]bool // those of them that are folders, by the model's numbers
	files       []openPair
}

func (r *random) close(t *rapid.T) {
	for _, f := range r.files {
		if err := errors.Join(f.real.Close(), f.model.Close()); err != nil {
			t.Errorf("close file: %v", err)
		}
	}
	if err := errors.Join(r.real.Close(r.ctx), r.model.Close(r.ctx)); err != nil {
		t.Errorf("close drive: %v", err)
	}
}

// The following draw what an operation is about: mostly what makes sense.

func draw[T any](t *rapid.T, what string, from []T) T {
	return from[rapid.IntRange(0, len(from)-1).Draw(t, what)]
}

func drawName(t *rapid.T, what string) string { return draw(t, what, []string{"a", "b", "c", "\xff"}) }

// drawNode prefers nodes that are there and of a kind; nine of ten times, if there is one.
func (r *random) drawNode(t *rapid.T, what string, kind func(a *blobstore.Attr) bool) pair {
	fitting := slices.DeleteFunc(slices.Clone(r.known), func(p pair) bool {
		a, err := r.model.Attr(r.ctx, p.model)
		return err != nil || !kind(&a)
	})
	if len(fitting) == 0 || rapid.IntRange(0, 9).Draw(t, "any "+what) == 9 {
		fitting = r.known
	}
	return draw(t, what, fitting)
}

func (r *random) drawFolder(t *rapid.T, what string) pair {
	p := r.drawNode(t, what, (*blobstore.Attr).IsDir)
	if a, err := r.model.Attr(r.ctx, p.model); !r.folders[p.model] && (err != nil || a.Nlink == 0) {
		t.Skip(wrongTwice) // gone, and no folder
	}
	return p
}

func (r *random) drawRegular(t *rapid.T) pair {
	return r.drawNode(t, "file", (*blobstore.Attr).IsRegular)
}

func (r *random) drawOpen(t *rapid.T) openPair {
	if len(r.files) == 0 {
		t.Skip("no file is open")
	}
	return draw(t, "open file", r.files)
}

// wrongTwice is why an operation is left out: which of two things that are wrong is said is the store's to choose.
const wrongTwice = "wrong in two ways"

func (r *random) holdsNames(p pair) bool {
	a, err := r.model.Attr(r.ctx, p.model)
	return err == nil && a.IsDir() && a.Nlink > 0
}

func (r *random) has(folder pair, name string) bool {
	_, err := r.model.Lookup(r.ctx, folder.model, name)
	return err == nil
}

// drawOffset prefers offsets about a boundary.
func drawOffset(t *rapid.T, what string) int64 {
	near := draw(t, what+" near", append([]int64{0}, boundaries[:6]...))
	return max(0, near+rapid.Int64Range(-5000, 5000).Draw(t, what))
}

func drawLength(t *rapid.T) int64 {
	return rapid.Int64Range(1, draw(t, "length up to", []int64{1, 10, 5000, 300_000})).Draw(t, "length")
}

func newNode(d blobstore.Drive, mode uint32, target string) blobstore.NewNode {
	uid, gid := d.Owner()
	return blobstore.NewNode{Mode: mode, UID: uid, GID: gid, Target: target}
}

// The following are the operations.

func (r *random) lookup(t *rapid.T) {
	parent, name := r.drawFolder(t, "parent"), drawName(t, "name")
	want, wantErr := r.model.Lookup(r.ctx, parent.model, name)
	got, err := r.real.Lookup(r.ctx, parent.real, name)
	if errors.Is(wantErr, blobstore.ErrNotDir) && errors.Is(err, blobstore.ErrNotExist) {
		return // which of the two is the store's choice
	}
	r.sameNode(t, "lookup", got, want, err, wantErr)
}

func (r *random) create(t *rapid.T) {
	parent, name := r.drawFolder(t, "parent"), drawName(t, "name")
	flags := readWrite | draw(t, "flags", []blobstore.OpenFlags{0, blobstore.OpenTruncate, blobstore.OpenExclusive})
	wantFile, want, wantCreated, wantErr := r.model.Create(r.ctx, parent.model, name, newNode(r.model, 0o640, ""), flags)
	gotFile, got, created, err := r.real.Create(r.ctx, parent.real, name, newNode(r.real, 0o640, ""), flags)
	if created != wantCreated {
		t.Fatalf("create: got created %v (%v), want %v (%v)", created, err, wantCreated, wantErr)
	}
	if p, ok := r.sameNode(t, "create", got, want, err, wantErr); ok {
		r.files = append(r.files, openPair{wantFile, gotFile, p})
	}
}

func (r *random) make(t *rapid.T) {
	parent, name := r.drawFolder(t, "parent"), drawName(t, "name")
	mode := draw(t, "mode", []uint32{
		unix.S_IFDIR | 0o755, unix.S_IFDIR | 0o2775, unix.S_IFREG | 0o600, unix.S_IFLNK | 0o777, unix.S_IFIFO | 0o644,
	})
	target := ""
	if mode&unix.S_IFMT == unix.S_IFLNK {
		target = draw(t, "target", []string{"a", "../b", "/\xff"})
	}
	want, wantErr := r.model.Make(r.ctx, parent.model, name, newNode(r.model, mode, target))
	got, err := r.real.Make(r.ctx, parent.real, name, newNode(r.real, mode, target))
	r.sameNode(t, "make", got, want, err, wantErr)
}

func (r *random) link(t *rapid.T) {
	node := r.drawNode(t, "node", func(a *blobstore.Attr) bool { return !a.IsDir() })
	parent, name := r.drawFolder(t, "parent"), drawName(t, "name")
	a, err := r.model.Attr(r.ctx, node.model)
	if bad := err != nil || a.IsDir() || a.Nlink == 0; bad && (!r.holdsNames(parent) || r.has(parent, name)) {
		t.Skip(wrongTwice)
	}
	want, wantErr := r.model.Link(r.ctx, node.model, parent.model, name)
	got, err := r.real.Link(r.ctx, node.real, parent.real, name)
	r.sameNode(t, "link", got, want, err, wantErr)
}

func (r *random) unlink(t *rapid.T) {
	parent, name := r.drawFolder(t, "parent"), drawName(t, "name")
	wantErr := r.model.Unlink(r.ctx, parent.model, name)
	r.sameError(t, "unlink", r.real.Unlink(r.ctx, parent.real, name), wantErr)
}

func (r *random) rmdir(t *rapid.T) {
	parent, name := r.drawFolder(t, "parent"), drawName(t, "name")
	wantErr := r.model.Rmdir(r.ctx, parent.model, name)
	r.sameError(t, "rmdir", r.real.Rmdir(r.ctx, parent.real, name), wantErr)
}

func (r *random) rename(t *rapid.T) {
	from, to := r.drawFolder(t, "from"), r.drawFolder(t, "to")
	op := blobstore.Rename{
		Name: drawName(t, "name"), NewName: drawName(t, "new name"),
		Mode: draw(t, "mode", []blobstore.RenameMode{blobstore.RenameReplace, blobstore.RenameNoReplace, blobstore.RenameExchange}),
	}
	op.Parent, op.NewParent = from.model, to.model
	if r.wrongTwice(op) {
		t.Skip(wrongTwice)
	}
	wantErr := r.model.Rename(r.ctx, op)
	op.Parent, op.NewParent = from.real, to.real
	r.sameError(t, "rename", r.real.Rename(r.ctx, op), wantErr)
}

// wrongTwice looks at the numbers of the model.
func (r *random) wrongTwice(op blobstore.Rename) bool {
	moved, err := r.model.Lookup(r.ctx, op.Parent, op.Name)
	if err != nil {
		return !r.holdsNames(pair{model: op.NewParent})
	}
	target, err := r.model.Lookup(r.ctx, op.NewParent, op.NewName)
	if err != nil || op.Mode == blobstore.RenameExchange {
		return false
	}
	return r.inside(op.NewParent, moved.Ino) || r.inside(op.Parent, target.Ino) && (!moved.IsDir() || op.Mode == blobstore.RenameNoReplace)
}

// inside says whether a folder of the model is another node or somewhere beneath it.
func (r *random) inside(folder, node blobstore.Ino) bool {
	for ; folder != node; folder = r.parent(folder) {
		if folder == root {
			return false
		}
	}
	return true
}

func (r *random) parent(folder blobstore.Ino) blobstore.Ino {
	entries, err := listing(r.ctx, r.model, folder, false)
	if err != nil {
		return root
	}
	return entries[".."].Attr.Ino
}

func (r *random) readlink(t *rapid.T) {
	node := r.drawNode(t, "link", func(a *blobstore.Attr) bool { return a.Type() == unix.S_IFLNK })
	want, wantErr := r.model.Readlink(r.ctx, node.model)
	got, err := r.real.Readlink(r.ctx, node.real)
	if r.sameError(t, "readlink", err, wantErr) && got != want {
		t.Fatalf("readlink: got %q, want %q", got, want)
	}
}

func (r *random) list(t *rapid.T) {
	node, attributes := r.drawFolder(t, "folder"), rapid.Bool().Draw(t, "attributes")
	want, wantErr := listing(r.ctx, r.model, node.model, attributes)
	got, err := listing(r.ctx, r.real, node.real, attributes)
	if !r.sameError(t, "list", err, wantErr) {
		return
	}
	gotNames, wantNames := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))
	if !slices.Equal(gotNames, wantNames) {
		t.Fatalf("list: got %q, want %q", gotNames, wantNames)
	}
	for name, e := range want {
		if g := got[name]; g.Complete && e.Complete {
			r.sameAttr(t, "entry "+name, g.Attr, e.Attr)
		} else if g.Attr.Type() != e.Attr.Type() {
			t.Fatalf("entry %q: got type %o, want %o", name, g.Attr.Type(), e.Attr.Type())
		}
	}
}

func listing(ctx context.Context, d blobstore.Drive, ino blobstore.Ino, attributes bool) (map[string]blobstore.Entry, error) {
	l, err := d.OpenDir(ctx, ino)
	if err != nil {
		return nil, err
	}
	entries := make(map[string]blobstore.Entry)
	err = l.Read(ctx, 0, attributes, func(e *blobstore.Entry) bool {
		entries[e.Name] = *e
		return true
	})
	return entries, errors.Join(err, l.Close())
}

func (r *random) attr(t *rapid.T) {
	node := draw(t, "node", r.known)
	want, wantErr := r.model.Attr(r.ctx, node.model)
	got, err := r.real.Attr(r.ctx, node.real)
	r.sameNode(t, "attr", got, want, err, wantErr)
}

func (r *random) setAttr(t *rapid.T, node pair, change blobstore.AttrChange) {
	want, wantErr := r.model.SetAttr(r.ctx, node.model, change)
	got, err := r.real.SetAttr(r.ctx, node.real, change)
	r.sameNode(t, "set attributes", got, want, err, wantErr)
}

func (r *random) chmod(t *rapid.T) {
	node := draw(t, "node", r.known)
	if a, err := r.model.Attr(r.ctx, node.model); err == nil && a.Type() == unix.S_IFLNK {
		t.Skip("a symbolic link has no mode of its own")
	}
	set := blobstore.SetMode | draw(t, "with", []blobstore.AttrSet{0, blobstore.SetKillPriv})
	r.setAttr(t, node, blobstore.AttrChange{Set: set, Mode: draw(t, "mode", []uint32{0o700, 0o755, 0o2775, 0o1777, 0o6711})})
}

func (r *random) truncate(t *rapid.T) {
	change := blobstore.AttrChange{Set: blobstore.SetSize, Size: drawOffset(t, "size")}
	if rapid.IntRange(0, 4).Draw(t, "with a time") == 0 {
		change.Set |= blobstore.SetMtime
		change.MtimeNs = longAgo
	}
	r.setAttr(t, r.drawRegular(t), change)
}

func (r *random) utimens(t *rapid.T) {
	r.setAttr(t, draw(t, "node", r.known), blobstore.AttrChange{
		Set: blobstore.SetMtime, MtimeNs: longAgo + rapid.Int64Range(0, 9).Draw(t, "ns"),
	})
}

func (r *random) open(t *rapid.T) {
	node := r.drawRegular(t)
	flags := readWrite | draw(t, "flags", []blobstore.OpenFlags{0, blobstore.OpenAppend, blobstore.OpenTruncate})
	wantFile, wantErr := r.model.Open(r.ctx, node.model, flags)
	gotFile, err := r.real.Open(r.ctx, node.real, flags)
	if r.sameError(t, "open", err, wantErr) {
		r.files = append(r.files, openPair{wantFile, gotFile, node})
	}
}

func (r *random) read(t *rapid.T) {
	f, off, n := r.drawOpen(t), drawOffset(t, "offset"), drawLength(t)
	r.sameContent(t, f, off, n)
}

func (r *random) write(t *rapid.T) {
	f, off, n := r.drawOpen(t), drawOffset(t, "offset"), drawLength(t)
	p := []byte(pattern(rapid.IntRange(0, 250).Draw(t, "seed"), int(n)))
	want, wantErr := f.model.WriteAt(r.ctx, p, off)
	got, err := f.real.WriteAt(r.ctx, p, off)
	if r.sameError(t, "write", err, wantErr) && got != want {
		t.Fatalf("write: got %d, want %d", got, want)
	}
}

func (r *random) flush(t *rapid.T) {
	f := r.drawOpen(t)
	if rapid.Bool().Draw(t, "sync") {
		r.sameError(t, "sync", f.real.Sync(r.ctx), f.model.Sync(r.ctx))
	} else {
		r.sameError(t, "flush", f.real.Flush(r.ctx), f.model.Flush(r.ctx))
	}
}

// release flushes what has no name, or a store might keep it until it has stored it in the background.
func (r *random) release(t *rapid.T) {
	f := r.drawOpen(t)
	a, err := r.model.Attr(r.ctx, f.node.model)
	if rapid.Bool().Draw(t, "flush first") || err != nil || a.Nlink == 0 {
		r.sameError(t, "flush", f.real.Flush(r.ctx), f.model.Flush(r.ctx))
	}
	r.sameError(t, "close", f.real.Close(), f.model.Close())
	r.files = slices.DeleteFunc(r.files, func(other openPair) bool { return other == f })
}

// allocate ends with a time for the file, for filesystems do not agree which modes set one.
func (r *random) allocate(t *rapid.T) {
	f, off, n := r.drawOpen(t), drawOffset(t, "offset"), drawLength(t)
	mode := draw(t, "mode", allocateModes)
	wantErr := f.model.Allocate(r.ctx, mode, off, n)
	r.sameError(t, "allocate", f.real.Allocate(r.ctx, mode, off, n), wantErr)
	r.setAttr(t, f.node, blobstore.AttrChange{Set: blobstore.SetMtime, MtimeNs: longAgo})
}

// copy goes on until the store has copied as much as the model.
func (r *random) copy(t *rapid.T) {
	src, dst := r.drawOpen(t), r.drawOpen(t)
	srcOff, dstOff, n := drawOffset(t, "from"), drawOffset(t, "to"), drawLength(t)
	if a, err := r.model.Attr(r.ctx, src.node.model); err == nil && src.node == dst.node && srcOff+n > a.Size {
		t.Skip("whether ranges of one file overlap past its end is the store's to say")
	}
	got, err := r.real.CopyRange(r.ctx, src.real, srcOff, dst.real, dstOff, n)
	if errors.Is(err, blobstore.ErrNotSupported) {
		t.Skip("the store does not copy")
	}
	want, wantErr := r.model.CopyRange(r.ctx, src.model, srcOff, dst.model, dstOff, n)
	if !r.sameError(t, "copy", err, wantErr) {
		return
	}
	for more := got; got < want && more > 0; got += more {
		if more, err = r.real.CopyRange(r.ctx, src.real, srcOff+got, dst.real, dstOff+got, n-got); err != nil {
			t.Fatalf("copy: after %d bytes: %v", got, err)
		}
	}
	if got != want {
		t.Fatalf("copy: got %d bytes, want %d", got, want)
	}
}

func (r *random) xattr(t *rapid.T) {
	node := r.drawNode(t, "node", func(a *blobstore.Attr) bool { return a.IsDir() || a.IsRegular() })
	if a, err := r.model.Attr(r.ctx, node.model); err == nil && !a.IsDir() && !a.IsRegular() {
		t.Skip("links and special files have no xattrs of users, xattr(7)")
	}
	name := draw(t, "name", []string{"user.a", "user.b"})
	switch draw(t, "what", []string{"get", "set", "remove"}) {
	case "get":
		want, wantErr := r.model.GetXattr(r.ctx, node.model, name)
		got, err := r.real.GetXattr(r.ctx, node.real, name)
		if r.sameError(t, "get xattr", err, wantErr) && string(got) != string(want) {
			t.Fatalf("get xattr: got %q, want %q", got, want)
		}
	case "set":
		mode := draw(t, "mode", []blobstore.XattrMode{blobstore.XattrSet, blobstore.XattrCreate, blobstore.XattrReplace})
		value := []byte(draw(t, "value", []string{"", "1", "\x00\xff"}))
		wantErr := r.model.SetXattr(r.ctx, node.model, name, value, mode)
		r.sameError(t, "set xattr", r.real.SetXattr(r.ctx, node.real, name, value, mode), wantErr)
	case "remove":
		wantErr := r.model.RemoveXattr(r.ctx, node.model, name)
		r.sameError(t, "remove xattr", r.real.RemoveXattr(r.ctx, node.real, name), wantErr)
	}
}

// The following compare.

var sentinels = []error{
	blobstore.ErrNotExist, blobstore.ErrExist, blobstore.ErrNotDir, blobstore.ErrIsDir, blobstore.ErrNotEmpty, blobstore.ErrInvalid,
	blobstore.ErrLoop, blobstore.ErrNameTooLong, blobstore.ErrTooLarge, blobstore.ErrTooBig, blobstore.ErrTooManyLinks,
	blobstore.ErrNoXattr, blobstore.ErrNoData, blobstore.ErrPermission, blobstore.ErrCrossDevice,
}

// sameError says whether both did as asked. An error of the store has to be what the model's is, and not more than one.
func (r *random) sameError(t *rapid.T, op string, err, want error) bool {
	t.Helper()
	if (err == nil) != (want == nil) {
		t.Fatalf("%s: got error %v, want %v", op, err, want)
	}
	for _, sentinel := range sentinels {
		if errors.Is(err, sentinel) != errors.Is(want, sentinel) {
			t.Fatalf("%s: got error %v, want %v", op, err, want)
		}
	}
	return err == nil
}

// sameNode compares the attributes of a node and keeps its numbers.
func (r *random) sameNode(t *rapid.T, op string, got, want blobstore.Attr, err, wantErr error) (pair, bool) {
	t.Helper()
	if !r.sameError(t, op, err, wantErr) {
		return pair{}, false
	}
	r.sameAttr(t, op, got, want)
	return pair{want.Ino, got.Ino}, true
}

func (r *random) sameAttr(t *rapid.T, op string, got, want blobstore.Attr) {
	t.Helper()
	r.meet(t, op, pair{want.Ino, got.Ino})
	r.folders[want.Ino] = want.IsDir()
	for _, d := range []struct {
		a     *blobstore.Attr
		drive blobstore.Drive
	}{{&got, r.real}, {&want, r.model}} {
		uid, gid := d.drive.Owner()
		d.a.UID, d.a.GID = d.a.UID-uid, d.a.GID-gid
		d.a.Ino, d.a.Generation, d.a.Allocated, d.a.AtimeNs, d.a.CtimeNs = 0, 0, 0, 0, 0
		if d.a.IsDir() {
			d.a.Size = 0
		}
		if d.a.MtimeNs > longAgo+int64(time.Hour) {
			d.a.MtimeNs = 0 // of the clock; one that was set must be the same in both
		}
	}
	if got != want {
		t.Fatalf("%s: got %+v, want %+v", op, got, want)
	}
}

// meet keeps which number of the store belongs to which of the model, and fails if one stands for two nodes.
func (r *random) meet(t *rapid.T, op string, p pair) {
	t.Helper()
	for i, other := range r.known {
		if other == p {
			return
		}
		if other.model == p.model {
			t.Fatalf("%s: got node %d, want %d", op, p.real, other.real)
		}
		if other.real == p.real {
			if _, err := r.model.Attr(r.ctx, other.model); err == nil {
				t.Fatalf("%s: got node %d, which is another", op, p.real)
			}
			r.known[i] = p // the number of a node that is gone may come again, with another generation
			return
		}
	}
	r.known = append(r.known, p)
}

func (r *random) sameContent(t *rapid.T, f openPair, off, n int64) {
	t.Helper()
	got, want := make([]byte, n), make([]byte, n)
	gotN, err := f.real.ReadAt(r.ctx, got, off)
	wantN, wantErr := f.model.ReadAt(r.ctx, want, off)
	if !r.sameError(t, "read", err, wantErr) {
		return
	}
	if gotN != wantN {
		t.Fatalf("read %d at %d: got %d bytes, want %d", n, off, gotN, wantN)
	}
	for i := range gotN {
		if got[i] != want[i] {
			t.Fatalf("read %d at %d: byte %d is %#x, want %#x", n, off, i, got[i], want[i])
		}
	}
}

// compareTrees walks both drives as somebody does who opens them anew.
func (r *random) compareTrees(t *rapid.T, path string, folder pair) {
	t.Helper()
	want, wantErr := listing(r.ctx, r.model, folder.model, false)
	got, err := listing(r.ctx, r.real, folder.real, false)
	if err := errors.Join(err, wantErr); err != nil {
		t.Fatalf("list %q: %v", path, err)
	}
	gotNames, wantNames := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))
	if !slices.Equal(gotNames, wantNames) {
		t.Fatalf("list %q: got %q, want %q", path, gotNames, wantNames)
	}
	for _, name := range wantNames {
		if name == "." || name == ".." {
			continue
		}
		path := strings.TrimPrefix(path+"/"+name, "/")
		wantAttr, wantErr := r.model.Lookup(r.ctx, folder.model, name)
		gotAttr, err := r.real.Lookup(r.ctx, folder.real, name)
		p, ok := r.sameNode(t, "lookup "+path, gotAttr, wantAttr, err, wantErr)
		switch {
		case !ok:
			t.Fatalf("lookup %q: %v", path, err)
		case wantAttr.IsDir():
			r.compareTrees(t, path, p)
		case wantAttr.IsRegular():
			r.compareFiles(t, path, p, wantAttr.Size)
		}
	}
}

func (r *random) compareFiles(t *rapid.T, path string, p pair, size int64) {
	t.Helper()
	model, wantErr := r.model.Open(r.ctx, p.model, blobstore.OpenRead)
	opened, err := r.real.Open(r.ctx, p.real, blobstore.OpenRead)
	if err := errors.Join(err, wantErr); err != nil {
		t.Fatalf("open %q: %v", path, err)
	}
	r.sameContent(t, openPair{model, opened, p}, 0, size+1)
	if err := errors.Join(opened.Close(), model.Close()); err != nil {
		t.Fatalf("close %q: %v", path, err)
	}
}
