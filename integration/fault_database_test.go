package integration

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/blobstore/pgstore/pgtest"
)

// databaseOfItsOwn is a store on a cluster that belongs to the test, and a wire between the two.
func databaseOfItsOwn(t *testing.T) (*store, *pgtest.Cluster, *wire) {
	t.Helper()
	cluster := pgtest.NewCluster(t)
	s := bareStore(t, postgres, person{})
	s.database = cluster.URL("postgres")
	s.address = s.database
	s.mediafs(t, "init", "--store", s.address).ok(t)
	wired, w := s.throughWire(t)
	return wired, cluster, w
}

// unmountAfterCrash is unmount, but what was written to files whose making the crash has undone can't be stored any more: that is told.
func (m *mount) unmountAfterCrash(t *testing.T) {
	t.Helper()
	r := m.s.mediafs(t, "umount", m.point)
	if r.code != 0 && (r.code != codeNotStored || !strings.Contains(r.stderr, "node is gone")) {
		t.Error(r)
	}
	m.waitForEnd(t)
	m.checkRaces(t)
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
				quota := s.quotaAt(t, alice, m, seed)
				j := startShortJob(t, m, name, seed)
				j.awaitMoment(t)
				check(t, end(cluster))
				check(t, cluster.Start())
				j.finish(t, usualTimeout+slack)
				quota.held(t, j)
				quota.raise(t, nil)
				// The mount finds the server again by itself.
				writeFile(t, m.path("after-"+name), "the server is back")
				j.check(t, true, false)
				before.isUnchanged(t)
				before.add(t, j)
				j.end()
				m.unmountAfterCrash(t)
				m = s.mountAt(t, alice, m.point)
				before.isUnchanged(t)
				s.isExact(t, alice, m)
			})
			m.unmount(t)
		})
	}
}

// The database answers, and takes no changes: they give EROFS, and reading goes on.
func TestFaultTheDatabaseIsReadOnly(t *testing.T) {
	t.Parallel()
	s, _, _ := databaseOfItsOwn(t)
	alice := s.addUser(t, "alice")
	m := s.mount(t, alice)
	super := s.connect(t)
	set := func(statement string) {
		t.Helper()
		for _, sql := range []string{statement, "SELECT pg_reload_conf()"} {
			_, err := super.Exec(context.Background(), sql)
			check(t, err)
		}
	}
	before := make(past)
	atManyMoments(t, func(t *testing.T, seed uint64, name string) {
		quota := s.ampleQuotaAt(t, alice, m, seed)
		j := startJob(t, m, name, seed)
		j.awaitMoment(t)
		set("ALTER SYSTEM SET default_transaction_read_only = on")
		for _, failed := range j.exhaust(t, usualTimeout+slack) {
			if !strings.HasSuffix(failed, unix.EROFS.Error()) {
				t.Errorf("%s, want EROFS", failed)
			}
		}
		before.isUnchanged(t)
		set("ALTER SYSTEM RESET default_transaction_read_only")
		waitUntil(t, "the drive takes changes", func() bool { return os.WriteFile(m.path("after-"+name), nil, 0o644) == nil })
		j.check(t, false, true)
		before.isUnchanged(t)
		before.add(t, j)
		j.end()
		m.unmount(t)
		m = s.mountAt(t, alice, m.point)
		before.isUnchanged(t)
		quota.held(t, j)
		s.isExact(t, alice, m)
	})
	m.unmount(t)
}

// The database ends, and is a server in recovery when it is back, as a standby is before it takes over.
func TestFaultTheDatabaseIsInRecovery(t *testing.T) {
	t.Parallel()
	s, cluster, _ := databaseOfItsOwn(t)
	alice := s.addUser(t, "alice")
	m := s.mount(t, alice)
	before := make(past)
	atManyMoments(t, func(t *testing.T, seed uint64, name string) {
		quota := s.quotaAt(t, alice, m, seed)
		j := startShortJob(t, m, name, seed)
		j.awaitMoment(t)
		check(t, cluster.Stop(pgtest.Immediate))
		check(t, cluster.StartInRecovery())
		j.finish(t, usualTimeout+slack)
		before.isUnchanged(t)
		if err := os.Mkdir(m.path("during-"+name), 0o755); !errors.Is(err, unix.EROFS) {
			t.Errorf("a change: %v, want EROFS", err)
		}
		_, err := s.connect(t).Exec(context.Background(), "SELECT pg_promote()")
		check(t, err)
		quota.held(t, j)
		quota.raise(t, nil)
		waitUntil(t, "the drive takes changes", func() bool { return os.WriteFile(m.path("after-"+name), nil, 0o644) == nil })
		j.check(t, true, false)
		before.isUnchanged(t)
		before.add(t, j)
		j.end()
		m.unmountAfterCrash(t)
		m = s.mountAt(t, alice, m.point)
		before.isUnchanged(t)
		s.isExact(t, alice, m)
	})
	m.unmount(t)
}
