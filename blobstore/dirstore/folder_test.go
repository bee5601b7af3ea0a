package dirstore_test

import (
	"os"
	"path/filepath"
	"testing"

	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
)

// A folder that lies where the drives of a store do is one of this machine all the same: its files are no assets, and what the store keeps of its drives is
// neither asked nor made.
func TestAFolderKnowsNothingOfAStoreAroundIt(t *testing.T) {
	root := t.TempDir()
	if err := dirstore.Init(root); err != nil {
		t.Fatal(err)
	}
	before, err := filepath.Glob(filepath.Join(root, ".mediafs", "*"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "folder")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	drive, err := dirstore.OpenFolder(path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := drive.Lookup(t.Context(), blobstore.RootIno, "file")
	if err != nil {
		t.Fatal(err)
	}
	if names, err := drive.ListXattr(t.Context(), file.Ino); err != nil || len(names) != 0 {
		t.Errorf("its file has the attributes %q, %v; want none", names, err)
	}
	if err := drive.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := filepath.Glob(filepath.Join(root, ".mediafs", "*"))
	if err != nil || len(after) != len(before) {
		t.Errorf("beside the store is %q, %v; before it was %q", after, err, before)
	}
}
