package integration

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sessionNoticed is how long a mount may take to notice that its session has ended, and the kernel to forget what it knows.
const sessionNoticed = 30 * time.Second

// A session that ends while its drive is mounted ends what can be done with the drive, open files and what the kernel has cached
// included; the other user's goes on. It comes back with the session, and nothing that was closed is lost.
func TestTheEndOfASessionEndsWhatCanBeDoneWithADrive(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice, bob := s.addUser(t, "alice"), s.addUser(t, "bob")
		hers, his := s.mount(t, alice), s.mount(t, bob)
		writeFile(t, hers.path("file"), "closed before")
		writeFile(t, his.path("file"), "his own")
		file, err := os.Open(hers.path("file"))
		check(t, err)
		defer file.Close()
		content := make([]byte, 64)
		_, err = file.ReadAt(content[:6], 0)
		check(t, err)

		alice.tokenFile = s.saveToken(t, "renewed", s.mediafs(t, "user", "token", "--store", s.address, "alice").ok(t))
		refused := map[string]func() error{
			"look at a file":  func() error { _, err := os.Stat(hers.path("file")); return err },
			"list the folder": func() error { _, err := os.ReadDir(hers.point); return err },
			"make a folder":   func() error { return os.Mkdir(hers.path("new"), 0o755) },
			"open a file":     func() error { _, err := os.ReadFile(hers.path("file")); return err },
		}
		if s.kind == postgres { // what the kernel reads from a folder by itself stays readable for who has it open
			refused["read an open file"] = func() error { _, err := file.ReadAt(content[:6], 0); return err }
		}
		for what, do := range refused {
			var err error
			for begun := time.Now(); time.Since(begun) < sessionNoticed; {
				if err = do(); errors.Is(err, unix.EKEYREVOKED) {
					break
				}
				if what == "make a folder" {
					check(t, errors.Join(err, os.Remove(hers.path("new"))))
				}
			}
			if !errors.Is(err, unix.EKEYREVOKED) {
				t.Errorf("%s: %v, want EKEYREVOKED", what, err)
			}
		}
		if got := readFile(t, filepath.Join(his.point, "file")); got != "his own" {
			t.Errorf("the other user reads %q", got)
		}
		check(t, file.Close())
		hers.unmount(t)
		hers = s.mount(t, alice)
		if got := readFile(t, hers.path("file")); got != "closed before" {
			t.Errorf("with the new token the file holds %q", got)
		}
	})
}
