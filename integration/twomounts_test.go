package integration

import (
	"os"
	"testing"
)

// Two mounts of one drive: what one has closed the other sees at its next open, and the rest within a second.
func TestTwoMountsOfADriveSeeEachOther(t *testing.T) {
	for _, k := range []kind{folder, postgres} { // one after the other: it is about time
		t.Run(string(k), func(t *testing.T) {
			s := newStore(t, k, person{})
			alice := s.addUser(t, "alice")
			one, other := s.mount(t, alice), s.mount(t, alice)
			writeFile(t, one.path("file"), "first")
			if got := readFile(t, other.path("file")); got != "first" {
				t.Errorf("a new file holds %q", got)
			}
			// The other has it all in its cache now, and the kernel too.
			for _, content := range []string{"second, longer", "third", "fourt", ""} {
				writeFile(t, one.path("file"), content)
				if got := readFile(t, other.path("file")); got != content {
					t.Errorf("after one mount closed the file with %q the other reads %q", content, got)
				}
				one, other = other, one
			}

			for _, name := range []string{"new", "renamed"} { // known to be missing
				if _, err := os.Stat(other.path(name)); !os.IsNotExist(err) {
					t.Fatal(err)
				}
			}
			exists := func(name string) bool {
				_, err := os.Stat(other.path(name))
				return err == nil
			}
			check(t, os.Mkdir(one.path("new"), 0o700))
			until(t, "a new folder", func() bool { return exists("new") })
			check(t, os.Rename(one.path("file"), one.path("renamed")))
			until(t, "a new name", func() bool { return exists("renamed") })
			until(t, "that the old name is gone", func() bool { return !exists("file") })
			check(t, os.Chmod(one.path("renamed"), 0o600))
			until(t, "a new mode", func() bool {
				info, err := os.Stat(other.path("renamed"))
				return err == nil && info.Mode().Perm() == 0o600
			})

			// What one removes stays readable where the other has it open.
			writeFile(t, one.path("open elsewhere"), "still readable")
			file, err := os.Open(other.path("open elsewhere"))
			check(t, err)
			defer file.Close()
			check(t, os.Remove(one.path("open elsewhere")))
			got := make([]byte, 14)
			if _, err := file.ReadAt(got, 0); err != nil || string(got) != "still readable" {
				t.Errorf("a file that another mount removed reads %q, %v", got, err)
			}
		})
	}
}
