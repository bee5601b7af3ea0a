package dirstore_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
)

func TestDescriptorsAndMemoryDoNotGrowWithTheNodesKnown(t *testing.T) {
	const limit, folders, files = 50, 2000, 9 // 20,000 nodes
	const beside = 8                          // the audit log and the index, from their first use on
	b := newBench(t, func(s *dirstore.Store) { dirstore.FolderLimit(s, limit) })
	start := descriptors(t)
	for i := range folders {
		folder := b.mkdir(root, fmt.Sprintf("folder %d", i))
		for j := range files {
			_, err := b.drive.Make(b.ctx, folder, fmt.Sprintf("file %d", j), b.newNode(unix.S_IFREG|0o644))
			b.ok(err)
		}
		if got := descriptors(t); i%100 == 0 && got > start+limit+beside {
			b.Fatalf("got %d descriptors after %d folders, want %d at most", got, i, start+limit+beside)
		}
	}
	// Everything is known now, and twice over after a listing with attributes.
	lookups := map[blobstore.Ino]uint64{}
	var walk func(ino blobstore.Ino)
	walk = func(ino blobstore.Ino) {
		var below []blobstore.Ino
		d, err := b.drive.OpenDir(b.ctx, ino)
		b.ok(err)
		b.ok(d.Read(b.ctx, 0, true, func(e *blobstore.Entry) bool {
			if e.Complete {
				lookups[e.Attr.Ino] += 2
				if e.Attr.IsDir() {
					below = append(below, e.Attr.Ino)
				}
			}
			return true
		}))
		b.ok(d.Close())
		for _, ino := range below {
			walk(ino)
		}
	}
	walk(root)
	if got, want := len(lookups), folders*(files+1); got != want {
		b.Fatalf("walked %d nodes, want %d", got, want)
	}
	for ino := range lookups {
		_, err := b.drive.Attr(b.ctx, ino)
		b.ok(err)
	}
	if got := descriptors(t); got > start+limit+beside {
		b.Errorf("got %d descriptors with 20,000 nodes known, want %d at most", got, start+limit+beside)
	}
	if got, want := dirstore.Known(b.drive), len(lookups)+1; got != want {
		b.Errorf("got %d nodes known, want %d", got, want)
	}
	for ino, n := range lookups {
		b.drive.Forget(ino, n-1)
	}
	if got, want := dirstore.Known(b.drive), len(lookups)+1; got != want {
		b.Errorf("got %d nodes known while each has a lookup left, want %d", got, want)
	}
	for ino := range lookups {
		b.drive.Forget(ino, 1)
	}
	if got := dirstore.Known(b.drive); got != 1 {
		b.Errorf("got %d nodes known after all are forgotten, want the root alone", got)
	}
	if got := descriptors(t); got > start+beside {
		b.Errorf("got %d descriptors after all is forgotten, want %d at most", got, start+beside)
	}
}

func TestClosingADriveAndItsStoreLeavesNoDescriptor(t *testing.T) {
	media := t.TempDir()
	if err := dirstore.Init(media); err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	t.Run("use", func(t *testing.T) {
		b := openBench(t, media)
		b.create(b.mkdir(b.mkdir(root, "a"), "b"), "left open", "content")
		if descriptors(t) <= before {
			t.Error("got no descriptor while a drive is open: this test measures nothing")
		}
	})
	if got := descriptors(t); got != before {
		t.Errorf("got %d descriptors, want %d", got, before)
	}
}

func TestAForgottenFolderIsRememberedForTheSakeOfWhatIsInIt(t *testing.T) {
	b := newBench(t, dirstore.Forgetful)
	folder := b.mkdir(root, "folder")
	file := b.mkfile(folder, "file", "content")
	b.drive.Forget(folder, 1)
	b.want(b.cat(file), "content")
	b.ok(b.rename(root, "folder", root, "moved"))
	b.want(b.cat(file), "content")
	b.drive.Forget(file, 1)
	if got := dirstore.Known(b.drive); got != 1 {
		b.Errorf("got %d nodes known, want the root alone", got)
	}
}

func TestAnOpenFileIsRememberedUntilItIsClosed(t *testing.T) {
	b := newBench(t)
	f, ino := b.create(root, "file", "content")
	b.drive.Forget(ino, 1)
	if _, err := b.drive.Attr(b.ctx, ino); err != nil {
		b.Errorf("attributes of an open file: got error %v", err)
	}
	b.ok(f.Close())
	_, err := b.drive.Attr(b.ctx, ino)
	b.gives(err, blobstore.ErrNotExist, "attributes after the file was closed")
}
