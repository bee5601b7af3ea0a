package pgstore_test

import (
	"errors"
	"path/filepath"
	"testing"

	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
)

// What a mount has locked is another's as soon as it has been killed, if that is on the same machine; as long as it lives it is not.
func TestAMountThatWasKilledOnThisMachineHoldsNoLocks(t *testing.T) {
	url := newStore(t)
	session := signIn(t, url, "alice")
	options := pgstore.Options{Spool: filepath.Join(t.TempDir(), "spool")}
	killed := attach(t, url, session, options)
	file, ino := create(t, killed, "locked")
	if err := file.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := killed.SetLock(t.Context(), ino, exclusively, false); err != nil {
		t.Fatal(err)
	}
	before := attach(t, url, session, options)
	if _, err := before.SetLock(t.Context(), ino, exclusively, false); !errors.Is(err, blobstore.ErrLocked) {
		t.Errorf("while it lives: got %v, want %v", err, blobstore.ErrLocked)
	}
	killed.Die()
	after := attach(t, url, session, options)
	if _, err := after.SetLock(t.Context(), ino, exclusively, false); err != nil {
		t.Errorf("after it was killed: %v", err)
	}
}
