// Package storetest is the suite that every store of drives passes. Its tests are the promises of package blobstore, one by
// one; each starts on a store that nobody has used.
//
// A store's own test is a function that makes such a store, and two lines:
//
//	func TestStore(t *testing.T) { storetest.Run(t, open) }
//
//	func TestStoreDoesAsTheModel(t *testing.T) { storetest.Random(t, open) }
package storetest

import (
	"testing"

	"mediafs/auth"
	"mediafs/blobstore"
)

// A Fixture is a store under test, and what has to be known of it. The function that makes it registers with t.Cleanup what
// closes the store and takes away what it kept; every drive that the suite opened is closed by then.
type Fixture struct {
	// Store is new: no user has a drive in it.
	Store blobstore.Store

	// Session signs a user in, who is made if the store has to know its users. It may be called again for the same one.
	Session func(user auth.UserID) auth.Session

	// Admin signs an admin in, who may have a drive or not, and is none of the users that Session signs in.
	Admin func() auth.Session

	// Reopen closes the store and returns it opened anew, as a program that was started again finds it. Sessions
	// made before stay good.
	Reopen func() blobstore.Store

	// Hole is the size in bytes of the smallest hole: a range that starts at a multiple of it, is as long, and was never
	// written takes no space, and Seek finds where it starts and ends. A power of two, at most 1 MiB.
	Hole int64

	// OwnAtime says that the store itself moves the time of access of what is read. Otherwise the file system below does, if it
	// was mounted to do so.
	OwnAtime bool

	// XattrSpace is how many bytes the names and values of all extended attributes of one node may have for certain:
	// at least 2048. Zero stands for "each value up to blobstore.MaxXattrValue".
	XattrSpace int

	// AnyOwner says that nodes can be given to any user and group, and can be device nodes: the store keeps these facts
	// itself, or runs as root.
	AnyOwner bool
}

// Run tests every method of every interface of a store. open is called once for each test, and tests run beside each other.
func Run(t *testing.T, open func(t *testing.T) Fixture) {
	for _, family := range []struct {
		name  string
		tests []test
	}{
		{"sessions", sessionTests},
		{"roles", roleTests},
		{"names", nameTests},
		{"links and special files", linkTests},
		{"rename", renameTests},
		{"listing", dirTests},
		{"attributes", attrTests},
		{"times", timeTests},
		{"times of access", atimeTests},
		{"content", fileTests},
		{"ranges", rangeTests},
		{"xattrs", xattrTests},
		{"locks", lockTests},
		{"audit", auditTests},
		{"assets", assetTests},
		{"ended context", contextTests},
		{"many at once", concurrencyTests},
		{"quota", quotaTests},
	} {
		t.Run(family.name, func(t *testing.T) {
			t.Parallel()
			for _, test := range family.tests {
				t.Run(test.promise, func(t *testing.T) {
					t.Parallel()
					test.run(newWorld(t, open(t)))
				})
			}
		})
	}
}

// A test is a promise and what shows that it is kept.
type test struct {
	promise string
	run     func(w *world)
}
