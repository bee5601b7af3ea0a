package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
	"mediafs/blobstore/pgstore/pgtest"
)

// benchDrive is a new drive with chunks of a size.
func benchDrive(b *testing.B, chunk int) blobstore.Drive {
	b.Helper()
	return benchDriveAt(b, pgtest.NewCluster(b).URL("postgres"), chunk) // commits wait for the disk there
}

func benchDriveAt(b *testing.B, url string, chunk int) blobstore.Drive {
	b.Helper()
	ctx := context.Background()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	_, err := pgstore.Init(ctx, url)
	must(err)
	accounts, err := pgstore.OpenAccounts(ctx, url)
	must(err)
	token, err := accounts.Add(ctx, "alice", auth.RoleUser)
	must(err)
	must(accounts.Close())
	store, err := pgstore.Open(ctx, url, pgstore.Options{ChunkSize: chunk})
	must(err)
	drive, err := store.Open(ctx, auth.Session{User: "alice", Role: auth.RoleUser, Token: token})
	must(err)
	b.Cleanup(func() {
		must(drive.Close(ctx))
		must(store.Close())
	})
	return drive
}

func benchFile(b *testing.B, d blobstore.Drive, name string) (blobstore.File, blobstore.Ino) {
	b.Helper()
	file, attr, _, err := d.Create(context.Background(), blobstore.RootIno, name, blobstore.NewNode{Mode: unix.S_IFREG | 0o600}, writable)
	if err != nil {
		b.Fatal(err)
	}
	return file, attr.Ino
}

// fill writes n bytes in pieces as the kernel gives them, and makes them durable.
func fill(b *testing.B, f blobstore.File, data []byte, n int64) {
	b.Helper()
	for off := int64(0); off < n; off += int64(len(data)) {
		if _, err := f.WriteAt(context.Background(), data, off); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkChunkSize is what the size of chunks was chosen by.
func BenchmarkChunkSize(b *testing.B) {
	const size = 128 << 20
	data := noise(1<<20, 1)
	ctx := context.Background()
	for _, chunk := range []int{16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dK", chunk>>10), func(b *testing.B) {
			b.Run("write", func(b *testing.B) {
				d := benchDrive(b, chunk)
				b.SetBytes(size)
				for i := 0; b.Loop(); i++ {
					f, _ := benchFile(b, d, fmt.Sprint("video", i))
					fill(b, f, data, size)
					f.Close()
				}
			})
			b.Run("read", func(b *testing.B) {
				d := benchDrive(b, chunk)
				f, ino := benchFile(b, d, "video")
				fill(b, f, data, size)
				f.Close()
				b.SetBytes(size)
				p := make([]byte, 128<<10)
				for b.Loop() {
					f, err := d.Open(ctx, ino, blobstore.OpenRead)
					if err != nil {
						b.Fatal(err)
					}
					for off := int64(0); off < size; off += int64(len(p)) {
						if n, err := f.ReadAt(ctx, p, off); err != nil || n != len(p) {
							b.Fatal(n, err)
						}
					}
					f.Close()
				}
			})
			b.Run("read-4K-random", func(b *testing.B) {
				d := benchDrive(b, chunk)
				f, _ := benchFile(b, d, "video")
				fill(b, f, data, size)
				p := make([]byte, 4096)
				for b.Loop() {
					if _, err := f.ReadAt(ctx, p, rand.Int64N(size/4096)*4096); err != nil {
						b.Fatal(err)
					}
				}
				f.Close()
			})
			b.Run("write-500x4K-random-sync", func(b *testing.B) {
				d := benchDrive(b, chunk)
				f, _ := benchFile(b, d, "video")
				fill(b, f, data, size)
				for b.Loop() {
					for range 500 {
						if _, err := f.WriteAt(ctx, data[:4096], rand.Int64N(size/4096)*4096); err != nil {
							b.Fatal(err)
						}
					}
					if err := f.Sync(ctx); err != nil {
						b.Fatal(err)
					}
				}
				f.Close()
			})
			b.Run("create-4K-close", func(b *testing.B) {
				d := benchDrive(b, chunk)
				for i := 0; b.Loop(); i++ {
					f, _ := benchFile(b, d, fmt.Sprint("note", i))
					if _, err := f.WriteAt(ctx, data[:4096], 0); err != nil {
						b.Fatal(err)
					}
					if err := f.Flush(ctx); err != nil {
						b.Fatal(err)
					}
					f.Close()
				}
			})
		})
	}
}

// serverTime is how long the server's processes for the mounts of a database have run on a processor of this machine.
func serverTime(b *testing.B, admin *pgx.Conn) (total time.Duration) {
	b.Helper()
	rows, err := admin.Query(context.Background(), "select pid from pg_stat_activity where application_name = 'mediafs' and datname = current_database()")
	if err != nil {
		b.Fatal(err)
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		b.Fatal(err)
	}
	for _, pid := range pids {
		var ran time.Duration
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := fmt.Sscan(string(stat), &ran); err != nil {
			b.Fatal(err)
		}
		total += ran
	}
	return total
}

// BenchmarkOperation is what one operation costs, each a round trip, and how much of that the server computes.
func BenchmarkOperation(b *testing.B) {
	ctx := context.Background()
	url := pgtest.NewCluster(b).URL("postgres")
	d := benchDriveAt(b, url, 64<<10)
	admin, err := pgx.Connect(ctx, url)
	if err != nil {
		b.Fatal(err)
	}
	defer admin.Close(ctx)
	for i := range 1000 {
		f, _ := benchFile(b, d, fmt.Sprint("there", i))
		f.Close()
	}
	run := func(name string, do func(i int) error) {
		b.Run(name, func(b *testing.B) {
			before := serverTime(b, admin)
			for i := 0; b.Loop(); i++ {
				if err := do(i); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((serverTime(b, admin)-before).Nanoseconds())/1e3/float64(b.N), "server-µs/op")
		})
	}
	var made int // names that no run before has used
	run("lookup", func(i int) error {
		_, err := d.Lookup(ctx, blobstore.RootIno, fmt.Sprint("there", i%1000))
		return err
	})
	run("attr", func(int) error { _, err := d.Attr(ctx, blobstore.RootIno); return err })
	run("mkdir", func(int) error {
		made++
		_, err := d.Make(ctx, blobstore.RootIno, fmt.Sprint("made", made), blobstore.NewNode{Mode: unix.S_IFDIR | 0o700})
		return err
	})
	root, err := d.OpenDir(ctx, blobstore.RootIno)
	if err != nil {
		b.Fatal(err)
	}
	defer root.Close()
	run("mkdir-fsync", func(int) error {
		made++
		_, err := d.Make(ctx, blobstore.RootIno, fmt.Sprint("made", made), blobstore.NewNode{Mode: unix.S_IFDIR | 0o700})
		return errors.Join(err, root.Sync(ctx))
	})
	run("chmod", func(i int) error {
		_, err := d.SetAttr(ctx, blobstore.RootIno, blobstore.AttrChange{Set: blobstore.SetMode, Mode: 0o700 | uint32(i)&7})
		return err
	})
	renamed := -1
	run("rename", func(int) error {
		renamed++
		i := renamed
		return d.Rename(ctx, blobstore.Rename{Parent: blobstore.RootIno, Name: fmt.Sprintf("there%d%s", i%1000, dots(i/1000)),
			NewParent: blobstore.RootIno, NewName: fmt.Sprintf("there%d%s", i%1000, dots(i/1000+1))})
	})
	run("make-unlink", func(i int) error {
		name := fmt.Sprint("gone", i)
		_, err := d.Make(ctx, blobstore.RootIno, name, blobstore.NewNode{Mode: unix.S_IFREG | 0o600})
		return errors.Join(err, d.Unlink(ctx, blobstore.RootIno, name))
	})
	run("mkdir-rmdir", func(i int) error {
		name := fmt.Sprint("gone", i)
		_, err := d.Make(ctx, blobstore.RootIno, name, blobstore.NewNode{Mode: unix.S_IFDIR | 0o700})
		return errors.Join(err, d.Rmdir(ctx, blobstore.RootIno, name))
	})
}

// BenchmarkTimeOfAccess opens, reads and closes files of 4 KiB, one after the other: leaving no trace, with times of access that are due
// each time, and with none that is. "again" reads a file that stays open. Storing the times is on the clock, once for all of them.
func BenchmarkTimeOfAccess(b *testing.B) {
	ctx := context.Background()
	const files = 2000
	d := benchDrive(b, 64<<10)
	var inos []blobstore.Ino
	for i := range files {
		f, ino := benchFile(b, d, fmt.Sprint("file", i))
		if _, err := f.WriteAt(ctx, make([]byte, 4096), 0); err != nil {
			b.Fatal(err)
		}
		if err := errors.Join(f.Flush(ctx), f.Close()); err != nil {
			b.Fatal(err)
		}
		inos = append(inos, ino)
	}
	p := make([]byte, 4096)
	readAll := func(b *testing.B, flags blobstore.OpenFlags) {
		for _, ino := range inos {
			f, err := d.Open(ctx, ino, blobstore.OpenRead|flags)
			if err != nil {
				b.Fatal(err)
			}
			if _, err = f.ReadAt(ctx, p, 0); errors.Join(err, f.Close()) != nil {
				b.Fatal(err)
			}
		}
		if err := d.(*pgstore.Drive).StoreAtimes(ctx); err != nil {
			b.Fatal(err)
		}
	}
	for _, way := range []struct {
		name  string
		flags blobstore.OpenFlags
		due   bool
	}{{"no-trace", blobstore.OpenNoAtime, false}, {"due", 0, true}, {"not-due", 0, false}} {
		b.Run(way.name, func(b *testing.B) {
			for b.Loop() {
				if way.due {
					b.StopTimer()
					for _, ino := range inos {
						if _, err := d.SetAttr(ctx, ino, blobstore.AttrChange{Set: blobstore.SetAtime, AtimeNs: 1}); err != nil {
							b.Fatal(err)
						}
					}
					b.StartTimer()
				}
				readAll(b, way.flags)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*files), "µs/file")
		})
	}
	for name, flags := range map[string]blobstore.OpenFlags{"again": 0, "again-no-trace": blobstore.OpenNoAtime} {
		b.Run(name, func(b *testing.B) {
			f, err := d.Open(ctx, inos[0], blobstore.OpenRead|flags)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			for b.Loop() {
				if _, err := f.ReadAt(ctx, p, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// dots tells the rounds of renaming apart.
func dots(n int) string { return fmt.Sprintf("%.*s", n%2, ".") }

// BenchmarkTokenCheck is one lookup in a drive, as the database answers it: without policies and without a token, then with the
// settings that carry a token, and then with policies that check it: an account's, and that of a session of Better Auth. There are
// ten thousand users.
func BenchmarkTokenCheck(b *testing.B) {
	ctx := context.Background()
	url := pgtest.NewCluster(b).URL("postgres")
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	admin, err := pgx.Connect(ctx, url)
	must(err)
	b.Cleanup(func() { must(admin.Close(ctx)) })
	exec := func(sql string) {
		b.Helper()
		_, err := admin.Exec(ctx, sql)
		must(err)
	}
	exec(`create table "user" (id text primary key, role text, banned boolean, "banExpires" timestamptz);
		create table "session" (id text primary key, token text unique not null, "userId" text not null references "user", "expiresAt" timestamptz not null);
		insert into "user" select 'member' || i, 'user' from generate_series(1, 10000) i;
		insert into "session" select 's' || i, lpad(i::text, 32, 'x'), 'member' || i, now() + interval '1 day' from generate_series(1, 10000) i`)
	_, err = pgstore.Init(ctx, url)
	must(err)
	exec(`insert into mediafs.accounts (user_id, role, token_hash) select 'user' || i, 'user', sha256(('mfs_' || i)::bytea) from generate_series(1, 10000) i;
		create role mount_login login in role mediafs`)
	tokens := map[string]string{"account": "mfs_5000", "session": strings.Repeat("x", 28) + "5000"}
	drives := map[string]int32{}
	for _, kind := range []string{"account", "session"} {
		var drive int32
		must(admin.QueryRow(ctx, "select drive_id from mediafs.open_drive($1, 65536, 0)", tokens[kind]).Scan(&drive))
		drives[kind] = drive
		exec(fmt.Sprintf(`insert into mediafs.nodes (drive_id, ino, uid, gid, atime_ns, mtime_ns, ctime_ns, mode, nlink) select %[1]d, 100 + i, 0, 0, 0, 0, 0, 33188, 1 from generate_series(1, 10000) i;
			insert into mediafs.entries (drive_id, parent, name, position, ino) select %[1]d, 1, i::text::bytea, 100 + i, 100 + i from generate_series(1, 10000) i`, drive))
	}
	exec("vacuum analyze")
	login, err := pgx.Connect(ctx, pgtest.Login(b, url, "mount_login"))
	must(err)
	b.Cleanup(func() { must(login.Close(ctx)) })

	lookup := func(b *testing.B, conn *pgx.Conn, kind string, settings bool) {
		i := 0
		for b.Loop() {
			i++
			batch := &pgx.Batch{}
			if settings {
				batch.Queue(pgstore.Begin, tokens[kind], "", "off")
			}
			batch.Queue(pgstore.LookupName, drives[kind], int64(1), fmt.Append(nil, i%10000+1))
			results := conn.SendBatch(ctx, batch)
			if settings {
				if _, err := results.Exec(); err != nil {
					b.Fatal(err)
				}
			}
			if tag, err := results.Exec(); err != nil || tag.RowsAffected() != 1 {
				b.Fatal(tag, err)
			}
			if err := results.Close(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("no policies, no token", func(b *testing.B) { lookup(b, admin, "account", false) })
	b.Run("no policies, token set", func(b *testing.B) { lookup(b, admin, "account", true) })
	b.Run("account", func(b *testing.B) { lookup(b, login, "account", true) })
	b.Run("session", func(b *testing.B) { lookup(b, login, "session", true) })
}

// BenchmarkAudit is what recording costs those who use a drive: opening 2,000 files, with every open recorded and without, and removing
// them, with the rows of their opens and without.
func BenchmarkAudit(b *testing.B) {
	const files = 2000
	ctx := context.Background()
	for _, recorded := range []bool{false, true} {
		b.Run(fmt.Sprintf("open-2000-recorded-%v", recorded), func(b *testing.B) {
			d := benchDrive(b, 64<<10)
			inos := make([]blobstore.Ino, files)
			for i := range inos {
				f, ino := benchFile(b, d, fmt.Sprint("photo", i))
				f.Close()
				inos[i] = ino
			}
			for b.Loop() {
				for i, ino := range inos {
					f, err := d.Open(ctx, ino, blobstore.OpenRead)
					if err != nil {
						b.Fatal(err)
					}
					if recorded {
						d.Record(blobstore.Event{Time: time.Now(), Action: blobstore.ActionOpen, Ino: ino, Path: fmt.Sprint("/photo", i), Count: 1, Result: blobstore.ResultOK})
					}
					f.Close()
				}
			}
		})
		b.Run(fmt.Sprintf("remove-recorded-%v", recorded), func(b *testing.B) {
			d := benchDrive(b, 64<<10)
			for b.Loop() {
				b.StopTimer()
				var last blobstore.Ino
				for i := range files {
					f, ino := benchFile(b, d, fmt.Sprint("photo", i))
					f.Close()
					last = ino
					if recorded {
						d.Record(blobstore.Event{Time: time.Now(), Action: blobstore.ActionOpen, Ino: ino, Path: fmt.Sprint("/photo", i), Count: 1, Result: blobstore.ResultOK})
					}
				}
				for count := []byte("0"); recorded && string(count) == "0"; { // until what is recorded is stored
					var err error
					if count, err = d.GetXattr(ctx, last, blobstore.XattrAccessCount); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				for i := range files {
					if err := d.Unlink(ctx, blobstore.RootIno, fmt.Sprint("photo", i)); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkLock is locking a file that nobody else has locked, and unlocking it.
func BenchmarkLock(b *testing.B) {
	d := benchDrive(b, 64<<10)
	f, ino := benchFile(b, d, "library.db")
	defer f.Close()
	locker := blobstore.LockerOf(d)
	for b.Loop() {
		for _, t := range []blobstore.LockType{blobstore.LockWrite, blobstore.LockNone} {
			if _, err := locker.SetLock(context.Background(), ino, blobstore.Lock{Type: t, Owner: 1, End: blobstore.LockMax}, false); err != nil {
				b.Fatal(err)
			}
		}
	}
}
