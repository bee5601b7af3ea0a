package integration

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Whoever lets other users in with --allow-other has not yet opened the drive to them: its root has mode 0700 until its owner
// changes that.
func TestADriveIsClosedToOthersUntilItsOwnerOpensIt(t *testing.T) {
	requireRoot(t)
	onEachStore(t, func(t *testing.T, s *store) {
		r := newRaid(t, s, "--allow-other")
		var root unix.Stat_t
		check(t, unix.Stat(r.bob.point, &root))
		if root.Mode != unix.S_IFDIR|0o700 || root.Uid != 0 {
			t.Errorf("the root has mode %o and is user %d's, want 40700 and user 0's", root.Mode, root.Uid)
		}
		r.person.shell(t, r.bob.point, "chmod 666 f; chmod 777 d").ok(t)
		at := r.bob.path
		before := r.listingOf(t, r.bob.point)
		r.untouched(t, func() {
			for _, who := range []person{nobody(t), {uid: 65533, gid: 65533}} {
				who.on(t, func() { attempts(t, onOthers(at, unix.EACCES)) })
			}
			// Root's group is not root.
			person{uid: 65533}.on(t, func() { attempts(t, onOthers(at, unix.EACCES)) })
		})
		diffLines(t, "bob's drive", before, r.listingOf(t, r.bob.point))
	})
}

// onOthers are what may be tried on a drive with a file f and a folder d.
func onOthers(at func(...string) string, want error) []attempt {
	stat := func(path string) func() error {
		return func() error { return unix.Lstat(path, &unix.Stat_t{}) }
	}
	open := func(path string, flags uint64) func() error {
		how := unix.OpenHow{Flags: flags}
		if flags&unix.O_CREAT != 0 {
			how.Mode = 0o666
		}
		return opening(unix.AT_FDCWD, path, how)
	}
	return []attempt{
		{"stat a file", stat(at("f")), want},
		{"stat what is not there", stat(at("none")), want},
		{"list", open(at(), unix.O_RDONLY|unix.O_DIRECTORY), want},
		{"open by path alone", open(at("f"), unix.O_PATH), want},
		{"read", open(at("f"), unix.O_RDONLY), want},
		{"write", open(at("f"), unix.O_WRONLY|unix.O_TRUNC), want},
		{"create", open(at("new"), unix.O_WRONLY|unix.O_CREAT), want},
		{"create in an open folder", open(at("d", "new"), unix.O_WRONLY|unix.O_CREAT), want},
		{"mkdir", func() error { return unix.Mkdir(at("new"), 0o777) }, want},
		{"remove", func() error { return unix.Unlink(at("f")) }, want},
		{"rename", func() error { return unix.Rename(at("f"), at("d", "f")) }, want},
		{"link", func() error { return unix.Link(at("f"), at("d", "f")) }, want},
		{"change the mode", func() error { return unix.Chmod(at("f"), 0o777) }, want},
		{"give away", func() error { return unix.Lchown(at("f"), 65533, 65533) }, want},
		{"set an attribute", func() error { return unix.Setxattr(at("f"), "user.x", []byte("x"), 0) }, want},
		{"read an attribute", func() error { _, err := unix.Lgetxattr(at("f"), "user.x", nil); return err }, want},
	}
}

// Root is a stranger on an ordinary user's mount, and other users are on root's.
func TestAMountLetsNobodyElseIn(t *testing.T) {
	requireRoot(t)
	onEachKind(t, func(t *testing.T, k kind) {
		s := newStore(t, k, nobody(t))
		m := s.mount(t, s.addUser(t, "alice"))
		s.person.shell(t, m.point, "umask 0; echo secret >f; mkdir d; chmod 777 .; setfattr -n user.x -v y f").ok(t)
		before := s.person.shell(t, m.point, "find . -printf '%p %i %m %s %T@\\n' | sort; cat f").ok(t)
		attempts(t, onOthers(m.path, unix.EACCES))
		for _, who := range []person{{uid: 65533, gid: 65533}, {uid: 65533, gid: s.person.gid}} {
			who.on(t, func() { attempts(t, onOthers(m.path, unix.EACCES)) })
		}
		if after := s.person.shell(t, m.point, "find . -printf '%p %i %m %s %T@\\n' | sort; cat f").ok(t); after != before {
			t.Errorf("the drive has changed from %q to %q", before, after)
		}
	})
}

// A drive's own files are whoever's mounts it, on any machine, and come back as they were; those given to others stay theirs.
func TestOwnersComeBackUnchangedFromAnotherMachinesUser(t *testing.T) {
	requireRoot(t)
	onEachKind(t, func(t *testing.T, k kind) {
		// The store is an ordinary user's, so that both may mount it.
		ordinary := newStore(t, k, nobody(t))
		alice := ordinary.addUser(t, "alice")
		ordinary.mount(t, alice).unmount(t)
		roots := *ordinary
		roots.person = person{}

		owners := func(m *mount) string {
			t.Helper()
			return strings.TrimSpace(m.s.person.run(t, m.point, "find", ".", "-printf", `%p %U:%G %m\n`).ok(t))
		}
		expect := func(m *mount, own string) {
			t.Helper()
			_, group, _ := strings.Cut(own, ":")
			for path, want := range map[string]string{
				"": own, "own": own, "dir": own, "link": own, "given": "1234:5678", "swapped": "1234:" + group,
			} {
				got := strings.TrimSpace(m.s.person.run(t, m.point, "stat", "-c", "%u:%g", "./"+path).ok(t))
				if got != want {
					t.Errorf("mounted by user %d, %q is %s's, want %s's", m.s.person.uid, path, got, want)
				}
			}
		}
		m := roots.mount(t, alice)
		roots.person.shell(t, m.point, `echo x >own; chmod 640 own; mkdir dir; ln -s own link; echo x >given; chown 1234:5678 given
			echo x >swapped; chown 1234 swapped; chmod 4755 dir`).ok(t)
		expect(m, "0:0")
		first := owners(m)
		m.unmount(t)
		before := ordinary.owned(t)

		m = ordinary.mount(t, alice)
		expect(m, "65534:65534")
		if r := ordinary.person.run(t, m.point, "chown", "1234", "own"); r.code == 0 || !strings.Contains(r.stderr, "Operation not permitted") {
			t.Errorf("an ordinary user gives a file away: %v", r)
		}
		m.unmount(t)
		if after := ordinary.owned(t); after != before {
			t.Errorf("the store has %s, want %s", after, before)
		}

		m = roots.mount(t, alice)
		expect(m, "0:0")
		if again := owners(m); again != first {
			t.Errorf("root sees\n%s\nwant\n%s", again, first)
		}
		m.unmount(t)
	})
}

// owned is whose alice's files are in the store itself.
func (s *store) owned(t *testing.T) string {
	t.Helper()
	if s.kind == folder {
		return person{}.run(t, filepath.Join(s.root, "alice"), "find", ".", "-printf", `%p %U:%G %m, `).ok(t)
	}
	var rows string
	const query = `SELECT string_agg(format('%s %s:%s %s', ino, uid, gid, mode), ', ' ORDER BY ino) FROM mediafs.nodes`
	check(t, s.connect(t).QueryRow(context.Background(), query).Scan(&rows))
	return rows
}

// Whoever may not read a drive's folder in the store gets nothing of it past the drive either.
func TestAFoldersDriveIsClosedInTheStoreToo(t *testing.T) {
	requireRoot(t)
	t.Parallel()
	r := newRaid(t, newStore(t, folder, person{}))
	for _, path := range []string{filepath.Join(r.root, "alice"), filepath.Join(r.root, ".mediafs")} {
		info, err := os.Stat(path)
		check(t, err)
		if info.Mode() != os.ModeDir|0o700 {
			t.Errorf("%s has mode %v, want 0700", path, info.Mode())
		}
	}
	read := func(path ...string) func() error {
		return opening(unix.AT_FDCWD, filepath.Join(append([]string{r.root}, path...)...), unix.OpenHow{Flags: unix.O_RDONLY})
	}
	r.untouched(t, func() {
		nobody(t).on(t, func() {
			attempts(t, []attempt{
				{"list alice's folder", read("alice"), unix.EACCES},
				{"read her file", read("alice", "same-number"), unix.EACCES},
				{"read the accounts", read(".mediafs", "accounts.json"), unix.EACCES},
			})
		})
	})
}
