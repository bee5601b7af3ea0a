package pgstore_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
)

func TestWhatOneMountClosedTheOtherSeesAtItsNextOpen(t *testing.T) {
	url := newStore(t)
	session := signIn(t, url, "alice")
	one, two := attach(t, url, session, pgstore.Options{}), attach(t, url, session, pgstore.Options{})
	file, ino := create(t, one, "shared")
	for _, content := range []string{"first", "a longer second", "third"} {
		if _, err := one.SetAttr(t.Context(), ino, blobstore.AttrChange{Set: blobstore.SetSize}); err != nil {
			t.Fatal(err)
		}
		write(t, file, []byte(content), 0)
		if err := file.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		there, err := two.Open(t.Context(), ino, blobstore.OpenRead)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(read(t, there, 100, 0)); got != content {
			t.Errorf("the other mount: got %q, want %q", got, content)
		}
		if err := there.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestTwoMountsAppendingToOneFileKeepEachOthersBytes(t *testing.T) {
	url := newStore(t)
	session := signIn(t, url, "alice")
	one, two := attach(t, url, session, pgstore.Options{}), attach(t, url, session, pgstore.Options{})
	first, ino := create(t, one, "shared")
	second, err := two.Open(t.Context(), ino, writable)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	write(t, first, []byte("0123"), 0)
	write(t, second, []byte("4567"), 4) // the second mount does not know of the first's bytes, which are pending
	for _, f := range []blobstore.File{second, first} {
		if err := f.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	third := attach(t, url, session, pgstore.Options{})
	file, err := third.Open(t.Context(), ino, blobstore.OpenRead)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if got, want := string(read(t, file, 100, 0)), "01234567"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAFileRemovedByAnotherMountStaysWhileItIsOpen(t *testing.T) {
	url := newStore(t)
	session := signIn(t, url, "alice")
	one, two := attach(t, url, session, pgstore.Options{}), attach(t, url, session, pgstore.Options{})
	file, ino := create(t, one, "shared")
	write(t, file, []byte("still here"), 0)
	if err := file.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	there, err := two.Open(t.Context(), ino, blobstore.OpenRead)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if err := errors.Join(file.Close(), one.Unlink(t.Context(), blobstore.RootIno, "shared")); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Open(t.Context(), ino, blobstore.OpenRead); !errors.Is(err, blobstore.ErrNotExist) {
		t.Errorf("where it is not open: got %v, want %v", err, blobstore.ErrNotExist)
	}
	if got, want := string(read(t, there, 100, 0)), "still here"; got != want {
		t.Errorf("where it is open: got %q, want %q", got, want)
	}
}

func TestWhatADeadMountHadRemovedIsCollectedByTheNext(t *testing.T) {
	url := newStore(t)
	session := signIn(t, url, "alice")
	d := attach(t, url, session, pgstore.Options{})
	file, _ := create(t, d, "temporary")
	write(t, file, noise(3<<20, 1), 0)
	if err := errors.Join(file.Flush(t.Context()), d.Unlink(t.Context(), blobstore.RootIno, "temporary")); err != nil {
		t.Fatal(err)
	}
	admin, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	count := func(sql string) (n int) {
		t.Helper()
		if err := admin.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count("select count(*) from mediafs.chunks"); n == 0 {
		t.Fatal("the file is open and its chunks are gone")
	}
	if _, err := admin.Exec(t.Context(), "update mediafs.mounts set seen_at = now() - interval '1 hour'"); err != nil {
		t.Fatal(err) // d is dead, as far as others can tell
	}
	next := attach(t, url, session, pgstore.Options{})
	if err := next.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"chunks", "removed", "nodes where ino <> 1"} {
		if n := count("select count(*) from mediafs." + table); n != 0 {
			t.Errorf("%s: got %d rows, want 0", table, n)
		}
	}
	if n := count("select sum(bytes) + sum(nodes) from mediafs.usage"); n != 0 {
		t.Errorf("usage: got %d, want 0", n)
	}
}

// A mount that closes cuts off its own keeper, whose last question the server may still be working on.
func TestClosingADriveCollectsWhatAnotherTransactionStillHolds(t *testing.T) {
	url := newStore(t)
	drive := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	file, _ := create(t, drive, "removed")
	write(t, file, []byte("content"), 0)
	if err := drive.Unlink(t.Context(), blobstore.RootIno, "removed"); err != nil {
		t.Fatal(err)
	}
	holder, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close(t.Context())
	if _, err := holder.Exec(t.Context(), "begin; select from mediafs.removed for update"); err != nil {
		t.Fatal(err)
	}
	watcher, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close(t.Context())
	closed := make(chan error, 1)
	go func() { closed <- errors.Join(file.Close(), drive.Close(t.Context())) }()
	for waits := false; !waits; { // until somebody waits for what is held
		select {
		case err := <-closed:
			t.Fatalf("closed while a row was held: %v", err)
		default:
		}
		const query = "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and query like '%mediafs.collect%')"
		if err := watcher.QueryRow(t.Context(), query).Scan(&waits); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := holder.Exec(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	var left int
	if err := watcher.QueryRow(t.Context(), "select count(*) from mediafs.nodes where ino <> 1").Scan(&left); err != nil || left != 0 {
		t.Errorf("nodes left: got %d, %v, want none", left, err)
	}
}
