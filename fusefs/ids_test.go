package fusefs

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOwnersAreShownAsTheMounter(t *testing.T) {
	needRoot(t)
	drive := &wrapped{Drive: newDrive(t), owner: func() (uint32, uint32) { return 1000, 2000 }}
	_, dir := mount(t, drive, Options{})
	path := filepath.Join(dir, "file")
	must(t, os.WriteFile(path, nil, 0o644))

	for _, c := range []struct {
		what             string
		uid, gid         int // as seen in the mount
		wantUID, wantGID uint32
		dontChown        bool
	}{
		{what: "a new file is its mounter's", uid: 0, gid: 0, wantUID: 1000, wantGID: 2000, dontChown: true},
		{what: "given to the number of the drive's owner", uid: 1000, gid: 2000, wantUID: 0, wantGID: 0},
		{what: "given to somebody else", uid: 1234, gid: 1000, wantUID: 1234, wantGID: 1000},
		{what: "given back", uid: 0, gid: 0, wantUID: 1000, wantGID: 2000},
	} {
		if !c.dontChown {
			must(t, os.Chown(path, c.uid, c.gid))
		}
		var st unix.Stat_t
		must(t, unix.Stat(path, &st))
		if int(st.Uid) != c.uid || int(st.Gid) != c.gid {
			t.Errorf("%s: the mount shows %d:%d, want %d:%d", c.what, st.Uid, st.Gid, c.uid, c.gid)
		}
		if attr := attrOf(t, drive, "file"); attr.UID != c.wantUID || attr.GID != c.wantGID {
			t.Errorf("%s: the drive has %d:%d, want %d:%d", c.what, attr.UID, attr.GID, c.wantUID, c.wantGID)
		}
	}
	for name, make := range map[string]func(string) error{
		"folder": func(path string) error { return os.Mkdir(path, 0o755) },
		"link":   func(path string) error { return os.Symlink("x", path) },
		"fifo":   func(path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		must(t, make(filepath.Join(dir, name)))
		if attr := attrOf(t, drive, name); attr.UID != 1000 || attr.GID != 2000 {
			t.Errorf("a new %s: the drive has %d:%d, want 1000:2000", name, attr.UID, attr.GID)
		}
	}
}

func TestIDsMapOneToOne(t *testing.T) {
	numbers := []uint32{0, 1, 999, 1000, 1001, 65534, 1<<32 - 1}
	for _, owner := range numbers {
		for _, mounter := range numbers {
			i := ids{ownerUID: owner, mountUID: mounter, ownerGID: mounter, mountGID: owner}
			seen := make(map[uint32]bool)
			for _, id := range numbers {
				if got := i.uid(i.uid(id)); got != id {
					t.Errorf("owner %d, mounter %d: %d comes back as %d", owner, mounter, id, got)
				}
				if got := i.gid(i.gid(id)); got != id {
					t.Errorf("owner %d, mounter %d: group %d comes back as %d", owner, mounter, id, got)
				}
				if seen[i.uid(id)] {
					t.Errorf("owner %d, mounter %d: two users are shown as %d", owner, mounter, i.uid(id))
				}
				seen[i.uid(id)] = true
			}
			if i.uid(owner) != mounter {
				t.Errorf("owner %d is shown as %d, want %d", owner, i.uid(owner), mounter)
			}
		}
	}
}
