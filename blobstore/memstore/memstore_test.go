package memstore_test

import (
	"errors"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/memstore"
	"mediafs/blobstore/storetest"
)

// open makes a store that survives being closed, for that is all a store in memory can do.
func open(t *testing.T) storetest.Fixture {
	store := memstore.New()
	return storetest.Fixture{
		Store:    store,
		Session:  func(user auth.UserID) auth.Session { return auth.Session{User: user, Role: auth.RoleUser} },
		Admin:    func() auth.Session { return auth.Session{User: "ada", Role: auth.RoleAdmin} },
		Reopen:   func() blobstore.Store { return store },
		Hole:     4096,
		AnyOwner: true,
		OwnAtime: true,
	}
}

func TestStore(t *testing.T) { storetest.Run(t, open) }

func TestStoreDoesAsTheModel(t *testing.T) { storetest.Random(t, open) }

// Here alone, for 65,000 names take too long to make in a store that keeps them.
func TestANodeHasAtMostMaxLinksNames(t *testing.T) {
	d, err := memstore.New().Open(t.Context(), auth.Session{User: "alice", Role: auth.RoleUser})
	if err != nil {
		t.Fatal(err)
	}
	a, err := d.Make(t.Context(), blobstore.RootIno, "1", blobstore.NewNode{Mode: unix.S_IFREG | 0o644})
	for i := 2; err == nil && i <= blobstore.MaxLinks; i++ {
		a, err = d.Link(t.Context(), a.Ino, blobstore.RootIno, strconv.Itoa(i))
	}
	if err != nil || a.Nlink != blobstore.MaxLinks {
		t.Fatalf("got %d names, %v, want %d", a.Nlink, err, blobstore.MaxLinks)
	}
	if _, err := d.Link(t.Context(), a.Ino, blobstore.RootIno, "one more"); !errors.Is(err, blobstore.ErrTooManyLinks) {
		t.Errorf("got error %v, want %v", err, blobstore.ErrTooManyLinks)
	}
}
