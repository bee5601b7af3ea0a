package dirstore_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
)

// put writes a file as the web application does, an hour ago.
func (b *bench) put(name, content string) {
	b.Helper()
	at := filepath.Join(b.dir, name)
	old := time.Now().Add(-time.Hour)
	for _, err := range []error{os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(content), 0o644), os.Chtimes(at, old, old)} {
		if err != nil {
			b.Fatal(err)
		}
	}
}

// find is the first page of alice's assets that fit a query, by path.
func (b *bench) find(store *dirstore.Store, query blobstore.AssetQuery) map[string]blobstore.Asset {
	b.Helper()
	page, err := store.FindAssets(b.ctx, session("alice"), query)
	if err != nil {
		b.Fatal(err)
	}
	found := make(map[string]blobstore.Asset)
	for _, a := range page.Assets {
		found[a.Path] = a
	}
	return found
}

// finds checks the paths of what is found.
func (b *bench) finds(query blobstore.AssetQuery, want ...string) {
	b.Helper()
	got := slices.Sorted(maps.Keys(b.find(b.store, query)))
	if !slices.Equal(got, want) {
		b.Errorf("%+v: got %q, want %q", query, got, want)
	}
}

func TestWhatTheWebApplicationDoesIsFound(t *testing.T) {
	b := newBench(t)
	b.put("a/b/one.txt", "one")
	b.put("a/two.gif", "GIF89a\x02\x00\x03\x00\x00\x00\x00;")
	b.put("three", "")
	b.finds(blobstore.AssetQuery{}, "a/b/one.txt", "a/two.gif", "three")
	b.finds(blobstore.AssetQuery{Types: []string{"image/gif"}}, "a/two.gif")
	for path, a := range b.find(b.store, blobstore.AssetQuery{}) {
		if !a.Described {
			b.Errorf("%s is not described: %+v", path, a)
		}
	}
	one := b.find(b.store, blobstore.AssetQuery{})["a/b/one.txt"]

	// What it changes in place, moves, replaces and takes away.
	b.put("a/b/one.txt", "one and more")
	if err := os.Rename(filepath.Join(b.dir, "a"), filepath.Join(b.dir, "c")); err != nil {
		t.Fatal(err)
	}
	found := b.find(b.store, blobstore.AssetQuery{})
	if a := found["c/b/one.txt"]; len(found) != 3 || a.ID != one.ID || a.Size != 12 || bytes.Equal(a.SHA256, one.SHA256) || !a.Described {
		t.Errorf("got %+v", found)
	}
	b.finds(blobstore.AssetQuery{Folder: "a"})
	b.finds(blobstore.AssetQuery{Folder: "c", Shallow: true}, "c/two.gif")
	if err := os.RemoveAll(filepath.Join(b.dir, "c", "b")); err != nil {
		t.Fatal(err)
	}
	b.finds(blobstore.AssetQuery{Folder: "c/b", Shallow: true})
	b.finds(blobstore.AssetQuery{}, "c/two.gif", "three")

	// A file becomes a folder, and a folder a file.
	for _, err := range []error{os.RemoveAll(filepath.Join(b.dir, "c")), os.Remove(filepath.Join(b.dir, "three"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	b.put("c", "")
	b.put("three/four", "")
	b.finds(blobstore.AssetQuery{}, "c", "three/four")
}

func TestNothingOutsideOfADriveIsFound(t *testing.T) {
	b := newBench(t)
	outside := t.TempDir()
	b.put("in", "")
	for _, err := range []error{
		os.WriteFile(filepath.Join(outside, "secret"), nil, 0o644),
		os.Symlink(outside, filepath.Join(b.dir, "link")),
		os.Symlink(filepath.Join(outside, "secret"), filepath.Join(b.dir, "file")),
		os.Symlink("..", filepath.Join(b.dir, "up")),
		os.Symlink(outside, filepath.Join(b.root, "carl")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	b.finds(blobstore.AssetQuery{}, "in")
	for _, folder := range []string{"link", "up", "..", "../alice", "up/alice", ".mediafs", "/"} {
		if found := b.find(b.store, blobstore.AssetQuery{Folder: folder}); folder != "/" && len(found) > 0 {
			t.Errorf("in %s: got %v", folder, found)
		}
	}
	page, err := b.store.FindAssets(b.ctx, session("carl"), blobstore.AssetQuery{})
	if err != nil || len(page.Assets) > 0 {
		t.Errorf("carl, whose folder is a link, finds %v, %v", page.Assets, err)
	}
}

func TestACatalogueThatIsMissingOrBrokenIsMadeAnew(t *testing.T) {
	b := newBench(t)
	for i := range 300 { // more than a page of the database
		b.put(fmt.Sprintf("folder/%03d", i), strings.Repeat("x", i))
	}
	store := openStore(t, b.root)
	want := b.find(store, blobstore.AssetQuery{})
	closeStore(t, store)
	path := filepath.Join(b.root, ".mediafs", "assets.sqlite")
	for what, harm := range map[string]func() error{
		"nothing":            func() error { return nil },
		"it is removed":      func() error { return os.Remove(path) },
		"it is empty":        func() error { return os.WriteFile(path, nil, 0o600) },
		"it is other bytes":  func() error { return os.WriteFile(path, bytes.Repeat([]byte("other "), 5000), 0o600) },
		"a page is cut away": func() error { return os.Truncate(path, 8192) },
	} {
		for range 2 { // as broken, and as made anew
			store := openStore(t, b.root)
			got := b.find(store, blobstore.AssetQuery{})
			closeStore(t, store)
			if len(got) != len(want) {
				t.Fatalf("after %s: got %d assets, want %d", what, len(got), len(want))
			}
			for path, a := range got {
				if w := want[path]; a.ID != w.ID || !a.Described || !bytes.Equal(a.SHA256, w.SHA256) || a.Size != w.Size {
					t.Fatalf("after %s: %s: got %+v, want %+v", what, path, a, w)
				}
			}
			if err := harm(); err != nil {
				t.Fatal(err)
			}
			harm = func() error { return nil }
		}
	}
}

func TestACatalogueOfAnotherVersionIsLeftAlone(t *testing.T) {
	b := newBench(t)
	b.put("a", "content")
	b.finds(blobstore.AssetQuery{}, "a")
	path := filepath.Join(b.root, ".mediafs", "assets.sqlite")
	before := dirstore.SetIndexVersion(t, path, 99)
	store := openStore(t, b.root)
	defer closeStore(t, store)
	if a := b.find(store, blobstore.AssetQuery{})["a"]; !a.Described {
		t.Errorf("got %+v", a)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the catalogue has changed, %v", err)
	}
}

func TestWhoMayNotWriteTheCatalogueFindsFilesAllTheSame(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may: runs as an ordinary user")
	}
	b := newBench(t)
	b.put("a/b", "content")
	own := filepath.Join(b.root, ".mediafs")
	if err := os.Chmod(own, 0o500); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(own, 0o700)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	store := openStore(t, b.root)
	for range 2 {
		if a := b.find(store, blobstore.AssetQuery{Types: []string{"text/*"}})["a/b"]; !a.Described {
			t.Errorf("got %+v", a)
		}
	}
	closeStore(t, store)
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}

func TestFilesThatCantBeReadAreFoundAndNotDescribed(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may: runs as an ordinary user")
	}
	b := newBench(t)
	b.put("open", "content")
	b.put("shut", "content")
	b.put("shut folder/file", "content")
	for name, mode := range map[string]os.FileMode{"shut": 0, "shut folder": 0} {
		if err := os.Chmod(filepath.Join(b.dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	defer os.Chmod(filepath.Join(b.dir, "shut folder"), 0o755)
	b.finds(blobstore.AssetQuery{}, "open", "shut")
	b.finds(blobstore.AssetQuery{Types: []string{"text/plain"}}, "open")
	if a := b.find(b.store, blobstore.AssetQuery{})["shut"]; a.Described || a.Type != "" || a.Size != 7 {
		t.Errorf("got %+v", a)
	}
}

func TestAJobIsAnAttributeOfTheFileItself(t *testing.T) {
	b := newBench(t)
	b.put("import/old", "")
	if err := unix.Setxattr(filepath.Join(b.dir, "import"), blobstore.XattrJob, []byte("job-1"), 0); err != nil {
		t.Fatal(err)
	}
	dir, err := b.drive.Lookup(b.ctx, root, "import")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.drive.Make(b.ctx, dir.Ino, "new", blobstore.NewNode{Mode: unix.S_IFREG | 0o600, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}); err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 100)
	n, err := unix.Getxattr(filepath.Join(b.dir, "import/new"), blobstore.XattrJob, value)
	if err != nil || string(value[:n]) != "job-1" {
		t.Errorf("got the job %q, %v", value[:max(n, 0)], err)
	}
	b.finds(blobstore.AssetQuery{Job: "job-1"}, "import/new")
	for path, job := range map[string]string{"import/old": "job-2", "import/new": "no\njob"} {
		if err := unix.Setxattr(filepath.Join(b.dir, path), blobstore.XattrJob, []byte(job), 0); err != nil {
			t.Fatal(err)
		}
	}
	b.finds(blobstore.AssetQuery{Job: "job-1"})
	b.finds(blobstore.AssetQuery{Job: "job-2"}, "import/old")
}

func TestDescribingLeavesNoTrace(t *testing.T) {
	b := newBench(t)
	b.put("a", "content")
	var before, after unix.Stat_t
	path := filepath.Join(b.dir, "a")
	if err := unix.Stat(path, &before); err != nil {
		t.Fatal(err)
	}
	if a := b.find(b.store, blobstore.AssetQuery{})["a"]; !a.Described || a.AccessCount != 0 {
		t.Errorf("got %+v", a)
	}
	if err := unix.Stat(path, &after); err != nil || after.Atim != before.Atim || after.Ctim != before.Ctim {
		t.Errorf("the time of access was %v and is %v (%v)", before.Atim, after.Atim, err)
	}
}
