package main

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/fusefs"
)

func TestParseMountinfoFindsOurMounts(t *testing.T) {
	const table = `22 1 0:21 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 22 0:45 / /mnt/drive rw,nosuid,nodev shared:7 master:2 - fuse.mediafs mediafs:anna rw,user_id=0,group_id=0
37 22 0:46 / /mnt/a\040b\134c\011d rw - fuse.mediafs mediafs:bob rw
38 22 0:47 / /mnt/other rw - fuse.sshfs host:/x rw
39 22 0:48 / /mnt/hidden rw - fuse.mediafs mediafs:carl rw
40 39 0:49 / /mnt/hidden rw - tmpfs tmpfs rw
`
	want := map[string]string{"/mnt/drive": "mediafs:anna", "/mnt/a b\\c\td": "mediafs:bob"}
	got, err := parseMountinfo(strings.NewReader(table))
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, line := range []string{"36 22 0:45 / /mnt rw", "36 22 - fuse.mediafs mediafs:anna rw", "36 22 0:45 / /mnt rw - fuse.mediafs"} {
		if got, err := parseMountinfo(strings.NewReader(line)); err == nil {
			t.Errorf("%q: got %v, want an error", line, got)
		}
	}
}

func TestUnescapeOctalLeavesWhatIsNoEscape(t *testing.T) {
	for s, want := range map[string]string{"": "", "a": "a", `\`: `\`, `\04`: `\04`, `\999`: `\999`, `a\040`: "a ", `\134040`: `\040`, `\\040`: `\ `} {
		if got := unescapeOctal(s); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
}

func TestResolveMountpointFollowsLinks(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "folder")
	link, parent := filepath.Join(dir, "link"), filepath.Join(dir, "parent")
	if err := errors.Join(os.Mkdir(folder, 0o700), os.Symlink(folder, link), os.Symlink(dir, parent)); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for path, want := range map[string]string{
		folder:                         folder,
		"folder":                       folder,
		"folder/":                      folder,
		"./folder/../folder":           folder,
		link:                           folder,
		filepath.Join(parent, "link"):  folder,
		filepath.Join(parent, "x"):     filepath.Join(dir, "x"),
		filepath.Join(dir, "no", "no"): filepath.Join(dir, "no", "no"),
	} {
		if got, err := resolveMountpoint(path); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", path, got, err, want)
		}
	}
}

func TestAFolderThatCannotBeAMountpointIsExitCode8AndMakesNoDrive(t *testing.T) {
	isolate(t)
	store := newStore(t)
	token := newUser(t, store, "anna")
	dir, full := t.TempDir(), t.TempDir()
	file, fifo := filepath.Join(full, "file"), filepath.Join(full, "fifo")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	for mountpoint, want := range map[string]error{
		filepath.Join(dir, "missing"): fusefs.ErrMountpointMissing,
		file:                          fusefs.ErrMountpointNotDir,
		filepath.Join(file, "below"):  fusefs.ErrMountpointNotDir,
		full:                          fusefs.ErrMountpointNotEmpty,
		fifo:                          fusefs.ErrMountpointNotDir,
		"/proc":                       fusefs.ErrMounted,
	} {
		for _, flags := range [][]string{nil, {"--daemon"}} {
			got := mediafs(t, append([]string{"mount", "--store", store, "--token-file", token, mountpoint}, flags...)...)
			wantError(t, got, exitMountpoint, "mountpoint "+mountpoint, want.Error())
		}
	}
	if _, err := os.Stat(filepath.Join(store, "anna")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the drive was made: %v", err)
	}
}

func TestUmountOfWhatIsNotMountedIsExitCode8(t *testing.T) {
	isolate(t)
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "missing"), filepath.Join(dir, "no", "no"), "/", "/proc"} {
		wantError(t, mediafs(t, "umount", path), exitMountpoint, "umount "+path, "no drive is mounted there", "mediafs status")
	}
}
