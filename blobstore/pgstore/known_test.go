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
