package dirstore_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
	"mediafs/blobstore/storetest"
)

func session(user auth.UserID) auth.Session { return auth.Session{User: user, Role: auth.RoleUser} }

func open(t *testing.T) storetest.Fixture { return fixture(t, func(*dirstore.Store) {}) }

// fixture is a new store, of which every opened one is changed by adjust.
func fixture(t *testing.T, adjust func(*dirstore.Store)) storetest.Fixture {
	root := filepath.Join(t.TempDir(), "media")
	if err := dirstore.Init(root); err != nil {
		t.Fatal(err)
	}
	store := openStore(t, root)
	adjust(store)
	t.Cleanup(func() {
		closeStore(t, store)
		findings, _ := checkStore(t, root, false)
		for _, f := range findings {
			if f.Kind != "foreign-owner" { // the suite gives files to others
				t.Errorf("the store is not whole: %+v", f)
			}
		}
	})
	return storetest.Fixture{
		Store:   store,
		Session: session,
		Admin:   func() auth.Session { return auth.Session{User: "ada", Role: auth.RoleAdmin} },
		Reopen: func() blobstore.Store {
			closeStore(t, store)
			store = openStore(t, root)
			adjust(store)
			return store
		},
		Hole:       4096, // a block of the file systems that tests run on
		XattrSpace: 2048, // ext4 has one block for them, and a little room in the inode
		AnyOwner:   os.Geteuid() == 0,
	}
}

func openStore(t *testing.T, root string) *dirstore.Store {
	t.Helper()
	store, err := dirstore.Open(root, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func closeStore(t *testing.T, store *dirstore.Store) {
	t.Helper()
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func TestStore(t *testing.T) { storetest.Run(t, open) }

func TestStoreThatFindsEveryNodeByName(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Fixture { return fixture(t, dirstore.Forgetful) })
}

func TestStoreDoesAsTheModel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the kernel takes the set-user-ID bit from what an ordinary user writes to, and the model does not")
	}
	storetest.Random(t, open)
}
