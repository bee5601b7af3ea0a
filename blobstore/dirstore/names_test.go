package dirstore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
)

func TestANodeIsFoundByAnyNameItHasLeft(t *testing.T) {
	for _, last := range []string{"first", "second", "third"} {
		t.Run(last, func(t *testing.T) {
			b := newBench(t)
			folder := b.mkdir(root, "folder")
			ino := b.mkfile(root, "first", "content")
			for _, name := range []string{"second", "third"} {
				_, err := b.drive.Link(b.ctx, ino, folder, name)
				b.ok(err)
			}
			parents := map[string]blobstore.Ino{"first": root, "second": folder, "third": folder}
			for name, parent := range parents {
				if name != last {
					b.ok(b.drive.Unlink(b.ctx, parent, name))
				}
			}
			a, err := b.drive.Attr(b.ctx, ino)
			b.ok(err)
			if a.Nlink != 1 {
				b.Errorf("got nlink %d, want 1", a.Nlink)
			}
			b.want(b.cat(ino), "content")
			b.ok(b.drive.Unlink(b.ctx, parents[last], last))
			_, err = b.drive.Attr(b.ctx, ino)
			b.gives(err, blobstore.ErrNotExist, "attributes without a name")
		})
	}
}

func TestANodeWhoseKnownNamesAreRemovedOutsideIsFoundAgainWhenLookedUp(t *testing.T) {
	b := newBench(t)
	ino := b.mkfile(root, "known", "content")
	b.ok(os.Link(filepath.Join(b.dir, "known"), filepath.Join(b.dir, "unknown")))
	b.ok(os.Remove(filepath.Join(b.dir, "known")))
	_, err := b.drive.Attr(b.ctx, ino)
	b.gives(err, blobstore.ErrStale, "attributes")
	if got := b.lookup(root, "unknown").Ino; got != ino {
		b.Errorf("the other name is node %d, want %d", got, ino)
	}
	b.want(b.cat(ino), "content")
}

func TestManyNamesOfANodeDoNotHideTheNewOnes(t *testing.T) {
	b := newBench(t, dirstore.Forgetful)
	ino := b.mkfile(root, "0", "content")
	for i := 1; i < 100; i++ {
		_, err := b.drive.Link(b.ctx, ino, root, fmt.Sprint(i))
		b.ok(err)
	}
	for i := range 99 {
		b.ok(b.drive.Unlink(b.ctx, root, fmt.Sprint(i)))
		b.want(b.cat(ino), "content")
	}
}

func TestAFileUnlinkedWhileOpenWorksOn(t *testing.T) {
	for what, unlink := range map[string]func(*bench) error{
		"by unlink":  func(b *bench) error { return b.drive.Unlink(b.ctx, root, "file") },
		"by rename":  func(b *bench) error { b.mkfile(root, "new", ""); return b.rename(root, "new", root, "file") },
		"by another": func(b *bench) error { return os.Remove(filepath.Join(b.dir, "file")) },
	} {
		t.Run(what, func(t *testing.T) {
			b := newBench(t)
			f, ino := b.create(root, "file", "0123456789")
			b.ok(unlink(b))
			a, err := b.drive.SetAttr(b.ctx, ino, blobstore.AttrChange{
				Set:  blobstore.SetSize | blobstore.SetMode | blobstore.SetMtime,
				Size: 4, Mode: 0o600, MtimeNs: 1_000_000_001,
			})
			b.ok(err)
			got, err := b.drive.Attr(b.ctx, ino)
			b.ok(err)
			if got != a || got.Nlink != 0 || got.Size != 4 || got.Mode != unix.S_IFREG|0o600 || got.MtimeNs != 1_000_000_001 {
				b.Errorf("got attributes %+v, then %+v, want 4 bytes, mode 100600 and the time that was set", a, got)
			}
			b.ok(b.drive.SetXattr(b.ctx, ino, "user.a", []byte("value"), blobstore.XattrSet))
			value, err := b.drive.GetXattr(b.ctx, ino, "user.a")
			b.ok(err)
			b.want(string(value), "value")
			again, err := b.drive.Open(b.ctx, ino, readWrite)
			b.ok(err)
			_, err = again.WriteAt(b.ctx, []byte("abc"), 4)
			b.ok(err)
			b.ok(f.Close())
			b.want(b.read(again), "0123abc")
			_, err = b.drive.Link(b.ctx, ino, root, "back")
			b.gives(err, blobstore.ErrNotExist, "link of a node without names")
			b.ok(again.Close())
			if _, err = b.drive.Attr(b.ctx, ino); err == nil {
				b.Errorf("the node is there after its last file was closed")
			}
		})
	}
}

func TestNodesAreFoundWhileFoldersAboveThemMove(t *testing.T) {
	b := newBench(t, dirstore.Forgetful)
	const moves = 2000
	left, right := b.mkdir(root, "left"), b.mkdir(root, "right")
	folder := b.mkdir(left, "folder")
	below := b.mkdir(folder, "below")
	file := b.mkfile(below, "file", "content")

	var movers sync.WaitGroup
	errs := make(chan error, 2*moves)
	movers.Go(func() {
		from, to := left, right
		for range moves {
			errs <- b.rename(from, "folder", to, "folder")
			from, to = to, from
		}
	})
	movers.Go(func() {
		from, to := "below", "deeper"
		for range moves {
			errs <- b.rename(folder, from, folder, to)
			from, to = to, from
		}
	})
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := b.drive.Attr(b.ctx, file); err != nil {
					b.Errorf("attributes: %v", err)
				}
				if f, err := b.drive.Open(b.ctx, file, blobstore.OpenRead); err != nil {
					b.Errorf("open: %v", err)
				} else if err := f.Close(); err != nil {
					b.Errorf("close: %v", err)
				}
				if _, err := b.drive.Lookup(b.ctx, below, "file"); err != nil {
					b.Errorf("look up: %v", err)
				}
			}
		})
	}
	movers.Wait()
	close(stop)
	readers.Wait()
	for range 2 * moves {
		b.ok(<-errs)
	}
}

func TestLookupsOfARenamedNodeNeverLoseItsName(t *testing.T) {
	b := newBench(t, dirstore.Forgetful)
	ino := b.mkfile(root, "a", "content")
	var lookers sync.WaitGroup
	stop := make(chan struct{})
	for _, name := range []string{"a", "b"} {
		lookers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = b.drive.Lookup(b.ctx, root, name)
				}
			}
		})
	}
	from, to := "a", "b"
	for range 2000 {
		b.ok(b.rename(root, from, root, to))
		from, to = to, from
		if _, err := b.drive.Attr(b.ctx, ino); err != nil {
			b.Errorf("attributes after a rename: %v", err)
		}
	}
	close(stop)
	lookers.Wait()
}
