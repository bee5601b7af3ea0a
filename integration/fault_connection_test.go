package integration

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// The connection to the database is cut, or all on it hangs and comes in late, for a while that is shorter than the deadline of an
// operation: nothing fails but what may have been done and can't be done twice.
func TestFaultTheConnectionIsLostForAWhile(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"cut", "hang"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s, _, wire := databaseOfItsOwn(t)
			alice := s.addUser(t, "alice")
			m := s.mount(t, alice)
			before := make(past)
			atManyMoments(t, func(t *testing.T, seed uint64, name string) {
				quota := s.quotaAt(t, alice, m, seed)
				j := startJob(t, m, name, seed)
				j.awaitMoment(t)
				wire.lose(what)
				lasts(t, 10*time.Second)
				check(t, wire.mend())
				quota.held(t)
				quota.raise(t, m)
				writeFile(t, m.path("after-"+name), "the connection is back")
				t.Log(j.finish(t, usualTimeout+slack))
				j.check(t, false, true)
				before.isUnchanged(t)
				before.add(t, j)
				j.end()
				quota.held(t, j)
				m.unmount(t)
				m = s.mountAt(t, alice, m.point)
				before.isUnchanged(t)
				s.isExact(t, alice, m)
			})
			m.unmount(t)
		})
	}
}

func (w *wire) lose(how string) {
	if how == "cut" {
		w.cut()
	} else {
		w.hang()
	}
}

// lasts is how long a fault lasts.
func lasts(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	<-ctx.Done()
}

// The same for longer than the deadline: operations fail in time, what is known can still be looked at, and how full the drive is.
func TestFaultTheConnectionIsLostForLong(t *testing.T) {
	t.Parallel()
	const timeout = 3 * time.Second
	for _, what := range []string{"cut", "hang"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s, _, wire := databaseOfItsOwn(t)
			alice := s.addUser(t, "alice")
			m := s.mount(t, alice, "--timeout", timeout.String())
			before := make(past)
			atManyMoments(t, func(t *testing.T, seed uint64, name string) {
				known := m.path("known-" + name)
				writeFile(t, known, "known")
				check(t, stat(known))
				quota := s.quotaAt(t, alice, m, seed)
				j := startJob(t, m, name, seed)
				j.awaitMoment(t)
				wire.lose(what)
				lasts(t, timeout+4*time.Second)
				check(t, stat(known))
				var space unix.Statfs_t
				check(t, unix.Statfs(m.point, &space))
				_, err := os.Stat(m.path("nobody has looked for it"))
				if err == nil || os.IsNotExist(err) {
					t.Errorf("a name that only the database knows: %v", err)
				}
				check(t, wire.mend())
				quota.held(t)
				quota.raise(t, m)
				waitUntil(t, "the drive works again", func() bool { return os.WriteFile(m.path("after-"+name), nil, 0o644) == nil })
				t.Log(j.finish(t, timeout+slack))
				j.check(t, false, true)
				before.isUnchanged(t)
				m.unmount(t)
				m = s.mountAt(t, alice, m.point, "--timeout", timeout.String())
				j.check(t, false, true)
				before.isUnchanged(t)
				before.add(t, j)
				j.end()
				quota.held(t, j)
				s.isExact(t, alice, m)
			})
			m.unmount(t)
		})
	}
}

// A drive is unmounted while its database is away: that takes not long, and what could not be stored is there when it is mounted again.
func TestFaultADriveIsUnmountedWithoutItsDatabase(t *testing.T) {
	t.Parallel()
	const timeout = 3 * time.Second
	for _, what := range []string{"cut", "hang"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s, _, wire := databaseOfItsOwn(t)
			alice := s.addUser(t, "alice")
			before := make(past)
			atManyMoments(t, func(t *testing.T, seed uint64, name string) {
				m := s.mount(t, alice, "--timeout", timeout.String())
				quota := s.quotaAt(t, alice, m, seed)
				j := startJob(t, m, name, seed)
				j.awaitMoment(t)
				wire.lose(what)
				j.finish(t, timeout+slack)
				begun := time.Now()
				took := make(chan time.Duration, 1)
				go func() {
					<-m.ended
					took <- time.Since(begun)
				}()
				if r := s.mediafs(t, "umount", m.point); r.code != 0 && r.code != codeNotStored {
					t.Error(r)
				}
				m.waitForEnd(t)
				if took := <-took; took > 2*blobstore.StallLimit+slack {
					t.Errorf("unmounting took %v", took)
				}
				check(t, wire.mend())
				m = s.mountAt(t, alice, m.point)
				j.check(t, false, true)
				before.add(t, j)
				j.end()
				quota.held(t, j)
				s.isExact(t, alice, m)
				m.unmount(t)
				s.isWhole(t)
			})
		})
	}
}

// Nor does it take long when all was stored before, and only a word of goodbye is missing.
func TestAnIdleDriveIsUnmountedWithoutItsDatabase(t *testing.T) {
	t.Parallel()
	s, wire := newStore(t, postgres, person{}).throughWire(t)
	alice := s.addUser(t, "alice")
	m := s.mount(t, alice)
	writeFile(t, m.path("file"), "content")
	check(t, os.Remove(m.path("file"))) // to be collected
	s.person.shell(t, m.point, "sync -f .").ok(t)
	wire.cut()
	begun := time.Now()
	s.mediafs(t, "umount", m.point).ok(t)
	m.waitForEnd(t)
	if took := time.Since(begun); took > 2*blobstore.StallLimit+slack {
		t.Errorf("unmounting took %v", took)
	}
	check(t, wire.mend())
	s.mountAt(t, alice, m.point).unmount(t)
	s.isWhole(t)
}

// What was on the way when the connection was lost arrives after the drive has gone on: it changes nothing any more.
func TestFaultWhatWasGivenUpArrivesLate(t *testing.T) {
	t.Parallel()
	const timeout = 3 * time.Second
	s, _, wire := databaseOfItsOwn(t)
	super := s.connect(t)
	alice := s.addUser(t, "alice")
	m := s.mount(t, alice, "--timeout", timeout.String())
	atManyMoments(t, func(t *testing.T, seed uint64, name string) {
		quota := s.quotaAt(t, alice, m, seed)
		j := startJob(t, m, name, seed)
		j.awaitMoment(t)
		wire.hang()
		lasts(t, timeout+time.Second)
		wire.mendLate()
		quota.held(t)
		quota.raise(t, m)
		waitUntil(t, "the drive works again", func() bool { return os.WriteFile(m.path("after-"+name), nil, 0o644) == nil })
		j.finish(t, timeout+slack)
		j.check(t, false, true)
		j.end()
		// Every file gets another content, and every name that is free a file.
		for k := range workersOfAJob {
			s.person.shell(t, m.path(name, fmt.Sprintf("worker-%d", k)), `
				find . -type f | while read -r file; do echo "another content of $file" >"$file"; done
				for name in a b c d e f g h i j k l d0 d1 d2 d3; do
					[[ -e $name || -L $name ]] || echo "a new file $name" >"$name"
				done`).ok(t)
		}
		now := make(past)
		now.add(t, j)
		wire.deliver()
		waitUntil(t, "what was late is done", func() bool {
			return number(t, super, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mediafs' AND state <> 'idle'") == 0
		})
		m.unmount(t)
		m = s.mountAt(t, alice, m.point, "--timeout", timeout.String())
		now.isUnchanged(t)
		quota.held(t, j)
		s.isExact(t, alice, m)
	})
	m.unmount(t)
}
