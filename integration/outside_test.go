package integration

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// soon is how long a change by another program may take to be seen: a second, and one more for a busy machine.
const soon = 2 * time.Second

// until asks again and again until the answer is yes, for as long as a change may take to be seen.
func until(t *testing.T, what string, seen func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(soon)
	for !seen() {
		select {
		case <-tick.C:
		case <-limit:
			if !seen() {
				t.Errorf("not on the drive after %v: %s", soon, what)
			}
			return
		}
	}
}

func TestWhatAnotherProgramDoesInTheFolderIsOnTheDrive(t *testing.T) {
	s := newStore(t, folder, person{})
	alice := s.addUser(t, "alice")
	m := s.mount(t, alice)
	root := s.folder(alice)
	listed := func(dir, name string) bool {
		entries, err := os.ReadDir(m.path(dir))
		check(t, err)
		for _, entry := range entries {
			if entry.Name() == name {
				return true
			}
		}
		return false
	}
	holds := func(name, content string) func() bool {
		return func() bool {
			got, err := os.ReadFile(m.path(name))
			return err == nil && string(got) == content
		}
	}

	// The kernel now remembers that there is nothing.
	if _, err := os.Stat(m.path("photo.jpg")); !os.IsNotExist(err) {
		t.Fatalf("stat of what is not there: %v", err)
	}
	if listed(".", "photo.jpg") {
		t.Fatal("a file is listed that is not there")
	}
	writeFile(t, filepath.Join(root, "photo.jpg"), "first")
	until(t, "a new file, by its name", holds("photo.jpg", "first"))
	until(t, "a new file, in the listing", func() bool { return listed(".", "photo.jpg") })

	writeFile(t, filepath.Join(root, "photo.jpg"), "second, and longer")
	until(t, "content that was written over", holds("photo.jpg", "second, and longer"))

	check(t, os.MkdirAll(filepath.Join(root, "2024", "may"), 0o755))
	writeFile(t, filepath.Join(root, "2024", "may", "video"), "moving")
	until(t, "a file in new folders", holds("2024/may/video", "moving"))
	check(t, os.Rename(filepath.Join(root, "2024", "may"), filepath.Join(root, "2024", "june")))
	until(t, "a folder that was renamed", holds("2024/june/video", "moving"))
	until(t, "that its old name is gone", func() bool { return !listed("2024", "may") })

	writeFile(t, filepath.Join(root, "upload.tmp"), "replaced at once")
	check(t, os.Rename(filepath.Join(root, "upload.tmp"), filepath.Join(root, "photo.jpg")))
	until(t, "a file that took another's place", holds("photo.jpg", "replaced at once"))

	check(t, os.Chmod(filepath.Join(root, "photo.jpg"), 0o640))
	until(t, "a mode that was changed", func() bool {
		info, err := os.Stat(m.path("photo.jpg"))
		return err == nil && info.Mode().Perm() == 0o640
	})

	check(t, os.Remove(filepath.Join(root, "photo.jpg")))
	until(t, "that a file is gone", func() bool {
		_, err := os.Stat(m.path("photo.jpg"))
		return os.IsNotExist(err) && !listed(".", "photo.jpg")
	})
}

func TestWhatIsWrittenOnTheDriveIsAPlainFile(t *testing.T) {
	s := newStore(t, folder, person{})
	alice := s.addUser(t, "alice")
	s.mount(t, alice).unmount(t) // makes the folder
	root := s.folder(alice)
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	if uid == 0 {
		// The web application's user owns the folder.
		uid, gid = 1234, 5678
		check(t, os.Chown(root, int(uid), int(gid)))
	}
	m := s.mount(t, alice)
	content := bytes.Repeat([]byte("all the same bytes\n"), 100_000)
	check(t, os.WriteFile(m.path("video.mp4"), content, 0o640))
	check(t, os.Mkdir(m.path("folder"), 0o750))
	check(t, os.Symlink("video.mp4", m.path("link")))

	got, err := os.ReadFile(filepath.Join(root, "video.mp4"))
	check(t, err)
	if !bytes.Equal(got, content) {
		t.Errorf("the plain file has %d bytes that differ from the %d written", len(got), len(content))
	}
	for name, mode := range map[string]os.FileMode{
		"video.mp4": 0o640, "folder": os.ModeDir | 0o750, "link": os.ModeSymlink | 0o777,
	} {
		info, err := os.Lstat(filepath.Join(root, name))
		check(t, err)
		if info.Mode() != mode {
			t.Errorf("%s: mode %v, want %v", name, info.Mode(), mode)
		}
		if stat := info.Sys().(*syscall.Stat_t); stat.Uid != uid || stat.Gid != gid {
			t.Errorf("%s: owner %d:%d, want %d:%d as the folder", name, stat.Uid, stat.Gid, uid, gid)
		}
		// On the drive it is the user's who mounted it.
		info, err = os.Lstat(m.path(name))
		check(t, err)
		if stat := info.Sys().(*syscall.Stat_t); int(stat.Uid) != os.Geteuid() || int(stat.Gid) != os.Getegid() {
			t.Errorf("%s: owner on the drive %d:%d, want %d:%d", name, stat.Uid, stat.Gid, os.Geteuid(), os.Getegid())
		}
	}
}
