package pgstore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
	"mediafs/blobstore/pgstore/pgtest"
)

func TestKnownNamesAreAnsweredWhileTheDatabaseIsAway(t *testing.T) {
	cluster := pgtest.NewCluster(t)
	url := cluster.URL("postgres")
	if _, err := pgstore.Init(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	for _, name := range []string{"made", "renamed", "removed"} {
		if _, err := d.Make(t.Context(), blobstore.RootIno, name, blobstore.NewNode{Mode: unix.S_IFREG | 0o600}); err != nil {
			t.Fatal(err)
		}
	}
	err := d.Rename(t.Context(), blobstore.Rename{Parent: blobstore.RootIno, Name: "renamed", NewParent: blobstore.RootIno, NewName: "other"})
	if err := errors.Join(err, d.Unlink(t.Context(), blobstore.RootIno, "removed"), cluster.Stop(pgtest.Immediate)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Lookup(t.Context(), blobstore.RootIno, "made"); err != nil {
		t.Errorf("a name that is known: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for _, name := range []string{"renamed", "removed", "never seen"} {
		if _, err := d.Lookup(ctx, blobstore.RootIno, name); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v, want %v", name, err, context.DeadlineExceeded)
		}
	}
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
}

// A file that is open here and that another mount has changed shows as it is once its folder was listed.
func TestWhatAnotherMountChangedOfAnOpenFileIsShownAfterAListing(t *testing.T) {
	url := newStore(t)
	session := signIn(t, url, "alice")
	d := attach(t, url, session, pgstore.Options{})
	file, ino := create(t, d, "file")
	defer file.Close()
	ok(t, file.Sync(t.Context()))
	other := attach(t, url, session, pgstore.Options{})
	_, err := other.SetAttr(t.Context(), ino, blobstore.AttrChange{Set: blobstore.SetMode, Mode: 0o640})
	ok(t, err)
	d.NewEra()
	d.HoldSole()
	root, err := d.OpenDir(t.Context(), blobstore.RootIno)
	ok(t, err)
	defer root.Close()
	ok(t, root.Read(t.Context(), 0, true, func(*blobstore.Entry) bool { return true }))
	if attr, err := d.Attr(t.Context(), ino); err != nil || attr.Mode != unix.S_IFREG|0o640 {
		t.Errorf("got %+v, %v, want the mode that the other mount has set", attr, err)
	}
}
