package pgstore_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
)

// What a file grows by is stored in several transactions at a time, of two mounts here. Each chunk is one mount's, and counts once.
func TestTwoMountsThatStoreTheSameNewChunksCountThemOnce(t *testing.T) {
	url := newStore(t)
	session := signIn(t, url, "alice")
	one, two := attach(t, url, session, pgstore.Options{}), attach(t, url, session, pgstore.Options{})
	first, ino := create(t, one, "shared")
	ok(t, first.Sync(t.Context()))
	second, err := two.Open(t.Context(), ino, writable)
	ok(t, err)
	const size = 8 << 20
	contents := [][]byte{noise(size, 1), noise(size, 2)}
	for round := range int64(3) {
		var storing sync.WaitGroup
		for i, f := range []blobstore.File{first, second} {
			write(t, f, contents[i], round*size)
			storing.Go(func() {
				if err := f.Sync(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		storing.Wait()
	}
	ok(t, errors.Join(first.Close(), second.Close()))
	file, err := attach(t, url, session, pgstore.Options{}).Open(t.Context(), ino, blobstore.OpenRead)
	ok(t, err)
	const chunk = 64 << 10
	for off := int64(0); off < 3*size; off += chunk {
		got, at := read(t, file, chunk, off), off%size
		if !bytes.Equal(got, contents[0][at:at+chunk]) && !bytes.Equal(got, contents[1][at:at+chunk]) {
			t.Errorf("the chunk at %d is neither mount's", off)
		}
	}
	ok(t, file.Close())
	if findings, report := checkStore(t, url, false); len(findings) > 0 {
		t.Errorf("found %+v, %+v", findings, report)
	}
}

// A file that another mount cuts while it grows has what was stored after the last cut, and nothing is counted that is not there.
func TestAFileThatIsCutWhileItGrowsIsWhole(t *testing.T) {
	url := newStore(t)
	session := signIn(t, url, "alice")
	one, two := attach(t, url, session, pgstore.Options{}), attach(t, url, session, pgstore.Options{})
	file, ino := create(t, one, "shared")
	ok(t, file.Sync(t.Context()))
	grown := make(chan struct{})
	var cutting sync.WaitGroup
	cutting.Go(func() {
		for size := int64(0); ; size = 3<<20 - size {
			if _, err := two.SetAttr(t.Context(), ino, blobstore.AttrChange{Set: blobstore.SetSize, Size: size}); err != nil {
				t.Error(err)
			}
			select {
			case <-grown:
				return
			default:
			}
		}
	})
	content := noise(10<<20, 1)
	write(t, file, content, 0)
	err := file.Sync(t.Context())
	close(grown)
	cutting.Wait()
	ok(t, err)
	write(t, file, content, 0)
	ok(t, errors.Join(file.Sync(t.Context()), file.Close()))
	again, err := two.Open(t.Context(), ino, blobstore.OpenRead)
	ok(t, err)
	if got := read(t, again, len(content), 0); !bytes.Equal(got, content) {
		t.Error("the file does not hold what was written last")
	}
	ok(t, again.Close())
	if findings, report := checkStore(t, url, false); len(findings) > 0 {
		t.Errorf("found %+v, %+v", findings, report)
	}
}

// What a file grows by is let go when the disk has all of it: a crash that takes back some of it, stored and not yet waited for, takes nothing away.
func TestWhatACrashTookBackOfAGrowingFileIsStoredAgain(t *testing.T) {
	url, crash := crashing(t)
	admin, err := pgx.Connect(t.Context(), url)
	ok(t, err)
	for _, sql := range []string{
		"alter system set wal_writer_flush_after = '1GB'", // not earlier either
		"select pg_reload_conf()",
		// Who waits for the disk is held up before that for as long as somebody holds the lock.
		`create function public.hold() returns trigger language plpgsql as $$ begin
			if new.seen_at = old.seen_at then perform pg_advisory_xact_lock(4711); end if; return new; end $$`,
		"create trigger holds before update on mediafs.mounts for each row execute function public.hold()",
	} {
		_, err := admin.Exec(t.Context(), sql)
		ok(t, err)
	}
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	file, ino := create(t, d, "file")
	ok(t, file.Sync(t.Context()))
	_, err = admin.Exec(t.Context(), "select pg_advisory_lock(4711)")
	ok(t, err)
	content := noise(16<<20, 1)
	write(t, file, content, 0)
	synced := make(chan error, 1)
	go func() { synced <- file.Sync(t.Context()) }()
	for waiting := 0; waiting == 0; {
		ok(t, admin.QueryRow(t.Context(), "select count(*) from pg_locks where locktype = 'advisory' and not granted and objid = 4711").Scan(&waiting))
		select {
		case err := <-synced:
			t.Fatalf("synced without waiting for the disk: %v", err)
		default:
		}
	}
	crash()
	ok(t, <-synced)
	crash()
	other, err := attach(t, url, d.Session(), pgstore.Options{}).Open(t.Context(), ino, blobstore.OpenRead)
	ok(t, err)
	if got := read(t, other, len(content), 0); !bytes.Equal(got, content) {
		t.Error("the file does not hold what was synced")
	}
	ok(t, errors.Join(other.Close(), file.Close()))
}
