package pgstore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
	"mediafs/blobstore/pgstore/pgtest"
)

// lockers is one drive attached twice, with a file that both have open, and an administrator's connection.
type lockers struct {
	*testing.T
	admin      *pgx.Conn
	one, other *pgstore.Drive
	ino        blobstore.Ino
	file       blobstore.File // of one
	there      blobstore.File // of the other
}

func newLockers(t *testing.T) lockers {
	t.Helper()
	return newLockersAt(t, newStore(t))
}

func newLockersAt(t *testing.T, url string) lockers {
	t.Helper()
	session := signIn(t, url, "alice")
	l := lockers{T: t, one: attach(t, url, session, pgstore.Options{}), other: attach(t, url, session, pgstore.Options{})}
	l.file, l.ino = create(t, l.one, "shared")
	write(t, l.file, []byte("first"), 0)
	err := l.file.Flush(t.Context())
	if err == nil {
		l.there, err = l.other.Open(t.Context(), l.ino, writable)
	}
	if err == nil {
		l.admin, err = pgx.Connect(t.Context(), url)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(l.file.Close(), l.there.Close(), l.admin.Close(context.Background())); err != nil {
			t.Error(err)
		}
	})
	return l
}

var exclusively = blobstore.Lock{Kind: blobstore.LockFlock, Type: blobstore.LockWrite, Owner: 1, End: blobstore.LockMax}

func (l *lockers) lock(d *pgstore.Drive, want error) {
	l.Helper()
	if _, err := d.SetLock(l.Context(), l.ino, exclusively, false); !errors.Is(err, want) {
		l.Fatalf("lock: got %v, want %v", err, want)
	}
}

func (l *lockers) exec(sql string) {
	l.Helper()
	if _, err := l.admin.Exec(l.Context(), sql); err != nil {
		l.Fatal(err)
	}
}

func (l *lockers) beat(d *pgstore.Drive) {
	l.Helper()
	if err := d.Beat(l.Context()); err != nil {
		l.Fatal(err)
	}
}

const (
	holders = "mount_id in (select mount_id from mediafs.locks)"
	minute  = "interval '1 min'"
)

func TestTheLocksOfAMountThatIsSilentGoToOneThatIsNot(t *testing.T) {
	l := newLockers(t)
	l.lock(l.one, nil)
	l.lock(l.other, blobstore.ErrLocked)
	l.exec("update mediafs.mounts set seen_at = seen_at - " + minute + " where " + holders)
	l.lock(l.other, blobstore.ErrLocked) // it has not been there for long enough itself: the database may have been away
	l.exec("update mediafs.mounts set since = since - " + minute + " where not " + holders)
	l.lock(l.other, nil)
}

// While the database is away, no mount is heard of. Whoever finds it again first takes nothing.
func TestNoMountTakesALockBecauseTheDatabaseWasAway(t *testing.T) {
	l := newLockers(t)
	l.lock(l.one, nil)
	l.exec("update mediafs.mounts set since = since - 2 * " + minute + ", seen_at = seen_at - " + minute)
	l.lock(l.other, blobstore.ErrLocked)
	l.beat(l.other)
	l.lock(l.other, blobstore.ErrLocked)
	l.beat(l.one)
	l.lock(l.other, blobstore.ErrLocked)
	l.lock(l.one, nil)
}

func TestAMountThatLostALockFailsUntilTheFileIsClosed(t *testing.T) {
	l := newLockers(t)
	l.lock(l.one, nil)
	write(t, l.file, []byte("under a lock that is lost"), 0)
	l.exec("update mediafs.mounts set seen_at = seen_at - " + minute + " where " + holders)
	l.exec("update mediafs.mounts set since = since - " + minute + " where not " + holders)
	l.lock(l.other, nil)
	write(t, l.there, []byte("second"), 0)
	if err := l.there.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}

	l.beat(l.one)
	for what, err := range map[string]error{
		"read":  second(l.file.ReadAt(t.Context(), make([]byte, 5), 0)),
		"write": second(l.file.WriteAt(t.Context(), []byte("x"), 0)),
		"flush": l.file.Flush(t.Context()),
		"lock":  second(l.one.SetLock(t.Context(), l.ino, exclusively, false)),
	} {
		if !errors.Is(err, blobstore.ErrUnavailable) {
			t.Errorf("%s: got %v, want %v", what, err, blobstore.ErrUnavailable)
		}
	}
	if err := l.file.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := l.one.Open(t.Context(), l.ino, blobstore.OpenRead)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := string(read(t, again, 100, 0)); got != "second" {
		t.Errorf("opened again it reads %q, want what the other mount wrote under the lock", got)
	}
}

func second[T any](_ T, err error) error { return err }

// A crash of the server may take back the last locks. Until their mount has said so, nobody else gets one.
func TestLocksOutliveACrashOfTheServer(t *testing.T) {
	cluster := pgtest.NewCluster(t)
	if _, err := pgstore.Init(t.Context(), cluster.URL("postgres")); err != nil {
		t.Fatal(err)
	}
	l := newLockersAt(t, cluster.URL("postgres"))
	l.lock(l.one, nil)
	if err := errors.Join(cluster.Kill(), cluster.Start()); err != nil {
		t.Fatal(err)
	}
	admin, err := pgx.Connect(t.Context(), cluster.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	_ = l.admin.Close(t.Context())
	l.admin = admin
	// Here they are there still, or the mount that holds them has said so already; as if not:
	l.exec("delete from mediafs.locks; update mediafs.mounts set seen_at = pg_postmaster_start_time() - interval '1 s'")
	l.lock(l.other, blobstore.ErrLocked)
	l.beat(l.one)
	l.lock(l.other, blobstore.ErrLocked)
	l.lock(l.one, nil)
	l.one.ReleaseLocks(t.Context(), l.ino, exclusively.Kind, exclusively.Owner)
	l.lock(l.other, nil)
}

// What the database has for locked and is not, because an unlocking came to nothing, it is told when the mount says what it holds.
func TestALockThatIsNotHeldAnyMoreIsTakenFromTheDatabase(t *testing.T) {
	l := newLockers(t)
	l.lock(l.one, nil)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	l.one.ReleaseLocks(ended, l.ino, exclusively.Kind, exclusively.Owner)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if _, err := l.other.SetLock(ctx, l.ino, exclusively, true); err != nil {
		t.Fatal(err)
	}
	l.exec("update mediafs.locks set seq = 0, mount_id = (select mount_id from mediafs.mounts where not " + holders + ")")
	l.beat(l.one) // it is that mount's now
	l.lock(l.one, nil)
}

func TestAClaimThatComesLateUndoesNoLaterOne(t *testing.T) {
	l := newLockers(t)
	l.lock(l.one, nil)
	l.exec(`set mediafs.token = '` + l.one.Session().Token.Reveal() + `'`)
	l.exec(`select mediafs.lock(l.drive_id, l.ino, l.mount_id, l.seq - 1, '{7}', '{7}', '{7}', '{f}', '{f}', false) from mediafs.locks l`)
	l.exec(`select mediafs.lock(l.drive_id, l.ino, l.mount_id, l.seq - 1, '{}', '{}', '{}', '{}', '{}', false) from mediafs.locks l`)
	var low, high int64
	if err := l.admin.QueryRow(t.Context(), "select low[1], high[1] from mediafs.locks").Scan(&low, &high); err != nil {
		t.Fatal(err)
	}
	if low != exclusively.Start || high != exclusively.End {
		t.Errorf("the lock is of %d to %d, want %d to %d", low, high, exclusively.Start, exclusively.End)
	}
}

// Guests leave the kernel to keep their locks: they can't write into the database, and nobody has to wait for them.
func TestGuestsKeepTheirLocksToThemselves(t *testing.T) {
	url := newStore(t)
	store, err := pgstore.Open(t.Context(), url, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	drive, err := store.Open(t.Context(), auth.Guest())
	if err != nil {
		t.Fatal(err)
	}
	defer drive.Close(t.Context())
	if blobstore.LockerOf(drive) != nil {
		t.Error("a guest's drive keeps locks for all")
	}
}
