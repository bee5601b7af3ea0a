package pgstore_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
	"mediafs/blobstore/pgstore/pgtest"
)

// crashing is a store on a server that forgets, when it is killed, all that was committed since the last commit that waited for the disk, and what
// kills and starts it.
func crashing(t *testing.T) (url string, crash func()) {
	t.Helper()
	cluster := pgtest.NewCluster(t)
	url = cluster.URL("postgres")
	_, err := pgstore.Init(t.Context(), url)
	ok(t, err)
	admin, err := pgx.Connect(t.Context(), url)
	ok(t, err)
	for _, sql := range []string{"alter system set wal_writer_delay = '10s'", "select pg_reload_conf()"} {
		_, err := admin.Exec(t.Context(), sql)
		ok(t, err)
	}
	ok(t, admin.Close(t.Context()))
	ok(t, errors.Join(cluster.Stop(pgtest.Fast), cluster.Start()))
	return url, func() {
		t.Helper()
		ok(t, errors.Join(cluster.Kill(), cluster.Start()))
	}
}

// A file whose removal a crash has undone is one like any other, though it was open here all the time.
func TestAFileWhoseRemovalACrashUndidIsStored(t *testing.T) {
	for what, remove := range map[string]func(d *pgstore.Drive) error{
		"unlink": func(d *pgstore.Drive) error { return d.Unlink(t.Context(), blobstore.RootIno, "file") },
		"rename": func(d *pgstore.Drive) error {
			return d.Rename(t.Context(), blobstore.Rename{Parent: blobstore.RootIno, Name: "other", NewParent: blobstore.RootIno, NewName: "file"})
		},
	} {
		t.Run(what, func(t *testing.T) {
			url, crash := crashing(t)
			d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
			_, err := d.Make(t.Context(), blobstore.RootIno, "other", blobstore.NewNode{Mode: unix.S_IFREG | 0o600})
			ok(t, err)
			kept, ino := create(t, d, "file")
			write(t, kept, []byte("before"), 0)
			ok(t, kept.Sync(t.Context()))
			ok(t, remove(d))
			crash()
			_, err = d.Make(t.Context(), blobstore.RootIno, "after", blobstore.NewNode{Mode: unix.S_IFDIR | 0o700}) // hears of it
			ok(t, err)
			attr, err := d.Lookup(t.Context(), blobstore.RootIno, "file")
			if err != nil || attr.Ino != ino || attr.Nlink != 1 {
				t.Fatalf("got %+v, %v, want number %d: the crash has not undone the removal", attr, err, ino)
			}
			again, err := d.Open(t.Context(), ino, blobstore.OpenRead|blobstore.OpenWrite)
			ok(t, err)
			write(t, again, []byte("after!"), 0)
			ok(t, again.Sync(t.Context()))
			write(t, again, []byte(" and more"), 6)
			ok(t, errors.Join(again.Flush(t.Context()), again.Close(), kept.Close()))
			other, err := attach(t, url, d.Session(), pgstore.Options{}).Open(t.Context(), ino, blobstore.OpenRead)
			ok(t, err)
			if got := read(t, other, 100, 0); string(got) != "after! and more" {
				t.Errorf("another mount reads %q", got)
			}
		})
	}
}

// fsync(2) of a file that was removed: a crash does not bring it back with an older content.
func TestAFileThatWasSyncedAfterItsRemovalStaysRemoved(t *testing.T) {
	url, crash := crashing(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	file, _ := create(t, d, "file")
	ok(t, file.Sync(t.Context()))
	ok(t, d.Unlink(t.Context(), blobstore.RootIno, "file"))
	write(t, file, []byte("content"), 0)
	ok(t, file.Sync(t.Context()))
	crash()
	other := attach(t, url, d.Session(), pgstore.Options{})
	if attr, err := other.Lookup(t.Context(), blobstore.RootIno, "file"); !errors.Is(err, blobstore.ErrNotExist) {
		t.Errorf("got %+v, %v", attr, err)
	}
}

// What is known of a drive is asked for anew after a crash, also by a mount that was alone all the time and has met no error.
func TestWhatACrashUndidIsNotKnownAnyMore(t *testing.T) {
	url, crash := crashing(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	root, err := d.OpenDir(t.Context(), blobstore.RootIno)
	ok(t, err)
	defer root.Close()
	file, ino := create(t, d, "file")
	defer file.Close()
	ok(t, file.Sync(t.Context()))
	d.HoldSole()
	attr, err := d.Link(t.Context(), ino, blobstore.RootIno, "second name")
	if err != nil || attr.Nlink != 2 {
		t.Fatalf("got %+v, %v", attr, err)
	}
	d.EndConnections() // as if they had been idle for long, which the pool finds out without an error
	crash()
	_, err = d.Make(t.Context(), blobstore.RootIno, "after", blobstore.NewNode{Mode: unix.S_IFDIR | 0o700})
	ok(t, err)
	if _, err := d.Lookup(t.Context(), blobstore.RootIno, "second name"); !errors.Is(err, blobstore.ErrNotExist) {
		t.Errorf("the name: got %v", err)
	}
	if attr, err := d.Attr(t.Context(), ino); err != nil || attr.Nlink != 1 {
		t.Errorf("got %+v, %v, want one link", attr, err)
	}
	d.ForgetOthers()
	d.HoldSole()
	ok(t, root.Read(t.Context(), 0, true, func(*blobstore.Entry) bool { return true }))
	if attr, err := d.Attr(t.Context(), ino); err != nil || attr.Nlink != 1 {
		t.Errorf("listed: got %+v, %v, want one link", attr, err)
	}
	if err := root.Sync(t.Context()); !errors.Is(err, blobstore.ErrUnavailable) {
		t.Errorf("syncing the folder: got %v, and names are lost", err)
	}
	ok(t, root.Sync(t.Context()))
}

// Connections come and go without a crash.
func TestANewConnectionIsNoCrash(t *testing.T) {
	url := newStore(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	root, err := d.OpenDir(t.Context(), blobstore.RootIno)
	ok(t, err)
	defer root.Close()
	_, err = d.Make(t.Context(), blobstore.RootIno, "folder", blobstore.NewNode{Mode: unix.S_IFDIR | 0o700})
	ok(t, err)
	ok(t, d.ReplaceConnection(t.Context()))
	ok(t, root.Sync(t.Context()))
}

// Whether a name is taken away is known when the database has committed it.
func TestAFileWhoseRemovalFailsIsStored(t *testing.T) {
	url := newStore(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	file, ino := create(t, d, "file")
	ok(t, file.Sync(t.Context()))
	h := household{url: url}
	ok(t, h.exec(t, url, "", `create function public.fail() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
		create constraint trigger fails after delete on mediafs.entries deferrable initially deferred for each row execute function public.fail()`))
	write(t, file, []byte("content"), 0)
	if err := d.Unlink(t.Context(), blobstore.RootIno, "file"); err == nil {
		t.Fatal("the commit did not fail")
	}
	ok(t, errors.Join(file.Flush(t.Context()), file.Close()))
	other, err := attach(t, url, d.Session(), pgstore.Options{}).Open(t.Context(), ino, blobstore.OpenRead)
	ok(t, err)
	if got := read(t, other, 100, 0); string(got) != "content" {
		t.Errorf("another mount reads %q", got)
	}
}
