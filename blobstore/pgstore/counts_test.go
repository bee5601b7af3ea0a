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

// What is counted is what goes over the wire, in the background too, and one more for each connection that is made.
func TestRoundTripsAreCounted(t *testing.T) {
	url := newStore(t)
	session := signIn(t, url, "alice")
	tap, address := pgtest.NewTap(t, url)
	var counts blobstore.Counts
	trips := tap.During(func() {
		ctx := t.Context()
		store, err := pgstore.Open(ctx, address, pgstore.Options{})
		ok(t, err)
		d, err := store.Open(ctx, session)
		ok(t, err)
		for _, name := range []string{"a", "b", "c"} {
			f, _, _, err := d.Create(ctx, blobstore.RootIno, name, blobstore.NewNode{Mode: unix.S_IFREG | 0o644}, writable)
			ok(t, err)
			_, err = f.WriteAt(ctx, noise(3<<20, 1), 0)
			ok(t, err)
			ok(t, errors.Join(f.Sync(ctx), f.Close()))
			ok(t, d.Rename(ctx, blobstore.Rename{Parent: blobstore.RootIno, Name: name, NewParent: blobstore.RootIno, NewName: name + name}))
		}
		if d.Unlink(ctx, blobstore.RootIno, "a") == nil {
			t.Error("a name that was renamed can be removed")
		}
		ok(t, errors.Join(d.Close(ctx), store.Close()))
		counts = store.Counts()
	})
	want := uint64(len(trips))
	for _, trip := range trips {
		if trip.Name() == "do" { // the first thing on each connection
			want++
		}
	}
	if counts.RoundTrips != want || want < 10 {
		t.Errorf("%d round trips are counted, want %d", counts.RoundTrips, want)
	}
}

func TestHitsAndMissesAreCounted(t *testing.T) {
	pgstore.MakeWithin(t, time.Hour)
	url := newStore(t)
	session := signIn(t, url, "alice")
	ctx := t.Context()
	open := func() (*pgstore.Store, *pgstore.Drive) {
		store, err := pgstore.Open(ctx, url, pgstore.Options{})
		ok(t, err)
		d, err := store.Open(ctx, session)
		ok(t, err)
		t.Cleanup(func() { ok(t, errors.Join(d.Close(context.Background()), store.Close())) })
		return store, d.(*pgstore.Drive)
	}
	store, d := open()
	d.HoldSole()
	counts := func(what string, hits, misses uint64, do func() error) {
		t.Helper()
		before := store.Counts()
		ok(t, do())
		after := store.Counts()
		if after.Hits-before.Hits != hits || after.Misses-before.Misses != misses {
			t.Errorf("%s: %d hits and %d misses, want %d and %d", what, after.Hits-before.Hits, after.Misses-before.Misses, hits, misses)
		}
	}
	lookup := func() error { _, err := d.Lookup(ctx, blobstore.RootIno, "folder"); return err }
	attr := func() error { _, err := d.Attr(ctx, blobstore.RootIno); return err }

	counts("a name that nobody has asked for", 0, 1, func() error {
		if err := lookup(); !errors.Is(err, blobstore.ErrNotExist) {
			return errors.Join(errors.New("it is there"), err)
		}
		return nil
	})
	counts("a name that is not there, once more", 1, 0, func() error {
		if err := lookup(); !errors.Is(err, blobstore.ErrNotExist) {
			return errors.Join(errors.New("it is there"), err)
		}
		return nil
	})
	_, err := d.Make(ctx, blobstore.RootIno, "folder", blobstore.NewNode{Mode: unix.S_IFDIR | 0o755})
	ok(t, err)
	counts("a folder that was made here", 1, 0, lookup)
	ok(t, attr())
	counts("attributes that were asked for before", 1, 0, attr)
	d.ForgetOthers()
	_, other := open() // which makes what is known here old
	_, err = other.Attr(ctx, blobstore.RootIno)
	ok(t, err)
	counts("a name, beside another mount", 0, 1, lookup)
	counts("the same name, beside another mount", 0, 1, lookup)
}
