package dirstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// An other program, with a catalogue of its own connections, searches the store too.
func (b *bench) other(adjust func(*dirstore.Store)) *dirstore.Store {
	b.Helper()
	store := openStore(b.T, b.root)
	adjust(store)
	b.Cleanup(func() { closeStore(b.T, store) })
	return store
}

// all is what is found in an order by pages of so many, each of which must be full but for the last.
func (b *bench) all(store *dirstore.Store, query blobstore.AssetQuery, limit int) (all []blobstore.Asset) {
	b.Helper()
	for query.Limit = limit; ; {
		page, err := store.FindAssets(b.ctx, session("alice"), query)
		b.ok(err)
		all = append(all, page.Assets...)
		if query.After = page.Next; page.Next == "" {
			return all
		}
		if len(page.Assets) != limit {
			b.Fatalf("a page of %d is not the last, and has %d", limit, len(page.Assets))
		}
	}
}

// there is what the files of alice's drive are called, by their numbers, and how long they are.
func (b *bench) there() (names map[uint64][]string, sizes map[uint64]int64) {
	b.Helper()
	names, sizes = make(map[uint64][]string), make(map[uint64]int64)
	b.ok(filepath.WalkDir(b.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		name, err := filepath.Rel(b.dir, path)
		names[st.Ino], sizes[st.Ino] = append(names[st.Ino], name), st.Size
		return err
	}))
	return names, sizes
}

// TestSearchesFindWhatIsThere has a drive and another program change what they like, while a second program searches all the time, and compares what is found
// after each change with what is there.
func TestSearchesFindWhatIsThere(t *testing.T) {
	// Longer than a tick of the clock that times are taken from. Nothing is looked at for its turn or its age.
	following := func(s *dirstore.Store) { dirstore.SetTerms(s, 50*time.Millisecond, 0, time.Hour, 0) }
	b := newBench(t, following)
	other := b.other(following)
	random := rand.New(rand.NewPCG(1, 2))
	name := func() string { return string(rune('a' + random.IntN(4))) }
	at := func(path string) string { return filepath.Join(b.dir, path) }
	folders := []string{".", "a", "b", "a/c", "b/d/e"}
	folder := func() string { return folders[random.IntN(len(folders))] }
	for _, f := range folders {
		b.ok(os.MkdirAll(at(f), 0o755))
	}
	bob, err := b.store.Open(b.ctx, session("bob"))
	b.ok(err)
	defer bob.Close(b.ctx)
	_, err = bob.Make(b.ctx, root, "bob's", b.newNode(unix.S_IFREG|0o644))
	b.ok(err)

	stop := make(chan struct{})
	var searching sync.WaitGroup
	searching.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := other.FindAssets(b.ctx, session("alice"), blobstore.AssetQuery{Limit: 5}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer searching.Wait()
	defer close(stop)

	behind := func(path string) { // whatever is in the way, or not there
		switch random.IntN(8) {
		case 0, 1:
			_ = os.WriteFile(at(path)+".new", bytes.Repeat([]byte("x"), random.IntN(100)), 0o644)
			_ = os.Rename(at(path)+".new", at(path))
		case 2:
			_ = os.Remove(at(path))
		case 3:
			_ = os.Rename(at(path), at(filepath.Join(folder(), name()+"-moved")))
		case 4:
			_ = os.Link(at(path), at(filepath.Join(folder(), name()+"-link")))
		case 5:
			_ = os.Rename(at("a"), at("aside"))
			_ = os.Rename(at("b"), at("a"))
			_ = os.Rename(at("aside"), at("b"))
		case 6:
			_ = os.Symlink("..", at(path))
		case 7:
			_ = os.RemoveAll(at("b/d/e"))
			for _, f := range folders {
				_ = os.MkdirAll(at(f), 0o755)
			}
		}
	}
	through := func(path string) {
		ino := root
		for step := range strings.SplitSeq(path, "/") {
			a, err := b.drive.Lookup(b.ctx, ino, step)
			if err != nil {
				return // it is not there
			}
			ino = a.Ino
		}
		f, err := b.drive.Open(b.ctx, ino, blobstore.OpenWrite|blobstore.OpenTruncate)
		if err != nil {
			return // it is no file
		}
		_, err = f.WriteAt(b.ctx, bytes.Repeat([]byte("y"), 100+random.IntN(100)), 0)
		b.ok(err)
		b.ok(f.Close())
	}
	for i := range 150 {
		path := filepath.Join(folder(), name())
		if random.IntN(3) == 0 {
			through(path)
		} else {
			behind(path)
		}
		names, sizes := b.there()
		store := []*dirstore.Store{b.store, other}[i%2]
		order := []blobstore.AssetOrder{blobstore.ByPath, blobstore.ByCreation}[i/2%2]
		found := b.all(store, blobstore.AssetQuery{Order: order}, []int{1, 3, 1000}[i%3])
		if len(found) != len(names) {
			t.Fatalf("%d: found %d files of %d: %v, there are %v", i, len(found), len(names), found, names)
		}
		for j, a := range found {
			if !slices.Contains(names[uint64(a.Ino)], a.Path) || a.Size != sizes[uint64(a.Ino)] {
				t.Fatalf("%d: found %+v, there is %v of %d bytes", i, a, names[uint64(a.Ino)], sizes[uint64(a.Ino)])
			}
			if delete(names, uint64(a.Ino)); order == blobstore.ByCreation && j > 0 && a.Created.After(found[j-1].Created) {
				t.Fatalf("%d: %s comes after %s", i, a.Path, found[j-1].Path)
			}
		}
		large := b.all(store, blobstore.AssetQuery{Order: order, MinSize: 100}, 1000)
		want := 0
		for _, size := range sizes {
			if size >= 100 {
				want++
			}
		}
		if len(large) != want {
			t.Fatalf("%d: found %d large files of %d", i, len(large), want)
		}
	}
	page, err := other.FindAssets(b.ctx, session("bob"), blobstore.AssetQuery{})
	if err != nil || len(page.Assets) != 1 || page.Assets[0].Path != "bob's" {
		t.Errorf("bob finds %v, %v", page.Assets, err)
	}
}

func TestPagesAreFullWhateverGoesMeanwhile(t *testing.T) {
	for order, what := range []string{blobstore.ByPath: "by path", blobstore.ByCreation: "by creation"} {
		t.Run(what, func(t *testing.T) {
			b := newBench(t, trusting)
			for i := range 60 {
				b.put(fmt.Sprintf("%d/%02d", i%2, i), "content")
			}
			query := blobstore.AssetQuery{Order: blobstore.AssetOrder(order), Limit: 10}
			first, err := b.store.FindAssets(b.ctx, session("alice"), query)
			b.ok(err)
			shown := make(map[string]bool)
			for _, a := range first.Assets {
				shown[a.Path] = true
			}
			gone := 0
			for i := range 60 {
				if path := fmt.Sprintf("%d/%02d", i%2, i); !shown[path] && i%3 > 0 {
					b.ok(os.Remove(filepath.Join(b.dir, path)))
					gone++
				}
			}
			query.After = first.Next
			if rest := b.all(b.store, query, 10); len(rest) != 50-gone {
				t.Errorf("found %d of %d", len(rest), 50-gone)
			}
		})
	}
}

func TestAFileIsFoundOnceByWhicheverNameItHas(t *testing.T) {
	b := newBench(t, func(s *dirstore.Store) { dirstore.SetTerms(s, 50*time.Millisecond, 0, time.Hour, 0) })
	at := func(name string) string { return filepath.Join(b.dir, name) }
	b.put("m/one", "content")
	b.ok(os.Mkdir(at("a"), 0o755))
	b.ok(os.Mkdir(at("z"), 0o755))
	b.finds(blobstore.AssetQuery{}, "m/one")
	b.ok(os.Link(at("m/one"), at("z/two")))
	b.finds(blobstore.AssetQuery{}, "m/one")
	b.finds(blobstore.AssetQuery{Name: "two"}, "z/two")
	b.ok(os.Link(at("m/one"), at("a/zero")))
	b.finds(blobstore.AssetQuery{}, "a/zero")
	b.finds(blobstore.AssetQuery{Folder: "z"}, "z/two")
	b.ok(os.Remove(at("a/zero")))
	b.ok(os.Remove(at("m/one")))
	b.finds(blobstore.AssetQuery{}, "z/two")

	// It loses its first name between two pages.
	b.ok(os.Link(at("z/two"), at("m/one")))
	b.put("a/before", "content")
	page, err := b.store.FindAssets(b.ctx, session("alice"), blobstore.AssetQuery{Limit: 1})
	b.ok(err)
	b.ok(os.Remove(at("m/one")))
	b.finds(blobstore.AssetQuery{After: page.Next}, "z/two")
}

func TestFilesInAFolderThatCouldNotBeEnteredAreFoundAgain(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may enter any: runs as an ordinary user")
	}
	b := newBench(t, trusting)
	b.put("a/b/c/file", "content")
	b.finds(blobstore.AssetQuery{}, "a/b/c/file")
	for range 2 {
		b.ok(os.Chmod(filepath.Join(b.dir, "a"), 0))
		b.finds(blobstore.AssetQuery{})
		b.finds(blobstore.AssetQuery{Folder: "a/b"})
		b.ok(os.Chmod(filepath.Join(b.dir, "a"), 0o755))
		b.finds(blobstore.AssetQuery{Folder: "a/b"}, "a/b/c/file")
		b.finds(blobstore.AssetQuery{}, "a/b/c/file")
	}
}

func TestALookThatIsBrokenOffIsGoneOnWith(t *testing.T) {
	b := newBench(t, trusting)
	for i := range 3000 {
		b.outside(filepath.Join(b.dir, fmt.Sprint(i)), "")
	}
	b.ok(os.Mkdir(filepath.Join(b.dir, "folder"), 0o755))
	b.put("folder/last", "")
	for after := time.Microsecond; ; after *= 2 {
		ctx, cancel := context.WithTimeout(b.ctx, after)
		page, err := b.store.FindAssets(ctx, session("alice"), blobstore.AssetQuery{Limit: 10000})
		cancel()
		if err == nil {
			if len(page.Assets) != 3001 {
				t.Errorf("found %d files", len(page.Assets))
			}
			return
		}
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, blobstore.ErrUnavailable) {
			t.Fatal(err)
		}
	}
}

func TestACatalogueOfTheFirstVersionIsBroughtUpToDate(t *testing.T) {
	b := newBench(t)
	b.put("file", "content")
	path := filepath.Join(b.root, ".mediafs", "assets.sqlite")
	dirstore.MakeFirstCatalogue(t, path)
	b.finds(blobstore.AssetQuery{}, "file")
	b.put("new", "content")
	b.finds(blobstore.AssetQuery{}, "file", "new")
}

func TestWhatDrivesSayOfTheirChangesIsTakenInAndTakenAway(t *testing.T) {
	b := newBench(t, trusting)
	b.mkfile(root, "file", "content")
	said := func() int {
		names, err := os.ReadDir(filepath.Join(b.root, ".mediafs", "changes", "alice"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return len(names)
	}
	if n := said(); n != 0 {
		t.Errorf("a new file is said to be changed in place: %d", n)
	}
	again, err := b.store.Open(b.ctx, session("alice"))
	b.ok(err)
	file, err := again.Lookup(b.ctx, root, "file")
	b.ok(err)
	f, err := again.Open(b.ctx, file.Ino, readWrite)
	b.ok(err)
	if n := said(); n != 1 {
		t.Errorf("there are %d files of changes", n)
	}
	b.finds(blobstore.AssetQuery{}, "file")
	if n := said(); n != 1 {
		t.Errorf("there are %d files of changes, while a drive has one", n)
	}
	b.ok(f.Close())
	b.ok(again.Close(b.ctx))
	if n := said(); n != 0 {
		t.Errorf("a drive that was closed has left %d files of changes", n)
	}

	// One that was killed in the middle of a record, and nonsense.
	b.outside(filepath.Join(b.root, ".mediafs", "changes", "alice", "killed"), strings.Repeat("x", 16*100+7))
	b.finds(blobstore.AssetQuery{}, "file")
	if n := said(); n != 0 {
		t.Errorf("a drive that was killed has left %d files of changes", n)
	}
}

func TestAChangeInPlaceIsFoundInACatalogueThatWasMadeAnewMeanwhile(t *testing.T) {
	b := newBench(t, trusting)
	b.put("file", "content")
	b.finds(blobstore.AssetQuery{}, "file")
	drive, err := b.store.Open(b.ctx, session("alice"))
	b.ok(err)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(filepath.Join(b.root, ".mediafs", "assets.sqlite"+suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	other := b.other(trusting)
	large := blobstore.AssetQuery{MinSize: 10}
	if found := b.find(other, large); len(found) != 0 {
		t.Fatalf("found %v", found)
	}
	file, err := drive.Lookup(b.ctx, root, "file")
	b.ok(err)
	f, err := drive.Open(b.ctx, file.Ino, readWrite)
	b.ok(err)
	_, err = f.WriteAt(b.ctx, []byte("much more content"), 0)
	b.ok(err)
	b.ok(f.Close())
	b.ok(drive.Close(b.ctx)) // takes in what it has said
	for _, store := range []*dirstore.Store{other, b.store} {
		if n := len(b.find(store, large)); n != 1 {
			t.Errorf("found %d files", n)
		}
	}
}

func TestSeveralProgramsMakeOneCatalogue(t *testing.T) {
	b := newBench(t)
	b.put("file", "content")
	var searches sync.WaitGroup
	for range 8 {
		store := b.other(func(*dirstore.Store) {})
		searches.Go(func() {
			if page, err := store.FindAssets(b.ctx, session("alice"), blobstore.AssetQuery{}); err != nil || len(page.Assets) != 1 {
				t.Errorf("found %v, %v", page.Assets, err)
			}
		})
	}
	searches.Wait()
}

func TestACatalogueOfOnesOwnTakesNoChangesFromTheStores(t *testing.T) {
	b := newBench(t, trusting)
	b.put("file", "content")
	b.finds(blobstore.AssetQuery{}, "file")
	path := filepath.Join(b.root, ".mediafs", "assets.sqlite")
	dirstore.SetIndexVersion(t, path, 99)
	other := b.other(trusting)
	drive, err := other.Open(b.ctx, session("alice"))
	b.ok(err)
	file, err := drive.Lookup(b.ctx, root, "file")
	b.ok(err)
	f, err := drive.Open(b.ctx, file.Ino, readWrite)
	b.ok(err)
	_, err = f.WriteAt(b.ctx, []byte("much more content"), 0)
	b.ok(err)
	b.ok(f.Close())
	b.ok(drive.Close(b.ctx))
	large := blobstore.AssetQuery{MinSize: 10}
	for _, store := range []*dirstore.Store{other, b.store} {
		if n := len(b.find(store, large)); n != 1 {
			t.Errorf("found %d files", n)
		}
	}
}
