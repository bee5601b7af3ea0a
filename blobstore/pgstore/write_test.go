package pgstore_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
	"mediafs/blobstore/pgstore/pgtest"
)

const writable = blobstore.OpenRead | blobstore.OpenWrite

// attach opens the drive of a session; both ends with the test.
func attach(t *testing.T, url string, session auth.Session, o pgstore.Options) *pgstore.Drive {
	t.Helper()
	store, err := pgstore.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	drive, err := store.Open(t.Context(), session)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(drive.Close(context.Background()), store.Close()); err != nil {
			t.Error(err)
		}
	})
	return drive.(*pgstore.Drive)
}

func create(t *testing.T, d *pgstore.Drive, name string) (blobstore.File, blobstore.Ino) {
	t.Helper()
	file, attr, _, err := d.Create(t.Context(), blobstore.RootIno, name, blobstore.NewNode{Mode: unix.S_IFREG | 0o600}, writable)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file, attr.Ino
}

func write(t *testing.T, f blobstore.File, data []byte, off int64) {
	t.Helper()
	if n, err := f.WriteAt(t.Context(), data, off); err != nil || n != len(data) {
		t.Fatalf("write %d bytes at %d: got %d, %v", len(data), off, n, err)
	}
}

func read(t *testing.T, f blobstore.File, n int, off int64) []byte {
	t.Helper()
	p := make([]byte, n)
	got, err := f.ReadAt(t.Context(), p, off)
	if err != nil {
		t.Fatal(err)
	}
	return p[:got]
}

func noise(n int, seed uint64) []byte {
	p := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

func TestAFileFarLargerThanTheBudgetIsWrittenAndReadWhole(t *testing.T) {
	url := newStore(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{PendingBytes: 512 << 10, ReadAheadBytes: 2 << 20})
	file, ino := create(t, d, "video")
	data := noise(24<<20+12345, 1)
	for off := 0; off < len(data); off += 100_000 { // not a multiple of anything
		write(t, file, data[off:min(off+100_000, len(data))], int64(off))
	}
	if err := file.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := d.PendingBytes(); n != 0 {
		t.Errorf("pending after Flush: got %d bytes, want 0", n)
	}
	again, err := d.Open(t.Context(), ino, blobstore.OpenRead)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	hash := sha256.New()
	for off := int64(0); ; {
		p := read(t, again, 128<<10, off)
		if len(p) == 0 {
			break
		}
		hash.Write(p)
		off += int64(len(p))
	}
	if got, want := [32]byte(hash.Sum(nil)), sha256.Sum256(data); got != want {
		t.Error("what is read is not what was written")
	}
}

func TestReadersSeeEveryWriteWhileItIsBeingStored(t *testing.T) {
	url := newStore(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{PendingBytes: 1 << 20})
	file, ino := create(t, d, "log")
	reader, err := d.Open(t.Context(), ino, blobstore.OpenRead)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for round := range 60 {
		block := bytes.Repeat([]byte{byte(round + 1)}, 300_000)
		write(t, file, block, 0)
		var g errgroup.Group
		g.Go(func() error { return file.Sync(t.Context()) })
		for range 20 {
			if got := read(t, reader, len(block), 0); !bytes.Equal(got, block) {
				t.Fatalf("round %d: read something older than what was written", round)
			}
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatCannotBeStoredIsReportedKeptAndStoredLater(t *testing.T) {
	url := newStore(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	file, ino := create(t, d, "photo")
	data := noise(700_000, 2)
	write(t, file, data[:400_000], 0)
	room := noRoom(t, url)
	if err := file.Flush(t.Context()); !errors.Is(err, blobstore.ErrNoSpace) {
		t.Errorf("flush: got %v, want %v", err, blobstore.ErrNoSpace)
	}
	if _, err := file.WriteAt(t.Context(), data[400_000:], 400_000); !errors.Is(err, blobstore.ErrNoSpace) {
		t.Errorf("write while nothing can be stored: got %v, want %v", err, blobstore.ErrNoSpace)
	}
	if got := read(t, file, len(data), 0); !bytes.Equal(got, data[:400_000]) {
		t.Error("what was written can't be read while it waits")
	}
	room()
	if err := file.Flush(t.Context()); err != nil {
		t.Fatalf("flush with space again: got %v", err)
	}
	write(t, file, data[400_000:], 400_000)
	if err := file.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := attach(t, url, d.Session(), pgstore.Options{})
	again, err := other.Open(t.Context(), ino, blobstore.OpenRead)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := read(t, again, len(data)+1, 0); !bytes.Equal(got, data) {
		t.Error("what another mount reads is not what was written")
	}
}

// noRoom has the database refuse new chunks until room is called.
func noRoom(t *testing.T, url string) (room func()) {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close(context.Background()) })
	run := func(sql string) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	run(`create function mediafs.no_space() returns trigger language plpgsql as $$ begin raise exception 'no space' using errcode = '53100'; end $$;
		create trigger no_space before insert on mediafs.chunks execute function mediafs.no_space()`)
	return func() { t.Helper(); run("drop trigger no_space on mediafs.chunks") }
}

func TestAFileThatCannotBeCutKeepsWhatWasWritten(t *testing.T) {
	url := newStore(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	file, ino := create(t, d, "photo")
	if err := file.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	data := noise(700_000, 3)
	write(t, file, data, 0)
	room := noRoom(t, url)
	if _, err := d.SetAttr(t.Context(), ino, blobstore.AttrChange{Set: blobstore.SetSize, Size: 100_000}); !errors.Is(err, blobstore.ErrNoSpace) {
		t.Errorf("cut while nothing can be stored: got %v, want %v", err, blobstore.ErrNoSpace)
	}
	isWhole := func(when string) {
		t.Helper()
		attr, err := d.Attr(t.Context(), ino)
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, file, len(data)+1, 0); attr.Size != int64(len(data)) || !bytes.Equal(got, data) {
			t.Errorf("%s: the size is %d, and %d bytes can be read, want the %d that were written", when, attr.Size, len(got), len(data))
		}
	}
	isWhole("after a cut that failed")
	room()
	if err := file.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	isWhole("stored after a cut that failed")
	if _, err := d.SetAttr(t.Context(), ino, blobstore.AttrChange{Set: blobstore.SetSize, Size: 100_000}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, file, len(data), 0); !bytes.Equal(got, data[:100_000]) {
		t.Errorf("%d bytes can be read of a file cut to 100,000, or others", len(got))
	}
}

func TestManySmallWritesIntoOneChunkArriveAsWritten(t *testing.T) {
	url := newStore(t)
	session := signIn(t, url, "alice")
	d := attach(t, url, session, pgstore.Options{})
	file, ino := create(t, d, "database")
	want := noise(1<<20, 3)
	write(t, file, want, 0)
	if err := file.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(4, 0))
	for i := range 400 {
		patch := noise(1+r.IntN(5000), uint64(i))
		off := r.IntN(len(want) - len(patch))
		copy(want[off:], patch)
		write(t, file, patch, int64(off))
		if i%37 == 0 {
			if err := file.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := file.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := attach(t, url, session, pgstore.Options{})
	again, err := other.Open(t.Context(), ino, blobstore.OpenRead)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := read(t, again, len(want), 0); !bytes.Equal(got, want) {
		t.Error("what is stored is not what was written")
	}
}

func TestPiecesOfChunksOfEveryKindAreStoredTogether(t *testing.T) {
	const chunk = 64 << 10
	url := newStore(t)
	session := signIn(t, url, "alice")
	d := attach(t, url, session, pgstore.Options{})
	file, ino := create(t, d, "database")
	want := make([]byte, 6*chunk+3000)
	put := func(off, n int) {
		patch := noise(n, uint64(off))
		copy(want[off:], patch)
		write(t, file, patch, int64(off))
	}
	store := func() {
		t.Helper()
		if err := file.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	put(0, 3*chunk)        // three whole chunks
	put(4*chunk, 1000)     // a hole before it, a chunk that is shorter than the others
	put(5*chunk+100, 1000) // likewise, and the file's end
	store()
	put(100, 4096)         // within a chunk
	put(chunk+5, 10)       // two pieces of a chunk
	put(chunk+9000, 10)    //
	put(2*chunk, chunk)    // all of it
	put(3*chunk+7, 20)     // of the hole
	put(4*chunk+900, 200)  // across the end of what is there of the chunk
	put(5*chunk+5000, 200) // past it
	put(6*chunk, 3000)     // the new end
	store()

	other := attach(t, url, session, pgstore.Options{})
	again, err := other.Open(t.Context(), ino, blobstore.OpenRead)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := read(t, again, len(want)+1, 0); !bytes.Equal(got, want) {
		t.Error("what is stored is not what was written")
	}
	isWhole(t, url)
}

func TestOperationsWaitForADatabaseThatComesBack(t *testing.T) {
	cluster := pgtest.NewCluster(t)
	url := cluster.URL("postgres")
	if _, err := pgstore.Init(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	file, ino := create(t, d, "kept")
	if err := file.Sync(t.Context()); err != nil { // that it was made could be undone by the crash
		t.Fatal(err)
	}
	data := noise(300_000, 5)
	write(t, file, data, 0)
	if err := cluster.Stop(pgtest.Immediate); err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g.Go(func() error { return file.Flush(ctx) })
	g.Go(func() error { _, err := d.Attr(ctx, blobstore.RootIno); return err })
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(); err != nil {
		t.Fatalf("what waited for the database: got %v", err)
	}
	again, err := d.Open(ctx, ino, blobstore.OpenRead)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := read(t, again, len(data), 0); !bytes.Equal(got, data) {
		t.Error("what is read is not what was written")
	}
}

func TestAnOperationEndsAtItsDeadlineWhileTheDatabaseIsAway(t *testing.T) {
	cluster := pgtest.NewCluster(t)
	url := cluster.URL("postgres")
	if _, err := pgstore.Init(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	root, err := d.Attr(t.Context(), blobstore.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Stop(pgtest.Immediate); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := d.Lookup(ctx, blobstore.RootIno, "anything"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("lookup: got %v, want %v", err, context.DeadlineExceeded)
	}
	if got, err := d.Attr(t.Context(), blobstore.RootIno); got != root || err != nil { // what is known answers
		t.Errorf("attributes that are known: got %+v, %v, want %+v", got, err, root)
	}
	if _, err := d.Attr(ctx, 4711); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("attributes that are not: got %v, want %v", err, context.DeadlineExceeded)
	}
	if _, err := d.Usage(t.Context()); err != nil { // answers with what it last heard
		t.Errorf("usage: got %v", err)
	}
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
}

func TestAWriterThatWaitsForMemoryIsToldWhyThereIsNone(t *testing.T) {
	url := newStore(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{PendingBytes: 256 << 10})
	admin, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	if _, err := admin.Exec(t.Context(), `create function mediafs.no_space() returns trigger language plpgsql as $$ begin raise exception 'no space' using errcode = '53100'; end $$;
		create trigger no_space before insert on mediafs.chunks execute function mediafs.no_space()`); err != nil {
		t.Fatal(err)
	}
	file, _ := create(t, d, "video")
	for off := int64(0); ; off += 64 << 10 {
		if _, err = file.WriteAt(t.Context(), noise(64<<10, 1), off); err != nil || off > 1<<20 {
			break
		}
	}
	if !errors.Is(err, blobstore.ErrNoSpace) {
		t.Errorf("got %v, want %v", err, blobstore.ErrNoSpace)
	}
	if _, err := admin.Exec(t.Context(), "drop trigger no_space on mediafs.chunks"); err != nil {
		t.Fatal(err)
	}
}

func TestAFileWhoseMakingACrashUndidIsNeverSaidToBeStored(t *testing.T) {
	url := newStore(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	admin, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	for _, background := range []bool{false, true} {
		file, ino := create(t, d, "lost")
		write(t, file, []byte("content"), 0)
		if _, err := admin.Exec(t.Context(), "with e as (delete from mediafs.entries where ino = $1) delete from mediafs.nodes where ino = $1", int64(ino)); err != nil {
			t.Fatal(err)
		}
		if background { // finds it out first
			if err := file.(*pgstore.File).StoreEverything(t.Context()); !errors.Is(err, blobstore.ErrStale) {
				t.Errorf("store: got %v, want %v", err, blobstore.ErrStale)
			}
		}
		for range 2 {
			if err := file.Flush(t.Context()); !errors.Is(err, blobstore.ErrStale) {
				t.Errorf("flush, found out in the background before: %v: got %v, want %v", background, err, blobstore.ErrStale)
			}
		}
	}
}

func TestAnAnswerFromBeforeAStoreIsNotTakenForTheLatest(t *testing.T) {
	url := newStore(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	file, ino := create(t, d, "log")
	for i := range 300 {
		write(t, file, []byte{byte(i)}, int64(i))
		written, err := d.Attr(t.Context(), ino)
		if err != nil {
			t.Fatal(err)
		}
		var g errgroup.Group
		g.Go(func() error { return file.(*pgstore.File).StoreEverything(t.Context()) })
		g.Go(func() error {
			got, err := d.SetAttr(t.Context(), ino, blobstore.AttrChange{Set: blobstore.SetMode, Mode: 0o600 | uint32(i)&7})
			if err == nil && (got.Size != written.Size || got.MtimeNs != written.MtimeNs) {
				t.Errorf("round %d: got size %d and mtime %d, want %d and %d", i, got.Size, got.MtimeNs, written.Size, written.MtimeNs)
			}
			return err
		})
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhoOpensOrListsAFileWhileItIsStoredSeesAllOfIt(t *testing.T) {
	url := newStore(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	file, ino := create(t, d, "log")
	for i := range 300 {
		write(t, file, []byte{byte(i)}, int64(i))
		var g errgroup.Group
		g.Go(func() error { return file.(*pgstore.File).StoreEverything(t.Context()) })
		g.Go(func() error {
			again, err := d.Open(t.Context(), ino, blobstore.OpenRead)
			if err != nil {
				return err
			}
			if got := len(read(t, again, 1000, 0)); got != i+1 {
				t.Errorf("round %d: who opens it reads %d bytes of %d", i, got, i+1)
			}
			return again.Close()
		})
		g.Go(func() error {
			list, err := d.OpenDir(t.Context(), blobstore.RootIno)
			if err != nil {
				return err
			}
			return errors.Join(list.Read(t.Context(), 0, true, func(e *blobstore.Entry) bool {
				if e.Name == "log" && e.Complete && e.Attr.Size != int64(i+1) {
					t.Errorf("round %d: listed with %d bytes of %d", i, e.Attr.Size, i+1)
				}
				return true
			}), list.Close())
		})
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEachOfTwoFlushesAtOnceWaitsUntilTheDataIsStored(t *testing.T) {
	url := newStore(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	file, ino := create(t, d, "file")
	if err := file.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(t, file, []byte("content"), 0)
	admin, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	tx, err := admin.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "select from mediafs.nodes where ino = $1 for update", int64(ino)); err != nil {
		t.Fatal(err) // whoever stores the file waits for this
	}
	returned := make(chan error, 2)
	for range 2 {
		go func() { returned <- file.Flush(t.Context()) }()
	}
	// The first is under way when the database has somebody waiting. The second has nothing else to do then but to return, or wait.
	for waiting := 0; waiting == 0; {
		if err := tx.QueryRow(t.Context(), "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'").Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := file.Flush(short); !errors.Is(err, context.DeadlineExceeded) { // a third shows what they do
		t.Errorf("flush while another is under way: got %v, want %v", err, context.DeadlineExceeded)
	}
	if n := len(returned); n != 0 {
		t.Errorf("%d of two have returned before anything was stored", n)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-returned; err != nil {
			t.Error(err)
		}
	}
}

// An answer of before a file was removed may come after that of the removal: what is pending of the file is dropped all the same when it is closed.
func TestAnAnswerOfBeforeAnUnlinkBringsNothingBack(t *testing.T) {
	url := newStore(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	f, ino := create(t, d, "file")
	ok(t, f.Sync(t.Context()))
	before, err := d.Attr(t.Context(), ino)
	ok(t, err)
	write(t, f, []byte("pending"), 0)
	ok(t, d.Unlink(t.Context(), blobstore.RootIno, "file"))
	f.(*pgstore.File).HearAgain(before)
	ok(t, f.Close())
	if n := d.PendingBytes(); n != 0 {
		t.Errorf("%d bytes of a file that is gone are pending", n)
	}
}
