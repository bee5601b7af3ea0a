package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestTheRuntimeFolderIsTheFirstThatIsSet(t *testing.T) {
	isolate(t)
	dir := t.TempDir()
	t.Setenv("MEDIAFS_RUNTIME_DIR", filepath.Join(dir, "own"))
	t.Setenv("XDG_RUNTIME_DIR", dir)
	if got, err := runtimeFolder(); err != nil || got != filepath.Join(dir, "own") {
		t.Errorf("got %s, %v", got, err)
	}
	t.Setenv("MEDIAFS_RUNTIME_DIR", "")
	got, err := runtimeFolder()
	if err != nil || got != filepath.Join(dir, "mediafs") {
		t.Errorf("got %s, %v", got, err)
	}
	info, err := os.Stat(got)
	if err != nil || info.Mode() != os.ModeDir|0o700 {
		t.Errorf("got mode %v, %v, want 0700", info.Mode(), err)
	}
	if _, err := runtimeFolder(); err != nil {
		t.Errorf("the second time: %v", err)
	}
}

func TestAFolderThatOthersCouldUseIsRefused(t *testing.T) {
	dir := t.TempDir()
	mkdir := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	private := mkdir("private", 0o700)
	link, file := filepath.Join(dir, "link"), filepath.Join(dir, "file")
	if err := errors.Join(os.Symlink(private, link), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path      string
		forbidden os.FileMode
		want      string
	}{
		{private, 0o077, ""},
		{mkdir("readable", 0o755), 0o022, ""},
		{mkdir("readable, where nobody may", 0o755), 0o077, "open to others (mode 0755)"},
		{mkdir("group's", 0o770), 0o022, "open to others (mode 0770)"},
		{mkdir("everybody's", 0o777), 0o022, "open to others"},
		{link, 0o022, "is not a folder"},
		{file, 0o022, "is not a folder"},
		{filepath.Join(dir, "missing", "deeper"), 0o022, "no such file"},
	} {
		err := checkPrivate(c.path, c.forbidden)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.path)) {
			t.Errorf("%s: got %v, want %q", c.path, err, c.want)
		}
	}
	if os.Geteuid() == 0 {
		other := mkdir("another's", 0o700)
		if err := os.Chown(other, 4321, 4321); err != nil {
			t.Fatal(err)
		}
		if err := checkPrivate(other, 0o022); err == nil || !strings.Contains(err.Error(), "belongs to user "+strconv.Itoa(4321)) {
			t.Errorf("another's folder: got %v", err)
		}
	}
}

func TestABadRuntimeFolderIsOneLine(t *testing.T) {
	isolate(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("MEDIAFS_RUNTIME_DIR", file)
	wantError(t, mediafs(t, "status"), exitFailed, file, "is not a folder", "set MEDIAFS_RUNTIME_DIR")
	wantError(t, mediafs(t, "umount", "/mnt"), exitFailed, file)
}
