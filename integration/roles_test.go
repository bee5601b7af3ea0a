package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// guest mounts the public drive.
func (s *store) guest(t testing.TB, options ...string) *mount {
	t.Helper()
	path, err := program()
	check(t, err)
	return s.mountAs(t, path, s.mountpoint(t), append([]string{"--guest"}, options...)...)
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestAnAdminMountsAllDrivesAndUsersTheirOwn(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice, bob, admin := s.addUser(t, "alice"), s.addUser(t, "bob"), s.addUser(t, "ada", "--role", "admin")
		hers, his := s.mount(t, alice), s.mount(t, bob)
		writeFile(t, hers.path("hers"), "of alice")
		writeFile(t, his.path("his"), "of bob")
		all := s.mount(t, admin)
		if want := "mounted all drives at " + all.point; all.line != want {
			t.Errorf("printed %q, want %q", all.line, want)
		}
		got := names(t, all.point)
		if want := []string{"alice", "bob", "public"}; !slices.Equal(slices.DeleteFunc(slices.Sorted(slices.Values(got)), func(n string) bool { return n == "ada" }), want) {
			t.Errorf("the folders are %q, want %q", got, want)
		}
		if got := readFile(t, all.path("alice", "hers")) + readFile(t, all.path("bob", "his")); got != "of aliceof bob" {
			t.Errorf("the admin reads %q", got)
		}
		// Full rights, and what is changed the owner sees.
		s.person.shell(t, all.point, `
			echo admin >>alice/hers; mkdir -p alice/a/b; echo new >alice/a/b/new; mv alice/a alice/c; ln alice/hers alice/hard; ln -s hers alice/soft
			chmod 640 bob/his; touch -d @1 bob/his; setfattr -n user.note -v x bob/his; rm alice/hard
			echo shared >public/shared; mkdir public/folder; echo for all >public/folder/file`).ok(t)
		waitUntil(t, "alice sees what the admin changed", func() bool {
			text, err := os.ReadFile(hers.path("hers"))
			return err == nil && string(text) == "of aliceadmin\n"
		})
		if got := readFile(t, hers.path("c", "b", "new")); got != "new\n" {
			t.Errorf("alice reads %q", got)
		}
		// Drives are apart.
		for what, c := range map[string]struct {
			err  error
			want error
		}{
			"rename a file to another drive":       {os.Rename(all.path("alice", "hers"), all.path("bob", "hers")), unix.EXDEV},
			"link a file into another drive":       {os.Link(all.path("alice", "hers"), all.path("bob", "hers")), unix.EXDEV},
			"rename a drive":                       {os.Rename(all.path("alice"), all.path("alicia")), unix.EPERM},
			"rename a drive into another":          {os.Rename(all.path("alice"), all.path("bob", "alice")), unix.EXDEV},
			"remove a drive":                       {os.Remove(all.path("alice")), unix.EPERM},
			"make a drive":                         {os.Mkdir(all.path("carl"), 0o755), unix.EPERM},
			"make a file beside the drives":        {os.WriteFile(all.path("file"), nil, 0o644), unix.EPERM},
			"look for a user who has no drive":     {stat(all.path("carl")), unix.ENOENT},
			"look for what no drive can be called": {stat(all.path(".mediafs")), unix.ENOENT},
		} {
			if !errors.Is(c.err, c.want) {
				t.Errorf("%s: got %v, want %v", what, c.err, c.want)
			}
		}
		// A user has nothing of the others, not even of the public drive.
		if got, want := names(t, his.point), []string{"his"}; !slices.Equal(got, want) {
			t.Errorf("bob's drive shows %q, want %q", got, want)
		}
		for _, name := range []string{"public", "alice", "bob", "../alice", "ada"} {
			if err := stat(his.path(name)); !errors.Is(err, unix.ENOENT) && !strings.Contains(name, "..") {
				t.Errorf("bob looks at %s: got %v, want ENOENT", name, err)
			}
		}
		all.unmount(t)
		// The same numbers again for a mount that begins anew.
		all = s.mount(t, admin)
		if got := readFile(t, all.path("public", "folder", "file")); got != "for all\n" {
			t.Errorf("the admin reads %q", got)
		}
	})
}

func stat(path string) error {
	_, err := os.Lstat(path)
	return err
}

// waitUntil waits for something that is bound to come.
func waitUntil(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond) // the machine has others to do with it
	defer tick.Stop()
	for begun := time.Now(); !is(); <-tick.C {
		if time.Since(begun) > time.Minute {
			t.Fatalf("after a minute it is still not so that %s", what)
		}
	}
}

func TestAGuestReadsThePublicDriveAndChangesNothing(t *testing.T) {
	asEveryone(t, func(t *testing.T, s *store) {
		admin := s.mount(t, s.addUser(t, "ada", "--role", "admin"))
		s.person.shell(t, admin.point, `mkdir public/folder; echo for all >public/folder/file; ln -s folder public/link; chmod -R a+rX public`).ok(t)
		alice := s.mount(t, s.addUser(t, "alice"))
		s.person.shell(t, alice.point, "echo of alice >secret").ok(t)
		guest := s.guest(t)
		if want := "mounted public at " + guest.point; guest.line != want {
			t.Errorf("printed %q, want %q", guest.line, want)
		}
		if got := s.person.shell(t, guest.point, "cat folder/file link/file; find . | sort").ok(t); got != "for all\nfor all\n.\n./folder\n./folder/file\n./link\n" {
			t.Errorf("the guest sees %q", got)
		}
		before := s.person.shell(t, admin.path("public"), "find . -printf '%p %s %m %T@ %C@\n' | sort; cat folder/file").ok(t)
		for _, change := range []string{"touch new", "echo x >folder/file", "echo x >>folder/file", "truncate -s 0 folder/file", "rm folder/file", "rmdir folder",
			"mkdir x", "mv folder x", "ln folder/file x", "ln -s x y", "chmod 777 folder", "touch folder/file", "setfattr -n user.x -v x folder/file", "mkfifo x"} {
			if r := s.person.run(t, guest.point, "bash", "-c", change); r.code == 0 || !strings.Contains(r.stderr, "Read-only file system") {
				t.Errorf("a guest may: %v", r)
			}
		}
		if after := s.person.shell(t, admin.path("public"), "find . -printf '%p %s %m %T@ %C@\n' | sort; cat folder/file").ok(t); after != before {
			t.Errorf("the public drive was\n%s and is\n%s", before, after)
		}
		for _, name := range []string{"alice", "../alice", "secret", "../../alice/secret"} {
			if r := s.person.run(t, guest.point, "cat", name); r.code == 0 {
				t.Errorf("the guest reads: %v", r)
			}
		}
	})
}

func TestWhatCanNotBeMountedTogetherIsRefused(t *testing.T) {
	s := newStore(t, folder, person{})
	alice := s.addUser(t, "alice")
	for want, args := range map[string][]string{
		"only one of --token-file, --guest and --all-users":  {"--guest", "--token-file", alice.tokenFile},
		"only one of --token-file, --guest and --all-users ": {"--guest", "--all-users"},
		"--users-file goes with --all-users":                 {"--users-file", "x", "--token-file", alice.tokenFile},
		"no such file":                                       {"--all-users", "--users-file", filepath.Join(s.dir, "none")},
	} {
		if os.Geteuid() != 0 && slices.Contains(args, "--all-users") {
			want = "--all-users is for root"
		}
		r := s.mediafs(t, append(append([]string{"mount", "--store", s.address}, args...), s.mountpoint(t))...)
		if r.code != 2 || !strings.Contains(r.stderr, strings.TrimSpace(want)) || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("want %q: %v", want, r)
		}
	}
}

// A machine of several people: each has a folder that nobody else can enter, and what they make there is theirs.
func TestEachUserOfASharedMachineHasTheirOwnDrive(t *testing.T) {
	requireRoot(t)
	onEachStore(t, func(t *testing.T, s *store) {
		home := tempDir(t)
		anna, ben := person{uid: 65501, gid: 65501, home: home}, person{uid: 65502, gid: 65502, home: home}
		// Who they are to the store has nothing to do with who they are here.
		alice, bob := s.addUser(t, "alice"), s.addUser(t, "bob")
		check(t, os.Chown(alice.tokenFile, int(anna.uid), int(anna.gid)))
		users := filepath.Join(s.dir, "users")
		writeFile(t, users, fmt.Sprintf("# two people\n%d %s\n%d bob.token\n65503 carl.token\n", anna.uid, alice.tokenFile, ben.uid))
		path, err := program()
		check(t, err)
		m := s.mountAs(t, path, s.mountpoint(t), "--all-users", "--users-file", users)
		if want := "mounted all users at " + m.point; m.line != want {
			t.Errorf("printed %q, want %q", m.line, want)
		}
		if got, want := names(t, m.point), []string{"65501", "65502", "65503"}; !slices.Equal(got, want) {
			t.Errorf("the folders are %q, want %q", got, want)
		}
		hers, his := m.path("65501"), m.path("65502")
		anna.shell(t, hers, "echo of anna >file; mkdir -m 777 open; echo x >open/x; chmod 755 .").ok(t)
		ben.shell(t, his, "echo of ben >file").ok(t)
		if got := anna.run(t, hers, "stat", "-c", "%u:%g %a", ".", "file", "open/x").ok(t); got != "65501:65501 700\n65501:65501 644\n65501:65501 644\n" {
			t.Errorf("anna's are shown as %q", got)
		}
		for _, command := range []string{"ls " + hers, "cat " + hers + "/file", "stat " + hers + "/open/x", "touch " + hers + "/open/y", "cd " + hers, "mv " + his + "/file " + hers + "/open/"} {
			if r := ben.run(t, "/", "bash", "-c", command); r.code == 0 || !strings.Contains(r.stderr, "Permission denied") {
				t.Errorf("ben may: %v", r)
			}
		}
		if got := readFile(t, filepath.Join(hers, "file")) + readFile(t, filepath.Join(his, "file")); got != "of anna\nof ben\n" {
			t.Errorf("their files hold %q", got)
		}
		if err := stat(m.path("65503")); !errors.Is(err, unix.EKEYREVOKED) {
			t.Errorf("somebody who is not signed in: got %v, want EKEYREVOKED", err)
		}
		status := s.mediafs(t, "status").ok(t)
		for _, want := range []string{"all users", "65501 is signed in as alice", "65502 is signed in as bob", "65503 is not signed in"} {
			if !strings.Contains(status, want) {
				t.Errorf("status does not say %q:\n%s", want, status)
			}
		}

		// One session ends: the other goes on. A new token in its file, and the drive is back.
		renewed := s.mediafs(t, "user", "token", "--store", s.address, "alice").ok(t)
		waitUntil(t, "anna's session has ended", func() bool { return errors.Is(stat(filepath.Join(hers, "file")), unix.EKEYREVOKED) })
		ben.shell(t, his, "echo more >>file; cat file").ok(t)
		check(t, os.WriteFile(alice.tokenFile, []byte(renewed), 0o600))
		waitUntil(t, "anna is signed in again", func() bool { return stat(filepath.Join(hers, "file")) == nil })
		anna.shell(t, hers, "echo again >>file").ok(t)

		// Somebody comes later.
		carl := s.addUser(t, "carl")
		waitUntil(t, "carl is signed in", func() bool { return stat(m.path("65503")) == nil })
		if carl.name != "carl" {
			t.Error("carl has another name")
		}
		m.unmount(t)

		// What they made belongs to the owner of the drive, whoever mounts it.
		alice.tokenFile = s.saveToken(t, "alice2", renewed)
		own := s.mount(t, alice)
		if got := readFile(t, own.path("file")); got != "of anna\nagain\n" {
			t.Errorf("alice reads %q", got)
		}
		var st syscall.Stat_t
		check(t, syscall.Stat(own.path("file"), &st))
		if st.Uid != 0 || st.Gid != 0 {
			t.Errorf("mounted by root, anna's file belongs to %d:%d", st.Uid, st.Gid)
		}
		own.unmount(t)
		bobs := s.mount(t, bob)
		if got := readFile(t, bobs.path("file")); got != "of ben\nmore\n" {
			t.Errorf("bob reads %q", got)
		}
	})
}
