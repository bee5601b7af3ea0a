package memstore_test

import (
	"testing"

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
		Reopen:   func() blobstore.Store { return store },
		Hole:     4096,
		AnyOwner: true,
	}
}

func TestStore(t *testing.T) { storetest.Run(t, open) }

func TestStoreDoesAsTheModel(t *testing.T) { storetest.Random(t, open) }
