package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// lockedMounts is one drive of a Postgres store mounted twice, as on two machines, with a file in it.
func lockedMounts(t *testing.T) (s *store, one, other *mount) {
	t.Helper()
	s = newStore(t, postgres, person{})
	alice := s.addUser(t, "alice")
	one, other = s.mount(t, alice), s.mount(t, alice)
	writeFile(t, one.path("file"), "content")
	return s, one, other
}

// holdLock has flock(1) hold a lock in a mount until release is called.
func holdLock(t *testing.T, m *mount) (release func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	holder := m.s.person.command(ctx, "/", "flock", m.path("file"), "sh", "-c", "echo locked; read line")
	stdin, err := holder.StdinPipe()
	check(t, err)
	stdout, err := holder.StdoutPipe()
	check(t, err)
	check(t, holder.Start())
	said := make([]byte, len("locked\n"))
	_, err = stdout.Read(said)
	check(t, err)
	return sync.OnceFunc(func() {
		_ = stdin.Close()
		_ = holder.Wait() // it ends with an error if its mount is gone
	})
}

func TestTwoMountsExcludeEachOtherByFlock(t *testing.T) {
	t.Parallel()
	s, one, other := lockedMounts(t)
	try := func(m *mount) int { return s.person.run(t, "/", "flock", "-n", m.path("file"), "true").code }
	// A lock is free when the program that had it has ended.
	s.person.shell(t, one.point, "for i in {1..30}; do flock -n file true; done").ok(t)
	for range 2 {
		release := holdLock(t, one)
		for _, m := range []*mount{one, other} {
			if code := try(m); code != 1 {
				t.Errorf("flock -n of what is locked ended with %d, want 1", code)
			}
		}
		waiting := make(chan result, 1)
		go func() { waiting <- s.person.run(t, "/", "flock", other.path("file"), "cat", other.path("file")) }()
		release()
		if got := (<-waiting).ok(t); got != "content" {
			t.Errorf("who waited read %q", got)
		}
		one, other = other, one
	}
}

// Programs that read, add one and write under a lock, in two mounts, lose nothing of each other: what is written before unlocking is
// read after locking, also through a file that stays open, and past a page in the kernel's memory.
func TestWhoLocksSeesWhatTheOtherMountWrote(t *testing.T) {
	t.Parallel()
	s, one, other := lockedMounts(t)
	writeFile(t, one.path("file"), "00000")
	const rounds = 100
	script := fmt.Sprintf(`use Fcntl ":flock"; open(my $f, "+<", $ARGV[0]) or die; for (1..%d) {
		flock($f, LOCK_EX) or die "lock: $!";
		sysseek($f, 0, 0); sysread($f, my $n, 5) == 5 or die "read: $!";
		sysseek($f, 0, 0); syswrite($f, sprintf("%%05d", $n + 1)) == 5 or die "write: $!";
		flock($f, LOCK_UN) or die "unlock: $!";
	}`, rounds)
	var adding sync.WaitGroup
	for _, m := range []*mount{one, one, other, other} {
		adding.Go(func() {
			if r := s.person.run(t, "/", "perl", "-e", script, m.path("file")); r.code != 0 {
				t.Error(r)
			}
		})
	}
	adding.Wait()
	for _, m := range []*mount{one, other} {
		if got, want := readFile(t, m.path("file")), fmt.Sprintf("%05d", 4*rounds); got != want {
			t.Errorf("they counted to %s, want %s", got, want)
		}
	}
}

// SQLite's own locking, of ranges, by fcntl(2).
func TestTwoMountsWriteOneSQLiteDatabase(t *testing.T) {
	t.Parallel()
	s, one, other := lockedMounts(t)
	s.sqlite(t, one, "CREATE TABLE photos (id INTEGER PRIMARY KEY, name TEXT UNIQUE);")
	const each = 200
	var writing sync.WaitGroup
	for i, m := range []*mount{one, other} {
		writing.Go(func() {
			var script strings.Builder
			script.WriteString(".timeout 120000\n")
			for j := range each {
				fmt.Fprintf(&script, "BEGIN IMMEDIATE; INSERT INTO photos (name) VALUES ('photo %d of mount %d'); COMMIT;\n", j, i)
			}
			path := filepath.Join(s.dir, fmt.Sprintf("script-%d.sql", i))
			if err := os.WriteFile(path, []byte(script.String()), 0o644); err != nil {
				t.Error(err)
				return
			}
			if r := s.person.shell(t, m.point, "sqlite3 -bail library.db <"+path); r.code != 0 {
				t.Error(r)
			}
		})
	}
	writing.Wait()
	for _, m := range []*mount{one, other} {
		if got, want := s.sqlite(t, m, "PRAGMA integrity_check; SELECT count(*), count(DISTINCT name) FROM photos;"), fmt.Sprintf("ok\n%d|%[1]d", 2*each); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// What a killed mount had locked is free when it counts as dead.
func TestTheLocksOfAKilledMountAreFreed(t *testing.T) {
	t.Parallel()
	s, one, other := lockedMounts(t)
	release := holdLock(t, one)
	conn := s.connect(t)
	one.kill(t)
	release()
	one.clear(t)
	if code := s.person.run(t, "/", "flock", "-n", other.path("file"), "true").code; code != 1 {
		t.Errorf("flock -n of what a mount held until a moment ago ended with %d, want 1", code)
	}
	// As if half a minute had passed for the killed mount, and the other had been there for longer:
	const holder = "(SELECT mount_id FROM mediafs.locks)"
	for _, sql := range []string{
		"UPDATE mediafs.mounts SET seen_at = seen_at - interval '1 min' WHERE mount_id = " + holder,
		"UPDATE mediafs.mounts SET since = since - interval '1 min' WHERE mount_id <> " + holder,
	} {
		_, err := conn.Exec(context.Background(), sql)
		check(t, err)
	}
	s.person.run(t, "/", "flock", other.path("file"), "true").ok(t)
}

// A mount that is read-only, and an admin's of all drives, take part in the locks of a drive; those of another user's never meet them.
func TestMountsOfEveryKindTakePartInLocks(t *testing.T) {
	t.Parallel()
	s := newStore(t, postgres, person{})
	alice := s.addUser(t, "alice")
	one, reading := s.mount(t, alice), s.mount(t, alice, "--read-only")
	writeFile(t, one.path("file"), "content")
	all := s.mount(t, s.addUser(t, "ada", "--role", "admin"))
	bob := s.mount(t, s.addUser(t, "bob"))
	writeFile(t, bob.path("file"), "content")
	try := func(path string) int { return s.person.run(t, "/", "flock", "-n", path, "true").code }
	release := holdLock(t, one)
	for path, want := range map[string]int{reading.path("file"): 1, all.path("alice", "file"): 1, bob.path("file"): 0, all.path("bob", "file"): 0} {
		if code := try(path); code != want {
			t.Errorf("while alice's file is locked: flock -n %s ended with %d, want %d", path, code, want)
		}
	}
	release()
	release = holdLock(t, reading)
	if code := try(all.path("alice", "file")); code != 1 {
		t.Errorf("flock -n of what is locked in a read-only mount ended with %d, want 1", code)
	}
	release()
}
