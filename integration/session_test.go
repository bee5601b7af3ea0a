package integration

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
)

// sessionNoticed is how long a mount may take to notice that its session has ended, and the kernel to forget what it knows.
const sessionNoticed = 30 * time.Second

// A session that ends while its drive is mounted ends what can be done with the drive, open files and what the kernel has cached
// included; the other user's goes on. With a new token in the file the drive is back, and so are the files that were open.
func TestTheEndOfASessionEndsWhatCanBeDoneWithADrive(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice, bob := s.addUser(t, "alice"), s.addUser(t, "bob")
		hers, his := s.mount(t, alice), s.mount(t, bob)
		writeFile(t, hers.path("file"), "closed before")
		writeFile(t, his.path("file"), "his own")
		file, err := os.OpenFile(hers.path("file"), os.O_RDWR, 0)
		check(t, err)
		defer file.Close()
		content := make([]byte, 64)
		_, err = file.ReadAt(content[:6], 0)
		check(t, err)

		renewed := s.mediafs(t, "user", "token", "--store", s.address, "alice").ok(t)
		ended := time.Now()
		for what, do := range map[string]func() error{
			"look at a file":     func() error { return stat(hers.path("file")) },
			"list the folder":    func() error { _, err := os.ReadDir(hers.point); return err },
			"make a folder":      func() error { return os.Mkdir(hers.path("none", "new"), 0o755) },
			"open a file":        func() error { _, err := os.ReadFile(hers.path("file")); return err },
			"read an open file":  func() error { _, err := file.ReadAt(content[:6], 0); return err },
			"write an open file": func() error { _, err := file.WriteAt([]byte("c"), 0); return err },
			"rename":             func() error { return os.Rename(hers.path("none"), hers.path("other")) },
			"change the mode":    func() error { return os.Chmod(hers.path("file"), 0o600) },
		} {
			var err error
			for begun := time.Now(); time.Since(begun) < sessionNoticed; {
				if err = do(); errors.Is(err, unix.EKEYREVOKED) {
					break
				}
			}
			if !errors.Is(err, unix.EKEYREVOKED) {
				t.Errorf("%s: %v, want EKEYREVOKED", what, err)
			}
		}
		t.Logf("the end of the session was noticed everywhere within %v", time.Since(ended).Round(time.Millisecond))
		if got := readFile(t, his.path("file")); got != "his own" {
			t.Errorf("the other user reads %q", got)
		}

		check(t, os.WriteFile(alice.tokenFile, []byte(renewed), 0o600))
		waitUntil(t, "the drive is back", func() bool { return stat(hers.path("file")) == nil })
		if n, err := file.ReadAt(content, 0); string(content[:n]) != "closed before" {
			t.Errorf("the file that was open holds %q, %v", content[:n], err)
		}
		_, err = file.WriteAt([]byte("still open, "), 0)
		check(t, errors.Join(err, file.Sync()))
		writeFile(t, hers.path("new"), "made with the new token")
		for _, line := range []string{"the session has ended", "the session is back"} {
			if n := strings.Count(hers.stderr.String(), line); n != 1 {
				t.Errorf("the log says %q %d times, want once:\n%s", line, n, hers.stderr)
			}
		}
	})
}

// What was written and not stored when the session ends is not lost, whatever becomes of the mount.
func TestWhatIsNotStoredWhenTheSessionEndsIsKept(t *testing.T) {
	content := bytes.Repeat([]byte("written and not yet stored. "), 40_000)
	for what, afterwards := range map[string]func(t *testing.T, s *store, alice user, m *mount) *mount{
		"a new token comes": func(t *testing.T, s *store, alice user, m *mount) *mount { return m },
		"the program is killed": func(t *testing.T, s *store, alice user, m *mount) *mount {
			m.kill(t)
			m.clear(t)
			return nil
		},
		"it is unmounted": func(t *testing.T, s *store, alice user, m *mount) *mount {
			r := s.mediafs(t, "umount", m.point)
			if r.code != 10 || !strings.Contains(r.stderr, "kept") {
				t.Errorf("want exit code 10 and a word of what is kept: %v", r)
			}
			m.waitForEnd(t)
			return nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, postgres, person{})
			alice := s.addUser(t, "alice")
			m := s.mount(t, alice)
			file, err := os.Create(m.path("file"))
			check(t, err)
			defer file.Close()
			check(t, file.Sync()) // the file is there, empty
			// The token is replaced right after the content was taken, which leaves by itself only seconds later.
			renewed := auth.NewToken()
			hash := renewed.Hash()
			tx, err := s.connect(t).Begin(t.Context())
			check(t, err)
			_, err = tx.Exec(t.Context(), "UPDATE mediafs.accounts SET token_hash = $1 WHERE user_id = 'alice'", hash[:])
			check(t, err)
			_, err = file.Write(content)
			check(t, errors.Join(err, tx.Commit(t.Context())))
			waitUntil(t, "it is put aside", func() bool { return strings.Contains(m.stderr.String(), "was put aside") })
			if err := file.Sync(); !errors.Is(err, unix.EKEYREVOKED) {
				t.Errorf("fsync: got %v, want EKEYREVOKED", err)
			}
			if err := file.Close(); !errors.Is(err, unix.EKEYREVOKED) {
				t.Errorf("close: got %v, want EKEYREVOKED", err)
			}
			s.keptIsPrivate(t)
			m = afterwards(t, s, alice, m)
			check(t, os.WriteFile(alice.tokenFile, []byte(renewed.Reveal()), 0o600))
			if m == nil {
				m = s.mount(t, alice)
			}
			waitUntil(t, "the file is whole", func() bool {
				got, err := os.ReadFile(m.path("file"))
				return err == nil && bytes.Equal(got, content)
			})
			m.unmount(t)
			m = s.mount(t, alice)
			if got, err := os.ReadFile(m.path("file")); err != nil || !bytes.Equal(got, content) {
				t.Errorf("mounted again: %d bytes, %v, want the %d that were written", len(got), err, len(content))
			}
		})
	}
}

// keptIsPrivate fails the test unless something is put aside, and for its owner alone.
func (s *store) keptIsPrivate(t testing.TB) {
	t.Helper()
	files := 0
	folder := filepath.Join(s.person.stateFolder(), "mediafs", "spool")
	check(t, filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		if !entry.IsDir() {
			files++
		}
		return err
	}))
	if files == 0 {
		t.Errorf("nothing is in %s", folder)
	}
}
