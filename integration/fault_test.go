package integration

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore/pgstore/pgtest"
)

// Faults, each at many moments of work that is going on: what had been synced or closed is there afterwards, byte for byte, what
// failed was told, nothing else has changed, nothing hangs, and every invariant of the store is whole.

var (
	momentsOfAFault = flag.Int("moments", 3, "`how many` moments each fault comes at")
	firstMoment     = flag.Uint64("first-moment", 1, "the `seed` of the first moment; each has the next")
)

// atManyMoments runs a part of a test for each moment.
func atManyMoments(t *testing.T, test func(t *testing.T, seed uint64, name string)) {
	t.Helper()
	for i := range *momentsOfAFault {
		seed := *firstMoment + uint64(i)
		test(t, seed, fmt.Sprintf("moment-%d", seed))
		if t.Failed() {
			t.Fatalf("the fault at moment %d went wrong: -run '^%s$' -moments 1 -first-moment %d", seed, t.Name(), seed)
		}
	}
}

// A past is what folders held that nobody works in any more.
type past map[string]map[string]found

// add remembers a folder.
func (p past) add(t *testing.T, j *job) {
	t.Helper()
	got, err := look(j.folder)
	check(t, err)
	p[j.folder] = got
}

// isUnchanged fails the test if one of the folders is not as it was.
func (p past) isUnchanged(t *testing.T) {
	t.Helper()
	for folder, want := range p {
		got, err := look(folder)
		if err != nil {
			t.Error(err)
		} else if len(got) != len(want) {
			t.Errorf("%s: %d things in it, want %d", folder, len(got), len(want))
		}
		for path, w := range want {
			if g := got[path]; g.kind != w.kind || g.links != w.links || g.target != w.target || string(g.bytes) != string(w.bytes) {
				t.Errorf("%s/%s is not as it was before", folder, path)
			}
		}
	}
}

// usualTimeout is longer than a fault, but for those that are to be longer than it.
const (
	usualTimeout = 30 * time.Second // of mediafs mount, if not said otherwise
	slack        = 20 * time.Second // that a busy machine may take to answer beyond the deadline
)

// kill -9 of the program.
func TestFaultTheProgramIsKilled(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		before := make(past)
		atManyMoments(t, func(t *testing.T, seed uint64, name string) {
			j := startJob(t, m, name, seed)
			j.awaitMoment(t)
			m.kill(t)
			j.finish(t, usualTimeout+slack)
			m.clear(t)
			m = s.mountAt(t, alice, m.point)
			j.check(t, false, false)
			before.isUnchanged(t)
			before.add(t, j)
			j.end()
		})
		m.unmount(t)
	})
}

// databaseOfItsOwn is a store on a cluster that belongs to the test, and a wire between the two.
func databaseOfItsOwn(t *testing.T) (*store, *pgtest.Cluster, *wire) {
	t.Helper()
	cluster := pgtest.NewCluster(t)
	s := bareStore(t, postgres, person{})
	s.database = cluster.URL("postgres")
	s.address = s.database
	s.mediafs(t, "init", "--store", s.address).ok(t)
	var w *wire
	w, s.address = newWire(t, s.database)
	return s, cluster, w
}

// The database server ends at once, and is started again.
func TestFaultTheDatabaseEnds(t *testing.T) {
	t.Parallel()
	for what, end := range map[string]func(c *pgtest.Cluster) error{
		"immediate stop": func(c *pgtest.Cluster) error { return c.Stop(pgtest.Immediate) },
		"kill -9":        func(c *pgtest.Cluster) error { return c.Kill() },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s, cluster, _ := databaseOfItsOwn(t)
			s.address = s.database
			alice := s.addUser(t, "alice")
			m := s.mount(t, alice)
			before := make(past)
			atManyMoments(t, func(t *testing.T, seed uint64, name string) {
				j := startShortJob(t, m, name, seed)
				j.awaitMoment(t)
				check(t, end(cluster))
				check(t, cluster.Start())
				j.finish(t, usualTimeout+slack)
				// The mount finds the server again by itself.
				writeFile(t, m.path("after-"+name), "the server is back")
				j.check(t, true, false)
				before.isUnchanged(t)
				before.add(t, j)
				j.end()
				m.unmount(t)
				m = s.mountAt(t, alice, m.point)
				before.isUnchanged(t)
			})
			m.unmount(t)
		})
	}
}

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
				j := startJob(t, m, name, seed)
				j.awaitMoment(t)
				wire.lose(what)
				lasts(t, 10*time.Second)
				check(t, wire.mend())
				writeFile(t, m.path("after-"+name), "the connection is back")
				t.Log(j.finish(t, usualTimeout+slack))
				j.check(t, false, true)
				before.isUnchanged(t)
				before.add(t, j)
				j.end()
				m.unmount(t)
				m = s.mountAt(t, alice, m.point)
				before.isUnchanged(t)
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
			})
			m.unmount(t)
		})
	}
}
