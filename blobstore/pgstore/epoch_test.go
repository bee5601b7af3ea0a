package pgstore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
	"mediafs/blobstore/pgstore/pgtest"
)

// A change that was given up, and is still on the way when the next one is done, is refused when it arrives; one that has begun by then is waited for.
func TestNothingThatWasGivenUpArrivesLate(t *testing.T) {
	url := newStore(t)
	drive := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	before := drive.EpochArguments()
	connect := func() *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		return conn
	}
	enter := func() (pgx.Tx, error) {
		tx, err := connect().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = tx.Exec(t.Context(), "select mediafs.enter($1, $2, $3, $4)", before...)
		return tx, err
	}
	begun, err := enter()
	if err != nil {
		t.Fatalf("a change of the epoch that goes on: %v", err)
	}

	drive.Doubt()
	done := make(chan error, 1)
	go func() {
		_, err := drive.Make(t.Context(), blobstore.RootIno, "next", blobstore.NewNode{Mode: unix.S_IFDIR | 0o700})
		done <- err
	}()
	watcher := connect()
	waits := func() (n int) {
		if err := watcher.QueryRow(t.Context(), "select count(*) from pg_locks where locktype = 'advisory' and not granted").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for until := time.Now().Add(time.Minute); waits() == 0; {
		if time.Now().After(until) {
			t.Fatal("the next change does not wait for the one that had begun")
		}
	}
	if err := begun.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatalf("the next change: %v", err)
	}

	late, err := enter()
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "MF110" {
		t.Errorf("a change that was given up: got %v, want MF110", err)
	}
	if err := late.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
}

// A mount goes on to use the numbers that it was handed when the server has crashed meanwhile, so nobody else may be handed them.
func TestNumbersAreHandedOutOnceThoughTheServerCrashes(t *testing.T) {
	cluster := pgtest.NewCluster(t)
	url := cluster.URL("postgres")
	if _, err := pgstore.Init(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	session := signIn(t, url, "alice")
	one := attach(t, url, session, pgstore.Options{})
	folder := func(d *pgstore.Drive, name string) blobstore.Attr {
		t.Helper()
		attr, err := d.Make(t.Context(), blobstore.RootIno, name, blobstore.NewNode{Mode: unix.S_IFDIR | 0o700})
		if err != nil {
			t.Fatal(err)
		}
		return attr
	}
	folder(one, "takes the numbers")
	if err := errors.Join(cluster.Kill(), cluster.Start()); err != nil {
		t.Fatal(err)
	}
	two := attach(t, url, session, pgstore.Options{})
	seen := make(map[blobstore.Ino]string)
	for _, name := range []string{"a", "b", "c", "d"} {
		for i, d := range []*pgstore.Drive{one, two} {
			name := name + string(rune('1'+i))
			attr := folder(d, name)
			if other := seen[attr.Ino]; other != "" {
				t.Errorf("%s and %s have one number", name, other)
			}
			seen[attr.Ino] = name
		}
	}
}

// What makes names durable has to write something for that, also when a crash has undone that the mount is known.
func TestAFolderIsDurableThoughTheMountIsNotKnown(t *testing.T) {
	cluster := pgtest.NewCluster(t)
	url := cluster.URL("postgres")
	if _, err := pgstore.Init(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	root, err := d.OpenDir(t.Context(), blobstore.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	admin, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Exec(t.Context(), "delete from mediafs.mounts"); err != nil {
		t.Fatal(err)
	}
	_, err = d.Make(t.Context(), blobstore.RootIno, "folder", blobstore.NewNode{Mode: unix.S_IFDIR | 0o700})
	if err := errors.Join(err, root.Sync(t.Context()), admin.Close(t.Context()), cluster.Kill(), cluster.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := attach(t, url, d.Session(), pgstore.Options{}).Lookup(t.Context(), blobstore.RootIno, "folder"); err != nil {
		t.Errorf("after fsync and a crash: %v", err)
	}
}
