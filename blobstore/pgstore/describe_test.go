package pgstore_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
)

// described waits until what the content of a file says is known, and returns its type.
func described(t *testing.T, store *pgstore.Store, session auth.Session, name string) string {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		page, err := store.FindAssets(t.Context(), session, blobstore.AssetQuery{Name: name})
		if err != nil || len(page.Assets) != 1 {
			t.Fatalf("%s: got %d assets, %v", name, len(page.Assets), err)
		}
		if page.Assets[0].Described {
			return page.Assets[0].Type
		}
	}
	t.Fatalf("%s is not described", name)
	return ""
}

// What a mount that died has left, and what applications have stored while there was no mount, the next mount describes; a guest's does not.
func TestWhatNobodyHasDescribedTheNextMountDoes(t *testing.T) {
	url := newStore(t)
	alice := signIn(t, url, "alice")
	store, err := pgstore.Open(t.Context(), url, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	drive, err := store.Open(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	if err := drive.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := newApplication(t, url, alice)
	const files = 150 // more than are asked for at a time
	for i := range files {
		a.exec("insert into mediafs.assets (filename) values ($1)", fmt.Sprint("file", i))
	}
	a.exec("select mediafs.append_data(id, convert_to(repeat('text ', 400000), 'UTF8')) from mediafs.assets where filename = 'file7'")
	long := time.Now().Add(-time.Hour).UnixNano()
	h := household{url: url}
	if err := h.exec(t, url, "", fmt.Sprintf("update mediafs.nodes set ctime_ns = %d where mode & 61440 = 32768", long)); err != nil {
		t.Fatal(err)
	}
	if drive, err = store.Open(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	defer drive.Close(context.WithoutCancel(t.Context()))
	for i := range files {
		want := "application/octet-stream"
		if i == 7 {
			want = "text/plain"
		}
		if got := described(t, store, alice, fmt.Sprint("file", i)); got != want {
			t.Errorf("file%d: got type %q, want %q", i, got, want)
		}
	}
}

// A file that is written while it is described is not taken for described.
func TestADescriptionOfContentThatHasChangedIsNotStored(t *testing.T) {
	url := newStore(t)
	alice := signIn(t, url, "alice")
	a := newApplication(t, url, alice)
	a.exec("select from mediafs.open_drive($1, 65536, 1)", alice.Token.Reveal())
	id := a.text("insert into mediafs.assets (filename) values ('a') returning id::text")
	a.exec("select mediafs.append_data($1, 'before')", id)
	const describe = `select mediafs.describe(d.drive_id, array[n.ino], array[n.blob], array[n.ctime_ns - $2], '{text/plain}', array[sha256('before')], '{null}', '{null}', '{null}')
		from mediafs.nodes n join mediafs.drives d using (drive_id) where n.ino = mediafs.asset_ino($1)`
	isDescribed := func() string {
		return a.text("select described::text from mediafs.assets where ino = mediafs.asset_ino($1)", id)
	}
	a.exec(describe, id, 1)
	if isDescribed() != "false" {
		t.Error("what was read before the file changed counts")
	}
	a.exec(describe, id, 0)
	if isDescribed() != "true" {
		t.Error("what was read of the content as it is does not count")
	}
	for what, change := range map[string]string{
		"appending":       "select mediafs.append_data($1, 'x')",
		"replacing":       "update mediafs.media_blobs set media_data = 'other' where ino = mediafs.asset_ino($1)",
		"emptying":        "update mediafs.media_blobs set media_data = '' where ino = mediafs.asset_ino($1)",
		"punching a hole": "select mediafs.zero_range(n.drive_id, n.ino, 0, 1, 0, n.ctime_ns + 1, 65536) from mediafs.nodes n where n.ino = mediafs.asset_ino($1)",
		"copying":         "select mediafs.copy_range(n.drive_id, n.blob, 0, 0, n.ino, 5, n.ctime_ns + 1, 65536) from mediafs.nodes n where n.ino = mediafs.asset_ino($1)",
	} {
		a.exec(describe, id, 0)
		a.exec(change, id)
		if isDescribed() != "false" {
			t.Errorf("after %s it counts as described", what)
		}
	}
	a.exec(describe, id, 0)
	a.exec("update mediafs.assets set filename = 'b', job_id = 'j' where ino = mediafs.asset_ino($1)", id)
	a.exec("select mediafs.set_attr(n.drive_id, n.ino, $2, 384, 0, 0, 0, 0, 0, n.ctime_ns + 1, 0, 65536, gen_random_uuid()) from mediafs.nodes n where n.ino = mediafs.asset_ino($1)",
		id, int32(blobstore.SetMode))
	if isDescribed() != "true" {
		t.Error("a new name, job and mode have made it count as not described")
	}
}
