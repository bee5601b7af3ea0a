package dirstore

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
)

// Which number a file system gives to a new inode can't be chosen, so this test tells the table what it has found.
func TestANumberUsedAgainIsAnotherNode(t *testing.T) {
	root := t.TempDir()
	if err := Init(root); err != nil {
		t.Fatal(err)
	}
	store, err := Open(root, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ctx := context.Background()
	opened, err := store.Open(ctx, auth.Session{User: "alice", Role: auth.RoleUser})
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close(ctx)
	d := opened.(*Drive)
	inode := func(number uint64, birth int64, mode uint16) *unix.Statx_t {
		return &unix.Statx_t{
			Mask: unix.STATX_BASIC_STATS | unix.STATX_BTIME, Ino: number, Btime: unix.StatxTimestamp{Sec: birth},
			Mode: mode, Nlink: 1,
		}
	}
	const number, inside = 1 << 40, 1<<40 + 1
	ino, in := blobstore.Ino(number), blobstore.Ino(inside)

	d.enter(place{d.root, "folder"}, inode(number, 1, unix.S_IFDIR), nil)
	folder := d.nodes[ino]
	d.enter(place{folder, "inside"}, inode(inside, 1, unix.S_IFREG), nil)
	d.enter(place{d.root, "file"}, inode(number, 2, unix.S_IFREG), nil)
	file := d.nodes[ino]
	if file == folder || file.folder || file.lookups != 2 {
		t.Fatalf("got node %+v, want another one, with the lookups of both", file)
	}
	if _, err := d.Attr(ctx, in); err == nil {
		t.Error("what was in the folder that was is found in the file that is")
	}
	d.Forget(ino, 1)
	if d.nodes[ino] != file {
		t.Error("the node is forgotten with a lookup left")
	}
	d.Forget(ino, 1)
	d.Forget(in, 1)
	if got := len(d.nodes); got != 1 || d.root.refs != 1 {
		t.Errorf("got %d nodes and %d references to the root, want the root alone and 1", got, d.root.refs)
	}
}

// What the table takes for each node counts: the kernel may know millions.
func TestANodeTakesLittleMemory(t *testing.T) {
	if got := unsafe.Sizeof(node{}); got > 80 {
		t.Errorf("a node takes %d bytes, want 80 at most", got)
	}
}

func TestPlacesAreKeptInOrder(t *testing.T) {
	folder := new(node)
	at := func(name string) place { return place{folder, name} }
	var p places
	names := func() string {
		var all []string
		for i := range p.len() {
			all = append(all, p.at(i).name)
		}
		return strings.Join(all, " ")
	}
	for _, step := range []struct {
		do   func()
		want string
	}{
		{func() {}, ""},
		{func() { p.insert(at("a")) }, "a"},
		{func() { p.remove(0) }, ""},
		{func() { p.insert(at("a")); p.insert(at("b")); p.insert(at("c")) }, "c b a"},
		{func() { p.remove(p.index(at("b"))) }, "c a"},
		{func() { p.insert(at("d")) }, "d c a"},
		{func() { p.remove(0) }, "c a"},
		{func() { p.remove(1) }, "c"},
		{func() { p.insert(at("e")) }, "e c"},
		{func() { p.remove(0); p.remove(0) }, ""},
	} {
		if step.do(); names() != step.want {
			t.Fatalf("got %q, want %q", names(), step.want)
		}
	}
	if got := p.index(at("a")); got != -1 {
		t.Errorf("what is not there is at %d, want -1", got)
	}
}
