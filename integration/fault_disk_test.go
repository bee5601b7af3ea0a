package integration

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore/pgstore/pgtest"
)

// fillDisk takes all the room that is left on a file system, until it is given back.
func fillDisk(t *testing.T, dir string) (giveBack func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	file, err := os.Create(path)
	check(t, err)
	defer file.Close()
	var off int64
	for {
		var st unix.Statfs_t
		check(t, unix.Statfs(dir, &st))
		room := int64(st.Bavail) * st.Bsize
		if room == 0 {
			return func() { check(t, os.Remove(path)) }
		}
		switch err := unix.Fallocate(int(file.Fd()), 0, off, room); {
		case err == nil:
			off += room
		case !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EINTR): // somebody else was quicker
			t.Fatal(err)
		}
	}
}

// The disk under a store of folders is full.
func TestFaultTheDiskUnderFoldersIsFull(t *testing.T) {
	requireRoot(t)
	t.Parallel()
	s := bareStore(t, folder, person{})
	check(t, os.Mkdir(s.root, 0o755))
	smallDisk(t, s.root, "size=256M")
	s.mediafs(t, "init", "--store", s.address).ok(t)
	alice := s.addUser(t, "alice")
	m := s.mount(t, alice)
	before := make(past)
	atManyMoments(t, func(t *testing.T, seed uint64, name string) {
		quota := s.ampleQuotaAt(t, alice, m, seed)
		j := startJob(t, m, name, seed)
		j.awaitMoment(t)
		giveBack := fillDisk(t, s.root)
		for _, failed := range j.exhaust(t, usualTimeout+slack) {
			if !strings.HasSuffix(failed, unix.ENOSPC.Error()) {
				t.Errorf("%s, want ENOSPC", failed)
			}
		}
		giveBack()
		writeFile(t, m.path("after-"+name), "room again")
		j.check(t, false, true)
		before.isUnchanged(t)
		m.unmount(t)
		m = s.mountAt(t, alice, m.point)
		j.check(t, false, true)
		before.isUnchanged(t)
		j.end()
		quota.held(t, j)
		s.isExact(t, alice, m)
		s.person.shell(t, m.point, "rm -rf moment-*").ok(t)
	})
	m.unmount(t)
}

// The disk under Postgres is full: the one with the tables, which Postgres survives, and the one with its log as well, which it does not.
func TestFaultTheDiskUnderPostgresIsFull(t *testing.T) {
	requireRoot(t)
	t.Parallel()
	const timeout = 5 * time.Second
	for what, database := range map[string]func(t *testing.T, disk string) (*pgtest.Cluster, string){
		"tables": databaseOnDisk,
		"all": func(t *testing.T, disk string) (*pgtest.Cluster, string) {
			cluster := pgtest.NewClusterIn(t, disk)
			// It stays down, so that a history knows when it crashed.
			_, err := connect(t, cluster.URL("postgres")).Exec(context.Background(), "ALTER SYSTEM SET restart_after_crash = off")
			check(t, errors.Join(err, cluster.Restart()))
			return cluster, cluster.URL("postgres")
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			disk := filepath.Join(tempDir(t), "disk")
			check(t, os.Mkdir(disk, 0o755))
			smallDisk(t, disk, "size=400M")
			check(t, os.Chmod(disk, 0o777))
			cluster, address := database(t, disk)
			s := bareStore(t, postgres, person{})
			s.database, s.address = address, address
			s.mediafs(t, "init", "--store", s.address).ok(t)
			alice := s.addUser(t, "alice")
			m := s.mount(t, alice, "--timeout", timeout.String())
			atManyMoments(t, func(t *testing.T, seed uint64, name string) {
				quota := s.ampleQuotaAt(t, alice, m, seed)
				j := startJob(t, m, name, seed)
				j.awaitMoment(t)
				giveBack := fillDisk(t, disk)
				t.Log(j.exhaust(t, timeout+slack))
				crashed := !cluster.Runs()
				giveBack()
				if crashed {
					check(t, cluster.Start())
				}
				waitUntil(t, "the drive takes changes", func() bool { return os.WriteFile(m.path("after-"+name), []byte("room"), 0o644) == nil })
				j.check(t, crashed, !crashed)
				m.unmount(t)
				m = s.mountAt(t, alice, m.point, "--timeout", timeout.String())
				j.check(t, crashed, !crashed)
				j.end()
				quota.held(t, j)
				s.isExact(t, alice, m)
				s.person.shell(t, m.point, "rm -rf moment-*").ok(t)
			})
			m.unmount(t)
		})
	}
}
