package fusefs

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSetUserIDBitsGoAsOnExt4(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		what   string
		uid    uint32
		script string
		want   uint32
	}{
		{"an ordinary user appends", nobody, "echo x >> file", 0o777},
		{"an ordinary user writes within", nobody, "printf x 1<> file", 0o777},
		{"an ordinary user truncates", nobody, "truncate -s 1 file", 0o777},
		{"an ordinary user opens with O_TRUNC", nobody, ": > file", 0o777},
		{"an ordinary user allocates", nobody, "fallocate -l 10000 file", 0o777},
		{"an ordinary user only reads", nobody, "cat file", 0o6777},
		{"root appends", 0, "echo x >> file", 0o6777},
		{"root truncates", 0, "truncate -s 1 file", 0o6777},
		{"root opens with O_TRUNC", 0, ": > file", 0o6777},
		{"root allocates", 0, "fallocate -l 10000 file", 0o6777},
		{"root changes the owner", 0, "chown 1 file", 0o777},
		{"root changes the group", 0, "chgrp 1 file", 0o777},
		{"root changes the owner of a file that the group may not execute", 0, "chmod 2766 file; chown 1 file", 0o2766},
	} {
		for where, root := range map[string]func() string{
			"drive": func() string { _, dir := mount(t, newDrive(t), Options{AllowOther: true}); return dir },
			"disk":  func() string { return openTempDir(t) },
		} {
			dir := root()
			path := filepath.Join(dir, "file")
			must(t, os.WriteFile(path, []byte("some content\n"), 0o644))
			must(t, unix.Chmod(path, 0o6777))
			if said, err := shellAs(c.uid, dir, c.script); err != nil {
				t.Errorf("%s, %s: %v: %s", where, c.what, err, said)
			}
			var st unix.Stat_t
			must(t, unix.Stat(path, &st))
			if got := st.Mode & permissions; got != c.want {
				t.Errorf("%s, %s: got mode %o, want %o", where, c.what, got, c.want)
			}
		}
	}
}

func TestNewOwnersOfWhatIsNoRegularFileTakeSetUserIDBitsAsOnExt4(t *testing.T) {
	needRoot(t)
	for what, c := range map[string]struct {
		make string
		want uint32
	}{
		"a pipe":                                {"mkfifo node; chmod 6555 node", 0o555},
		"a device":                              {"mknod node c 1 3; chmod 6555 node", 0o555},
		"a pipe that the group may not execute": {"mkfifo node; chmod 6745 node", 0o2745},
		"a folder":                              {"mkdir node; chmod 6555 node", 0o6555},
	} {
		_, drive := mount(t, newDrive(t), Options{AllowOther: true})
		for where, dir := range map[string]string{"drive": drive, "disk": openTempDir(t)} {
			for _, change := range []string{"chown 1 node", "chgrp 1 node", "chown : node"} {
				if said, err := shellAs(0, dir, c.make+"; "+change); err != nil {
					t.Errorf("%s, %s, %s: %v: %s", where, what, change, err, said)
				}
				path := filepath.Join(dir, "node")
				var st unix.Stat_t
				must(t, unix.Stat(path, &st))
				if got := st.Mode & permissions; got != c.want {
					t.Errorf("%s, %s, %s: got mode %o, want %o", where, what, change, got, c.want)
				}
				must(t, os.Remove(path))
			}
		}
	}
}

// Whoever is not the owner takes nothing away with chown(2), also if it is given neither owner nor group: then a local file system
// refuses it, and a drive does nothing.
func TestAStrangerTakesNoSetUserIDBitsAway(t *testing.T) {
	needRoot(t)
	_, dir := mount(t, newDrive(t), Options{AllowOther: true})
	must(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "file")
	must(t, os.WriteFile(path, nil, 0o644))
	must(t, unix.Chmod(path, 0o6755))
	said, err := shellAs(nobody, dir, "chown : file")
	t.Logf("chown says %q, %v", said, err)
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	if got := st.Mode & permissions; got != 0o6755 {
		t.Errorf("got mode %o, want 6755", got)
	}
}

func TestSetUserIDBitsGoAgainAfterTheyWereSetAgain(t *testing.T) {
	needRoot(t)
	_, dir := mount(t, newDrive(t), Options{AllowOther: true})
	path := filepath.Join(dir, "file")
	must(t, os.WriteFile(path, nil, 0o777))
	must(t, unix.Chmod(path, 0o777))
	// One shell has the file open all the time; the bits are set while it does.
	script := `exec 3>>file; echo 1 >&3; touch ready; until test -e go; do :; done; echo 2 >&3`
	must(t, unix.Chmod(dir, 0o777))
	done := make(chan error, 1)
	go func() {
		_, err := shellAs(nobody, dir, script)
		done <- err
	}()
	for {
		if _, err := os.Stat(filepath.Join(dir, "ready")); err == nil {
			break
		}
	}
	must(t, unix.Chmod(path, 0o4777))
	must(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o644))
	must(t, soon(t, "the end of the shell", done))
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	if got := st.Mode & permissions; got != 0o777 {
		t.Errorf("got mode %o after the second write, want 777", got)
	}
}

func TestKernelHasNoQuestionsBeforeTheFirstWrite(t *testing.T) {
	m, dir := mount(t, newDrive(t), Options{})
	f, err := os.Create(filepath.Join(dir, "file"))
	must(t, err)
	defer f.Close()
	before := m.Stats().Requests
	const writes = 10
	for range writes {
		_, err = f.Write([]byte("x"))
		must(t, err)
	}
	// At most one question for security.capability, for which nobody asks the drive.
	if got := m.Stats().Requests - before; got > writes+1 {
		t.Errorf("%d writes made %d requests, want at most one more", writes, got)
	}
}
