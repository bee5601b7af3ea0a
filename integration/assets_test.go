package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// assetLine is a line of `mediafs find --json`, as far as it is tested.
type assetLine struct {
	ID        string `json:"id"`
	Drive     string `json:"drive"`
	Path      string `json:"path"`
	Size      int64  `json:"size"`
	Type      string `json:"mime_type"`
	SHA256    string `json:"sha256"`
	Width     int    `json:"width"`
	Job       string `json:"job_id"`
	Described bool   `json:"described"`
}

// find is what `mediafs find` finds for a user, by path.
func (s *store) find(t *testing.T, u user, args ...string) map[string]assetLine {
	t.Helper()
	r := s.mediafs(t, append([]string{"find", "--store", s.address, "--token-file", u.tokenFile, "--json"}, args...)...)
	found := make(map[string]assetLine)
	for line := range strings.Lines(r.ok(t)) {
		var a assetLine
		check(t, json.Unmarshal([]byte(line), &a))
		found[a.Drive+":"+a.Path] = a
	}
	return found
}

func TestFilesOnADriveAreAssets(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice, bob := s.addUser(t, "alice"), s.addUser(t, "bob")
		hers, his := s.mount(t, alice), s.mount(t, bob)
		s.person.shell(t, his.point, "echo of bob >photo.gif").ok(t)
		s.person.shell(t, hers.point, `
			mkdir import plain; setfattr -n user.mediafs.job_id -v job-1 import
			printf 'GIF89a\2\0\3\0\0\0\0;' >import/photo.gif; echo text >plain/note`).ok(t)
		var photo assetLine
		waitUntil(t, "all is described", func() bool {
			found := s.find(t, alice)
			photo = found["alice:import/photo.gif"]
			return len(found) == 2 && photo.Described && found["alice:plain/note"].Described
		})
		if photo.Type != "image/gif" || photo.Width != 2 || photo.Size != 14 || photo.Job != "job-1" || len(photo.SHA256) != 64 || len(photo.ID) != 36 {
			t.Errorf("got %+v", photo)
		}
		if found := s.find(t, alice, "--type", "image/*", "--job", "job-1", "import"); len(found) != 1 || found["alice:import/photo.gif"] != photo {
			t.Errorf("by type and job: got %+v", found)
		}

		// A rename keeps what is known, a copy is another file, and the attributes tell the same.
		s.person.shell(t, hers.point, "mv import/photo.gif plain/moved.gif; cp -a plain/moved.gif import/copy.gif; ln plain/moved.gif link").ok(t)
		waitUntil(t, "the copy is described", func() bool { return s.find(t, alice)["alice:import/copy.gif"].Described })
		var listed string
		waitUntil(t, "the file that was moved is described", func() bool { // a store of folders looks at it again
			listed = s.person.run(t, hers.point, "getfattr", "-d", "plain/moved.gif").ok(t)
			return strings.Contains(listed, "user.mediafs.sha256=")
		})
		for _, want := range []string{
			fmt.Sprintf("user.mediafs.id=%q", photo.ID), `user.mediafs.mime_type="image/gif"`, fmt.Sprintf("user.mediafs.sha256=%q", photo.SHA256),
			`user.mediafs.width="2"`, `user.mediafs.height="3"`, `user.mediafs.job_id="job-1"`, "user.mediafs.created_at=", "user.mediafs.access_count=",
		} {
			if !strings.Contains(listed, want) {
				t.Errorf("%s is not in what getfattr -d lists:\n%s", want, listed)
			}
		}
		found := s.find(t, alice, "--type", "image/gif")
		if copied := found["alice:import/copy.gif"]; len(found) != 2 || copied.ID == photo.ID || copied.SHA256 != photo.SHA256 {
			t.Errorf("got %+v", found)
		}

		// bob sees his own alone.
		for _, args := range [][]string{nil, {"--drive", "alice"}, {"--name", "*"}} {
			for name := range s.find(t, bob, args...) {
				if name != "bob:photo.gif" {
					t.Errorf("bob finds %s by %q", name, args)
				}
			}
		}
		ada := s.addUser(t, "ada", "--role", "admin")
		if found := s.find(t, ada, "--drive", "bob"); len(found) != 1 || found["bob:photo.gif"].Size != 7 {
			t.Errorf("an admin finds %+v", found)
		}
	})
}

// TestASearchThatIsKilledLeavesNothingToMiss kills searches while they look at files for the first time, and others search meanwhile.
func TestASearchThatIsKilledLeavesNothingToMiss(t *testing.T) {
	t.Parallel()
	s := newStore(t, folder, person{})
	alice, bob := s.addUser(t, "alice"), s.addUser(t, "bob")
	hers := s.mount(t, alice)
	const folders, files = 20, 150
	for i := range folders {
		check(t, os.MkdirAll(filepath.Join(s.root, "alice", fmt.Sprint(i)), 0o755))
		for j := range files {
			check(t, os.WriteFile(filepath.Join(s.root, "alice", fmt.Sprint(i), fmt.Sprint(j)), []byte("a"), 0o644))
		}
	}
	killed := 0
	search := []string{"find", "--store", s.address, "--token-file", alice.tokenFile, "--limit", "1"}
	for after := 20 * time.Millisecond; s.killAt(t, after, search...); after += after / 4 {
		killed++
		number := fmt.Sprint(killed % files)
		s.person.shell(t, hers.point, "echo more >0/"+number+"; mv 1/"+number+" 2/moved-"+number+"; rm 3/"+number).ok(t)
	}
	if killed == 0 {
		t.Error("no search was killed")
	}
	for _, order := range [][]string{nil, {"--by-path"}} {
		if n := len(s.find(t, alice, order...)); n != folders*files-killed {
			t.Errorf("%v: found %d files of %d", order, n, folders*files-killed)
		}
		if n := len(s.find(t, alice, append(order, "--min-size", "2")...)); n != killed {
			t.Errorf("%v: found %d of %d files that a mount has changed", order, n, killed)
		}
		if n := len(s.find(t, bob, order...)); n != 0 {
			t.Errorf("bob finds %d files", n)
		}
	}
}
