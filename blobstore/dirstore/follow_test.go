package dirstore_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
)

// trusting has the catalogue believe at once what it has seen, and for good.
func trusting(s *dirstore.Store) { dirstore.SetTerms(s, 0, 0, time.Hour, 0) }

func TestASettledCatalogueFollowsTheFolders(t *testing.T) {
	// Longer than a tick of the clock that times are taken from: what was changed in that is read again.
	b := newBench(t, func(s *dirstore.Store) { dirstore.SetTerms(s, 50*time.Millisecond, 0, time.Hour, 0) })
	for _, name := range []string{"a/one", "a/b/two", "c/one", "top"} {
		b.put(name, "content")
	}
	at := func(name string) string { return filepath.Join(b.dir, name) }
	b.finds(blobstore.AssetQuery{}, "a/b/two", "a/one", "c/one", "top")
	b.put("a/b/new", "")
	b.finds(blobstore.AssetQuery{}, "a/b/new", "a/b/two", "a/one", "c/one", "top")
	b.ok(os.Remove(at("a/b/new")))
	b.ok(os.Rename(at("top"), at("renamed")))
	b.finds(blobstore.AssetQuery{}, "a/b/two", "a/one", "c/one", "renamed")

	// Its own times stay, those of the folders that it leaves and comes to do not.
	b.ok(os.Rename(at("a/b"), at("c/b")))
	b.finds(blobstore.AssetQuery{}, "a/one", "c/b/two", "c/one", "renamed")

	// Two folders change places.
	b.ok(os.Rename(at("a"), at("aside")))
	b.ok(os.Rename(at("c"), at("a")))
	b.ok(os.Rename(at("aside"), at("c")))
	b.finds(blobstore.AssetQuery{}, "a/b/two", "a/one", "c/one", "renamed")

	// A file of the same name that takes the number of the one before, as file systems give it.
	b.ok(os.Remove(at("renamed")))
	b.put("renamed", "GIF89a\x02\x00\x03\x00\x00\x00\x00;")
	b.finds(blobstore.AssetQuery{Types: []string{"image/gif"}}, "renamed")

	// A link to a folder is none, also in the place of one.
	b.ok(os.Rename(at("a"), filepath.Join(b.root, "elsewhere")))
	b.ok(os.Symlink(filepath.Join(b.root, "elsewhere"), at("a")))
	b.finds(blobstore.AssetQuery{}, "c/one", "renamed")
}

func TestAChangeInPlaceIsFoundWhenItsFolderHasItsTurn(t *testing.T) {
	b := newBench(t, trusting)
	b.put("a/file", "some text")
	gif := blobstore.AssetQuery{Types: []string{"image/gif"}}
	b.finds(gif)
	b.put("a/file", "GIF89a\x02\x00\x03\x00\x00\x00\x00;")
	b.finds(gif)
	dirstore.SetTerms(b.store, 0, 0, time.Hour, 1)
	b.finds(gif, "a/file")

	// What is shown is looked at in any case.
	trusting(b.store)
	b.put("a/file", "some more text than before")
	b.finds(gif)
	if a := b.find(b.store, blobstore.AssetQuery{})["a/file"]; a.Type != "text/plain" || a.Size != 26 || !a.Described {
		t.Errorf("got %+v", a)
	}
}

func TestAFileThatWasChangedNotLongAgoIsLookedAtAgain(t *testing.T) {
	b := newBench(t, func(s *dirstore.Store) { dirstore.SetTerms(s, 0, time.Hour, time.Hour, 0) })
	b.put("a/file", "some text")
	big := blobstore.AssetQuery{MinSize: 20}
	b.finds(big)
	b.put("a/file", "much more text than there was")
	for deadline := time.Now().Add(10 * time.Second); len(b.find(b.store, big)) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not found")
		}
	}
}

func TestWhatADriveChangesInPlaceIsFoundAlsoAfterItWasKilled(t *testing.T) {
	b := newBench(t, trusting)
	b.put("file", "some text")
	b.finds(blobstore.AssetQuery{}, "file")
	f, err := b.drive.Open(b.ctx, b.lookup(root, "file").Ino, readWrite)
	b.ok(err)
	defer f.Close()
	big := blobstore.AssetQuery{MinSize: 20}
	b.finds(big) // it is looked at, and open still
	_, err = f.WriteAt(b.ctx, []byte("much more text than there was"), 0)
	b.ok(err)
	other := openStore(t, b.root) // which is told nothing by the one that has it open
	defer closeStore(t, other)
	trusting(other)
	if found := b.find(other, big); len(found) != 1 {
		t.Errorf("got %v", found)
	}
	ino := b.lookup(root, "file").Ino
	b.ok(b.drive.SetXattr(b.ctx, ino, blobstore.XattrJob, []byte("job"), blobstore.XattrSet))
	if found := b.find(other, blobstore.AssetQuery{Job: "job"}); len(found) != 1 {
		t.Errorf("of the job: got %v", found)
	}
}
