package integration

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/blobstore/pgstore/pgtest"
)

// kill -9 of the program in the middle of a copy: the store mounts again, and what was closed is whole.
func TestAKilledMountLosesNothingThatWasClosed(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		c := copyInto(t, m.point)
		stopForking := fork(t)
		c.waitUntilBusy(t)
		m.kill(t)
		stopForking()
		whole := c.finish(t)
		m.clear(t)

		m = s.mountAt(t, alice, m.point)
		areWhole(t, m.point, whole)
		// What was not closed may be there in part, and goes like any other file.
		s.person.shell(t, m.point, "rm -f file-*").ok(t)
		m.unmount(t)
		if s.kind == postgres {
			// For a minute nobody knows that the killed mount has no file open any more, so what was removed stays.
			// As if it had passed:
			_, err := s.connect(t).Exec(context.Background(), "UPDATE mediafs.mounts SET seen_at = seen_at - interval '1 hour'")
			check(t, err)
			s.mount(t, alice).unmount(t)
		}
		s.isEmpty(t)
	})
}

// fork starts processes all the time until it is told to stop. Each inherits for a moment what this one has open, and its
// closing that is one more FUSE_FLUSH of a file that is being written.
func fork(t *testing.T) (stop func()) {
	t.Helper()
	stopped := make(chan struct{})
	var forking sync.WaitGroup
	forking.Go(func() {
		for {
			select {
			case <-stopped:
				return
			default:
			}
			if err := exec.Command("true").Run(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	return func() {
		close(stopped)
		forking.Wait()
	}
}

// The same with the database server instead of the program, which then goes on where it was.
func TestAKilledDatabaseLosesNothingThatWasClosed(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t)
	s := bareStore(t, postgres, person{})
	s.database = cluster.URL("postgres")
	s.address = s.database
	s.mediafs(t, "init", "--store", s.address).ok(t)
	alice := s.addUser(t, "alice")
	m := s.mount(t, alice)
	c := copyInto(t, m.point)
	c.waitUntilBusy(t)
	check(t, cluster.Kill())
	check(t, cluster.Start())
	whole := c.finish(t)

	// The mount finds the server again by itself.
	writeFile(t, m.path("after"), "the server is back")
	areWhole(t, m.point, whole)
	m.unmount(t)
	m = s.mountAt(t, alice, m.point)
	areWhole(t, m.point, whole)
	if got := readFile(t, m.path("after")); got != "the server is back" {
		t.Errorf("read %q", got)
	}
}

// A file that is removed while it is open can be read until it is closed, also when its mount is killed meanwhile and so can't
// say that it is; then it is gone, and the store has no more of it than before.
func TestAnUnlinkedFileIsReadableWhileOpenAndThenGone(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		content := string(copiedContent(16))
		writeFile(t, m.path("unlinked"), content)
		file, err := os.OpenFile(m.path("unlinked"), os.O_RDWR, 0)
		check(t, err)
		check(t, os.Remove(m.path("unlinked")))
		got := make([]byte, len(content))
		_, err = file.ReadAt(got, 0)
		check(t, err)
		if string(got) != content {
			t.Error("the file that was removed reads otherwise than before")
		}
		_, err = file.WriteAt([]byte("more"), int64(len(content)))
		check(t, errors.Join(err, file.Close()))
		if _, err := os.Stat(m.path("unlinked")); !os.IsNotExist(err) {
			t.Errorf("stat after removing: %v", err)
		}
		m.unmount(t)
		s.isEmpty(t)
	})
}

// No operation waits for ever for a database that is away: it fails when its time is over, and all goes on when the database
// is back. How full the drive is can be told all the while.
func TestADriveWhoseDatabaseIsAwayAnswersInTime(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t)
	s := bareStore(t, postgres, person{})
	s.database = cluster.URL("postgres")
	s.address = s.database
	s.mediafs(t, "init", "--store", s.address).ok(t)
	m := s.mount(t, s.addUser(t, "alice"), "--timeout", "2s")
	writeFile(t, m.path("file"), "stored")
	check(t, cluster.Stop(pgtest.Immediate))

	s.person.run(t, "/", "df", m.point).ok(t)
	for what, err := range map[string]error{
		"look for a file": func() error { _, err := os.Stat(m.path("not looked for yet")); return err }(),
		"make a folder":   os.Mkdir(m.path("new"), 0o755),
		"write a file":    os.WriteFile(m.path("written"), []byte("x"), 0o644),
	} {
		if !errors.Is(err, unix.ETIMEDOUT) && !errors.Is(err, unix.EIO) {
			t.Errorf("%s: %v, want EIO or ETIMEDOUT", what, err)
		}
	}

	check(t, cluster.Start())
	check(t, os.Mkdir(m.path("back"), 0o755))
	if got := readFile(t, m.path("file")); got != "stored" {
		t.Errorf("read %q", got)
	}
	m.unmount(t)
}
