package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/auth"
)

func TestAUsersFileNamesUsersAndTheirTokenFiles(t *testing.T) {
	got, err := parseUsersFile([]byte("# who\n\nanna /etc/mediafs/anna.token\n\t1002 \t a folder/ben.token  \r\n"))
	want := []userEntry{{3, "anna", "/etc/mediafs/anna.token"}, {4, "1002", "a folder/ben.token"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for text, want := range map[string]string{
		"":                 "names no user",
		"# nobody\n":       "names no user",
		"anna":             "line 1: the token file is missing",
		"anna /a\nben":     "line 2: the token file is missing",
		"anna /a\nanna /b": "line 2: anna is in line 1 already",
		"../anna /a":       `can't be called "../anna"`,
		".. /a":            `can't be called ".."`,
		"anna /a\x00b":     "control characters",
		strings.Repeat("#\n", maxUsersFile/2) + "#": "is longer than",
	} {
		if got, err := parseUsersFile([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %+v, %v, want an error with %q", text, got, err, want)
		}
	}
}

func FuzzUsersFile(f *testing.F) {
	f.Add([]byte("# who\nanna /etc/mediafs/anna.token\n1002 ben.token\n"))
	f.Add([]byte("anna\n"))
	f.Add([]byte("anna /a\nanna /b\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseUsersFile(data)
		if (err == nil) != (len(entries) > 0) {
			t.Fatalf("got %d entries and the error %v", len(entries), err)
		}
		seen := map[string]bool{}
		for _, e := range entries {
			if seen[e.user] || auth.UserID(e.user).Check() != nil || e.tokenFile == "" || strings.ContainsAny(e.tokenFile, "\x00\n") {
				t.Errorf("got %+v", e)
			}
			seen[e.user] = true
			again, err := parseUsersFile([]byte(e.user + " " + e.tokenFile))
			if err != nil || again[0].user != e.user || again[0].tokenFile != e.tokenFile {
				t.Errorf("%+v alone: got %+v, %v", e, again, err)
			}
		}
	})
}

func TestAUsersFileThatOthersCanChangeIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has files that only root can change")
	}
	path := filepath.Join(t.TempDir(), "users")
	write := func(mode os.FileMode, uid int) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, []byte("root root.token\n"), 0o600), os.Chmod(path, mode), os.Chown(path, uid, 0)); err != nil {
			t.Fatal(err)
		}
	}
	write(0o644, 0)
	users, err := readUsersFile(path)
	if err != nil || len(users) != 1 || users[0].uid != 0 || users[0].tokenFile != filepath.Join(filepath.Dir(path), "root.token") {
		t.Errorf("got %+v, %v", users, err)
	}
	for _, c := range []struct {
		mode os.FileMode
		uid  int
	}{{0o664, 0}, {0o646, 0}, {0o600, 65534}} {
		write(c.mode, c.uid)
		if _, err := readUsersFile(path); err == nil || !strings.Contains(err.Error(), "others than root can change it") {
			t.Errorf("mode %o of %d: got %v", c.mode, c.uid, err)
		}
	}
	write(0o600, 0)
	if err := os.WriteFile(path, []byte("0 a\nroot b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readUsersFile(path); err == nil || !strings.Contains(err.Error(), "line 2: root is in a line before") {
		t.Errorf("one user by name and by number: got %v", err)
	}
	if err := os.WriteFile(path, []byte("nobody-has-this-name a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readUsersFile(path); err == nil || !strings.Contains(err.Error(), "no user nobody-has-this-name") {
		t.Errorf("an unknown user: got %v", err)
	}
}

// Anna, 1001, keeps her token in a folder of her own. Ben, 1002, is the victim: she must not come by his drive.
func TestATokenFileThatMayBeAnothersIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of several users")
	}
	const anna, ben = 1001, 1002
	dir := t.TempDir()
	put := func(name string, uid int, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(auth.NewToken().Reveal()), 0o600),
			os.Chown(path, uid, uid), os.Chmod(path, mode))
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	hers, his, roots := put("anna/token", anna, 0o600), put("ben/token", ben, 0o600), put("etc/ben.token", 0, 0o600)
	link := func(target, name string, link func(string, string) error) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := link(target, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, good := range []string{hers, put("etc/anna.token", 0, 0o400)} {
		if token, err := (localUser{name: "anna", uid: anna, tokenFile: good}).read(); err != nil || token.IsZero() {
			t.Errorf("%s: got %v", good, err)
		}
	}
	fifo := filepath.Join(dir, "anna/fifo")
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.Chown(fifo, anna, anna)); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ path, want string }{
		"his file":                          {his, "it belongs to user 1002"},
		"a symbolic link to his file":       {link(his, "anna/link", os.Symlink), "symbolic link"},
		"a symbolic link to root's file":    {link(roots, "anna/link2", os.Symlink), "symbolic link"},
		"a folder that is a link to root's": {link(filepath.Dir(roots), "anna/etc", os.Symlink) + "/ben.token", "symbolic link"},
		"another name of his file":          {link(his, "anna/name", os.Link), "it belongs to user 1002"},
		"another name of root's file":       {link(roots, "anna/name2", os.Link), "it has 2 names"},
		"her file, which others can read":   {put("anna/open", anna, 0o644), "others can read it"},
		"a pipe":                            {fifo, "not a plain file"},
		"a folder":                          {filepath.Dir(hers), "not a plain file"},
		"nothing":                           {filepath.Join(dir, "anna/none"), "no such file"},
		"a file without a token":            {put("anna/empty", anna, 0o600), ""},
	} {
		if c.want == "" {
			if err := os.Truncate(c.path, 0); err != nil {
				t.Fatal(err)
			}
			c.want = auth.ErrInvalid.Error()
		}
		token, err := (localUser{name: "anna", uid: anna, tokenFile: c.path}).read()
		if err == nil || !token.IsZero() || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", what, err, c.want)
		}
	}
}
