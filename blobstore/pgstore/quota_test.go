package pgstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
	"mediafs/blobstore/pgstore/pgtest"
)

func setQuota(t *testing.T, url string, drive blobstore.DriveName, maxBytes, maxFiles int64) {
	t.Helper()
	ok(t, pgstore.SetQuota(t.Context(), url, drive, maxBytes, maxFiles))
}

// used is what a drive holds by its usage.
func used(t *testing.T, url string, drive blobstore.DriveName) blobstore.Quota {
	t.Helper()
	list, err := pgstore.Quotas(t.Context(), url)
	ok(t, err)
	i := slices.IndexFunc(list, func(q blobstore.Quota) bool { return q.Drive == drive })
	if i < 0 {
		t.Fatalf("no drive %s in %+v", drive, list)
	}
	return list[i]
}

// Whoever has the mounting login and a session of the drive's owner does not get round its quota.
func TestNoStatementGetsRoundAQuota(t *testing.T) {
	h := newHousehold(t)
	setQuota(t, h.url, "alice", 100_000, 5)
	before := used(t, h.url, "alice")
	a := h.attacker(t, h.alice.Token.Reveal(), "")
	d := fmt.Sprint(h.aliceDrive)
	for _, sql := range []string{
		"update mediafs.usage set bytes = 0, nodes = 0 where drive_id = " + d,
		"update mediafs.usage set limited = false where drive_id = " + d,
		"delete from mediafs.usage where drive_id = " + d,
		"insert into mediafs.usage (drive_id, slot, bytes) values (" + d + ", 0, -1000000)",
		"update mediafs.drives set max_bytes = 0 where drive_id = " + d,
		"insert into mediafs.chunks (drive_id, blob, idx, data) values (" + d + ", 999, 0, 'uncounted')",
		"update mediafs.chunks set data = data || data where drive_id = " + d,
		"insert into mediafs.nodes (drive_id, ino, uid, gid, atime_ns, mtime_ns, ctime_ns, mode, nlink) values (" + d + ", 999, 0, 0, 0, 0, 0, 33152, 1)",
		"update mediafs.nodes set allocated = 1000000 where drive_id = " + d,
		"insert into mediafs.removed (drive_id, blob, ino, mount_id) values (" + d + ", 999, 999, gen_random_uuid())",
		"select mediafs.charge(" + d + ", -1000000, -100)",
		"select mediafs.collect_admitted(" + d + ", '{16}', 100)",
		"select mediafs.copy_admitted(" + d + ", 16, 0, 100, 16, 0, 0, 65536)",
		"select mediafs.limit_drive('alice', 0, 0)",
		"select mediafs.set_quota('" + h.alice.Token.Reveal() + "', 'alice', 0, 0)",
		"select mediafs.all_quotas(null)",
		"alter policy worker_update on mediafs.usage with check (true)",
		"select mediafs.may_hold(" + d + ", 0::smallint, 0, 0)",
	} {
		if _, err := a.rows(sql); !slices.Contains(refusals, code(err)) {
			t.Errorf("%s: got %v", sql, err)
		}
	}
	put := "mediafs.make_file(" + d + ", 1, '%s', %d, 33152, 0, 0, '{0}', array[decode(repeat('00', 60000), 'hex')], 60000, 0, 0, 0, 0)"
	for _, sql := range []string{
		"begin; select " + fmt.Sprintf(put, "a", 1001) + "; select " + fmt.Sprintf(put, "b", 1002) + "; commit",
		"begin; set constraints all deferred; savepoint s; select " + fmt.Sprintf(put, "a", 1001) + "; select " + fmt.Sprintf(put, "b", 1002) + "; release s; commit",
		"begin isolation level repeatable read; select " + fmt.Sprintf(put, "a", 1001) + "; commit",
		"begin isolation level serializable; select " + fmt.Sprintf(put, "a", 1001) + "; commit",
	} {
		_, err := a.rows(sql)
		if c := code(err); c != "MF122" && c != "0A000" {
			t.Errorf("%s: got %v", sql, err)
		}
		_, _ = a.Exec(t.Context(), "rollback")
	}
	if after := used(t, h.url, "alice"); after != before {
		t.Errorf("got %+v, was %+v", after, before)
	}
	if _, err := a.rows("select " + fmt.Sprintf(put, "a", 1001)); err != nil {
		t.Errorf("what fits: got %v", err)
	}
}

// Transactions at once, each of its own connection, fill a drive to its limit and never past it.
func TestAQuotaIsExactHoweverManyAddAtOnce(t *testing.T) {
	h := newHousehold(t)
	before := used(t, h.url, "alice")
	setQuota(t, h.url, "alice", before.UsedBytes+50*100, before.UsedFiles+1000)
	var made atomic.Int64
	var wait sync.WaitGroup
	for i := range 12 {
		a := h.attacker(t, h.alice.Token.Reveal(), "")
		wait.Go(func() {
			for j := range 10 {
				ino := 10_000 + 100*i + j
				_, err := a.Exec(context.Background(), fmt.Sprintf("select mediafs.make_file(%d, 1, '%d', %d, 33152, 0, 0, '{0}', array[decode(repeat('00', 100), 'hex')], 100, 0, 0, 0, 0)",
					h.aliceDrive, ino, ino))
				if err == nil {
					made.Add(1)
				} else if code(err) != "MF122" {
					t.Errorf("got %v", err)
				}
			}
		})
	}
	wait.Wait()
	if after := used(t, h.url, "alice"); made.Load() != 50 || after.UsedBytes != after.MaxBytes || after.UsedFiles != before.UsedFiles+50 {
		t.Errorf("made %d, want 50: %+v", made.Load(), after)
	}
}

// A limit is set between transactions, not in the middle of one that has not looked at it.
func TestAQuotaWaitsForWhoAddsMeanwhile(t *testing.T) {
	h := newHousehold(t)
	a := h.attacker(t, h.alice.Token.Reveal(), "")
	if _, err := a.rows("begin"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.rows(fmt.Sprintf("select mediafs.make(%d, 1, 'folder of a transaction', 1001, 16832, 0, 0, 0, null, 0)", h.aliceDrive)); err != nil {
		t.Fatal(err)
	}
	set := make(chan error, 1)
	go func() { set <- pgstore.SetQuota(context.Background(), h.url, "alice", 0, 1) }()
	for deadline := time.Now().Add(10 * time.Second); ; {
		n, err := h.count(t, h.url, "", "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%limit_drive%'")
		ok(t, err)
		if n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the limit is not waited for")
		}
	}
	if _, err := a.rows("commit"); err != nil {
		t.Errorf("commit: %v", err)
	}
	ok(t, <-set)
	if _, err := a.rows(fmt.Sprintf("select mediafs.make(%d, 1, 'one more', 1002, 16832, 0, 0, 0, null, 0)", h.aliceDrive)); code(err) != "MF122" {
		t.Errorf("got %v", err)
	}
}

// While there is room a quota costs nothing, and where there is none it is the database that says so.
func TestAQuotaIsForeseenWithoutAskingForIt(t *testing.T) {
	pgstore.MakeWithin(t, time.Hour)
	url := newStore(t)
	session := signIn(t, url, "alice")
	tap, address := pgtest.NewTap(t, url)
	d := attach(t, address, session, pgstore.Options{})
	setQuota(t, url, "alice", 64<<20, 1000)
	ok(t, d.AskQuota(t.Context()))
	d.HoldSole()
	list, err := d.OpenDir(t.Context(), blobstore.RootIno) // so that free names are known
	ok(t, err)
	ok(t, list.Read(t.Context(), 0, true, func(*blobstore.Entry) bool { return true }))
	f, _ := create(t, d, "file")
	data := noise(32<<10, 1)
	costs := func(do func()) (names []string) {
		for _, trip := range tap.During(do) {
			if !slices.Contains(notOfAnOperation, trip.Name()) {
				names = append(names, trip.Name())
			}
		}
		return names
	}
	if got := costs(func() { write(t, f, data, 0) }); len(got) > 0 {
		t.Errorf("writing costs %q", got)
	}
	ok(t, f.Sync(t.Context()))

	q := used(t, url, "alice")
	setQuota(t, url, "alice", q.UsedBytes+10_000, 1000)
	ok(t, d.AskQuota(t.Context()))
	got := costs(func() {
		n, err := f.WriteAt(t.Context(), data, int64(len(data)))
		if n != 10_000 || err != nil {
			t.Errorf("wrote %d bytes, %v, and 10,000 fit", n, err)
		}
		if _, err := f.WriteAt(t.Context(), data, int64(len(data)+n)); !errors.Is(err, blobstore.ErrQuota) {
			t.Errorf("one byte more: got %v", err)
		}
	})
	if len(got) == 0 {
		t.Error("writing to the last byte costs nothing: who has counted?")
	}
	write(t, f, data, 0) // over what is there
	ok(t, f.Sync(t.Context()))
	if q := used(t, url, "alice"); q.UsedBytes != q.MaxBytes {
		t.Errorf("got %+v", q)
	}
	want := append(slices.Clone(data), data[:10_000]...)
	if got := read(t, f, 1<<20, 0); !bytes.Equal(got, want) {
		t.Errorf("the file has %d bytes, want the %d that were written", len(got), len(want))
	}
}

// New files that are known to their mount alone have their room: another node does not take it.
func TestNewFilesKeepTheirRoom(t *testing.T) {
	pgstore.MakeWithin(t, time.Hour)
	url := newStore(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	setQuota(t, url, "alice", 0, 3)
	ok(t, d.AskQuota(t.Context()))
	d.HoldSole()
	folder, err := d.Make(t.Context(), blobstore.RootIno, "folder", blobstore.NewNode{Mode: unix.S_IFDIR | 0o700})
	ok(t, err)
	free(t, d, 2)
	var files []blobstore.File
	for _, name := range []string{"one", "two"} {
		f, _, _, err := d.Create(t.Context(), folder.Ino, name, blobstore.NewNode{Mode: 0o600}, writable)
		ok(t, err)
		files = append(files, f)
	}
	free(t, d, 0)
	if _, err := d.Make(t.Context(), folder.Ino, "three", blobstore.NewNode{Mode: unix.S_IFDIR | 0o700}); !errors.Is(err, blobstore.ErrQuota) {
		t.Errorf("got %v", err)
	}
	if _, _, _, err := d.Create(t.Context(), folder.Ino, "three", blobstore.NewNode{Mode: 0o600}, writable); !errors.Is(err, blobstore.ErrQuota) {
		t.Errorf("got %v", err)
	}
	for _, f := range files {
		ok(t, f.Flush(t.Context()))
		ok(t, f.Close())
	}
	ok(t, d.Unlink(t.Context(), folder.Ino, "one"))
	free(t, d, 1)
}

// free wants the drive to tell that n more files fit.
func free(t *testing.T, d blobstore.Drive, n int64) {
	t.Helper()
	if u, err := d.Usage(t.Context()); err != nil || u.FreeFiles != n {
		t.Errorf("got %+v, %v, want %d files free", u, err, n)
	}
}

// A limit that is set after a new file was made here, and before the database has it: whoever closes it is told, and it can be removed.
func TestAQuotaThatComesBeforeANewFileIsMade(t *testing.T) {
	for what, limit := range map[string][2]int64{"bytes": {1000, 0}, "files": {0, 1}} {
		t.Run(what, func(t *testing.T) {
			pgstore.MakeWithin(t, time.Hour)
			url := newStore(t)
			d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
			d.HoldSole()
			folder, err := d.Make(t.Context(), blobstore.RootIno, "folder", blobstore.NewNode{Mode: unix.S_IFDIR | 0o700})
			ok(t, err)
			f, _, _, err := d.Create(t.Context(), folder.Ino, "file", blobstore.NewNode{Mode: 0o600}, writable)
			ok(t, err)
			write(t, f, noise(5000, 1), 0)
			setQuota(t, url, "alice", limit[0], limit[1])
			if err := f.Flush(t.Context()); !errors.Is(err, blobstore.ErrQuota) {
				t.Errorf("close: got %v", err)
			}
			ok(t, f.Close())
			if err := d.Unlink(t.Context(), folder.Ino, "file"); err != nil && !errors.Is(err, blobstore.ErrNotExist) {
				t.Errorf("remove: got %v", err)
			}
			ok(t, d.Rmdir(t.Context(), blobstore.RootIno, "folder"))
			for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) { // the rest is done in the background
				pending, q := d.PendingBytes(), used(t, url, "alice")
				if pending == 0 && q.UsedBytes == 0 && q.UsedFiles == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%d bytes are pending, and the drive holds %+v", pending, q)
				}
			}
		})
	}
}

// With what can't be stored pending, a file can be cut, and goes on when there is room.
func TestAFileWithWhatDoesNotFitCanBeCut(t *testing.T) {
	url := newStore(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	f, ino := create(t, d, "file")
	ok(t, f.Sync(t.Context()))
	write(t, f, noise(5000, 1), 0)
	setQuota(t, url, "alice", 1000, 0)
	if err := f.Flush(t.Context()); !errors.Is(err, blobstore.ErrQuota) {
		t.Errorf("close: got %v", err)
	}
	if _, err := f.WriteAt(t.Context(), []byte("more"), 5000); !errors.Is(err, blobstore.ErrQuota) {
		t.Errorf("write: got %v", err)
	}
	attr, err := d.SetAttr(t.Context(), ino, blobstore.AttrChange{Set: blobstore.SetSize, Size: 800})
	if err != nil || attr.Size != 800 {
		t.Fatalf("cut: got %+v, %v", attr, err)
	}
	ok(t, f.Flush(t.Context()))
	write(t, f, []byte("more"), 800)
	ok(t, f.Flush(t.Context()))
	want := append([]byte{}, noise(5000, 1)[:800]...)
	want = append(want, "more"...)
	if got := read(t, f, 10_000, 0); !bytes.Equal(got, want) {
		t.Errorf("the file has %d bytes, want %d", len(got), len(want))
	}
	if q := used(t, url, "alice"); q.UsedBytes != 804 {
		t.Errorf("the drive holds %+v", q)
	}
}

// All of 10,000 drives are one question.
func TestTheQuotasOfManyDrivesAreOneQuestion(t *testing.T) {
	url := newStore(t)
	admin := signInAs(t, url, "ada", auth.RoleAdmin)
	h := household{url: url}
	ok(t, h.exec(t, url, "", `insert into mediafs.drives (owner, chunk_size) select 'user' || to_char(i, 'FM00000'), 65536 from generate_series(1, 10000) i;
		insert into mediafs.usage (drive_id, slot, bytes, nodes) select d.drive_id, s, d.drive_id, 1 from mediafs.drives d, generate_series(0, 7) s where d.owner is not null; analyze mediafs.usage, mediafs.drives`))
	tap, address := pgtest.NewTap(t, url)
	store, err := pgstore.Open(t.Context(), address, pgstore.Options{})
	ok(t, err)
	defer store.Close()
	_, err = store.Quotas(t.Context(), admin)
	ok(t, err)
	var list []blobstore.Quota
	trips := tap.During(func() { list, err = store.Quotas(t.Context(), admin) })
	if err != nil || len(trips) != 1 || len(list) != 10_001 || list[0].Drive != "public" || list[1].Drive != "user00001" || list[1].UsedFiles != 8 {
		t.Errorf("got %d drives in %d round trips, %v", len(list), len(trips), err)
	}
}

// What does not fit of a file that is removed keeps no drive from being closed.
func TestADriveClosesWithWhatDoesNotFitOfARemovedFile(t *testing.T) {
	url := newStore(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	f, _ := create(t, d, "file")
	ok(t, f.Sync(t.Context()))
	write(t, f, noise(5000, 1), 0)
	setQuota(t, url, "alice", 1000, 0)
	ok(t, d.Unlink(t.Context(), blobstore.RootIno, "file"))
	ok(t, d.Close(t.Context())) // with the file open
}
