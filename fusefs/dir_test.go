package fusefs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// counting is a drive that counts the lookups it has given and not got back, by node.
type counting struct {
	*wrapped
	mu       sync.Mutex
	lookups  map[blobstore.Ino]int64
	balanced chan struct{} // told each time when nothing is out any more
	wrong    error
}

func newCounting(drive blobstore.Drive) *counting {
	return &counting{wrapped: &wrapped{Drive: drive}, lookups: make(map[blobstore.Ino]int64), balanced: make(chan struct{}, 1)}
}

func (c *counting) give(ino blobstore.Ino, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lookups[ino] += n
	switch {
	case c.lookups[ino] < 0:
		c.wrong = fmt.Errorf("node %d: more lookups are taken back than were given", ino)
	case c.lookups[ino] == 0:
		delete(c.lookups, ino)
	}
	if len(c.lookups) == 0 {
		select {
		case c.balanced <- struct{}{}:
		default:
		}
	}
}

func (c *counting) out() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.lookups)
}

func (c *counting) Forget(ino blobstore.Ino, n uint64) {
	c.Drive.Forget(ino, n)
	c.give(ino, -int64(n))
}

func (c *counting) Lookup(ctx context.Context, parent blobstore.Ino, name string) (blobstore.Attr, error) {
	attr, err := c.wrapped.Lookup(ctx, parent, name)
	if err == nil {
		c.give(attr.Ino, 1)
	}
	return attr, err
}

func (c *counting) Create(
	ctx context.Context, parent blobstore.Ino, name string, node blobstore.NewNode, flags blobstore.OpenFlags,
) (blobstore.File, blobstore.Attr, bool, error) {
	file, attr, created, err := c.wrapped.Create(ctx, parent, name, node, flags)
	if err == nil {
		c.give(attr.Ino, 1)
	}
	return file, attr, created, err
}

func (c *counting) Make(ctx context.Context, parent blobstore.Ino, name string, node blobstore.NewNode) (blobstore.Attr, error) {
	attr, err := c.Drive.Make(ctx, parent, name, node)
	if err == nil {
		c.give(attr.Ino, 1)
	}
	return attr, err
}

func (c *counting) Link(ctx context.Context, ino, parent blobstore.Ino, name string) (blobstore.Attr, error) {
	attr, err := c.Drive.Link(ctx, ino, parent, name)
	if err == nil {
		c.give(attr.Ino, 1)
	}
	return attr, err
}

func (c *counting) OpenDir(ctx context.Context, ino blobstore.Ino) (blobstore.Dir, error) {
	dir, err := c.Drive.OpenDir(ctx, ino)
	return &countingDir{Dir: dir, drive: c}, err
}

type countingDir struct {
	blobstore.Dir
	drive *counting
}

func (d *countingDir) Read(ctx context.Context, after uint64, attributes bool, take func(*blobstore.Entry) bool) error {
	return d.Dir.Read(ctx, after, attributes, func(e *blobstore.Entry) bool {
		taken := take(e)
		if taken && e.Complete {
			d.drive.give(e.Attr.Ino, 1)
		}
		return taken
	})
}

func TestEveryLookupIsTakenBack(t *testing.T) {
	needRoot(t)
	drive := newCounting(newDrive(t))
	_, dir := mount(t, drive, Options{})
	for i := range 500 {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("file %d", i)), []byte("x"), 0o644))
	}
	sub := filepath.Join(dir, "sub")
	must(t, os.Mkdir(sub, 0o755))
	must(t, os.Link(filepath.Join(dir, "file 1"), filepath.Join(sub, "again")))
	must(t, os.Symlink("nowhere", filepath.Join(sub, "link")))
	must(t, os.Remove(filepath.Join(dir, "file 2")))
	must(t, os.Rename(filepath.Join(dir, "file 3"), filepath.Join(dir, "file 4")))
	for range 3 {
		entries, err := os.ReadDir(dir)
		must(t, err)
		for _, e := range entries {
			_, err := e.Info()
			must(t, err)
		}
		if drive.out() < 490 {
			t.Errorf("the kernel knows %d nodes, want nearly 500", drive.out())
		}
		// Mounting again as it is has the kernel drop what it knows of this mount alone.
		drained(drive.balanced)
		must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, ""))
		soon(t, fmt.Sprintf("the last of %d nodes", drive.out()), drive.balanced)
	}
	if drive.wrong != nil {
		t.Error(drive.wrong)
	}
}

// drained takes what is in a channel.
func drained(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}

func TestListingIsWhole(t *testing.T) {
	drive := newDrive(t)
	var want []string
	for i := range 3000 {
		name := fmt.Sprintf("%03d-\xff\n", i)
		if i%7 == 0 {
			name += "a much longer name, so that entries end at different places of the kernel's buffers"
		}
		_, err := drive.Make(t.Context(), blobstore.RootIno, name, blobstore.NewNode{Mode: unix.S_IFREG | uint32(i%0o1000)})
		must(t, err)
		want = append(want, name)
	}
	_, dir := mount(t, drive, Options{})
	for range 2 {
		entries, err := os.ReadDir(dir)
		must(t, err)
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("got %d entries, want %d, each once", len(got), len(want))
		}
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		info, err := e.Info()
		must(t, err)
		if attr := attrOf(t, drive, e.Name()); info.Mode().Perm() != os.FileMode(attr.Mode&0o777) {
			t.Fatalf("%q: got mode %o, want %o", e.Name(), info.Mode().Perm(), attr.Mode&0o777)
		}
	}
}

func TestListingWithAttributesNeedsNoLookups(t *testing.T) {
	drive := &wrapped{Drive: newDrive(t)}
	for i := range 100 {
		_, err := drive.Make(t.Context(), blobstore.RootIno, fmt.Sprint(i), blobstore.NewNode{Mode: unix.S_IFREG})
		must(t, err)
	}
	_, dir := mount(t, drive, Options{})
	drive.lookup = func(_ context.Context, _ blobstore.Ino, name string) (blobstore.Attr, error) {
		t.Errorf("%q is looked up", name)
		return blobstore.Attr{}, blobstore.ErrNotExist
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		_, err := e.Info()
		must(t, err)
	}
}

// halfDir lists entries of which every second one lacks attributes, and fails after some.
type halfDir struct {
	blobstore.Dir
	failAfter int
}

func (d *halfDir) Read(ctx context.Context, after uint64, attributes bool, take func(*blobstore.Entry) bool) error {
	n := 0
	err := d.Dir.Read(ctx, after, attributes, func(e *blobstore.Entry) bool {
		if n == d.failAfter {
			n++
			return false
		}
		n++
		if n%2 == 0 {
			e.Complete = false
		}
		return take(e)
	})
	if n > d.failAfter {
		return blobstore.ErrUnavailable
	}
	return err
}

func TestEntriesWithoutAttributesAreNotLookups(t *testing.T) {
	ctx := context.Background()
	drive := newDrive(t)
	for i := range 10 {
		_, err := drive.Make(ctx, blobstore.RootIno, fmt.Sprint(i), blobstore.NewNode{Mode: unix.S_IFREG})
		must(t, err)
	}
	dir, err := drive.OpenDir(ctx, blobstore.RootIno)
	must(t, err)
	fs := newFilesystem(drive, Options{Timeout: patience, Logger: discard})
	half := &halfDir{Dir: dir, failAfter: 6}
	in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: 1}, Fh: fs.handles.addDir(fs.root, 1, half)}

	buffer := make([]byte, 4096)
	list := fuse.NewDirEntryList(buffer, 0)
	if status := fs.ReadDirPlus(nil, in, list); status != fuse.OK {
		t.Fatalf("listing that fails in the middle: got %v, want what there was before", status)
	}
	entries, attrs, err := fuse.ParseDirLookupEntries(list.Bytes())
	must(t, err)
	if len(entries) != half.failAfter {
		t.Errorf("got %d entries, want the %d before the failure", len(entries), half.failAfter)
	}
	for i, e := range entries {
		complete := e.Name != "." && e.Name != ".." && i%2 == 0
		if got := attrs[i].NodeId != 0; got != complete {
			t.Errorf("entry %q has a node: %v, want %v", e.Name, got, complete)
		}
		if complete && attrs[i].NodeId != e.Ino {
			t.Errorf("entry %q is node %d with attributes of %d", e.Name, e.Ino, attrs[i].NodeId)
		}
	}
	half.failAfter = 0
	in.Offset = entries[len(entries)-1].Off
	if status := fs.ReadDirPlus(nil, in, fuse.NewDirEntryList(buffer, in.Offset)); status != fuse.EIO {
		t.Errorf("going on: got %v, want the failure", status)
	}
	half.failAfter = 100
	if status := fs.ReadDir(nil, in, fuse.NewDirEntryList(buffer[:8], in.Offset)); status != fuse.EINVAL {
		t.Errorf("no room for one entry: got %v, want EINVAL", status)
	}
}
