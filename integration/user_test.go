package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What asEveryone runs elsewhere holds for ordinary users; here is what holds for them alone.

func TestAnOrdinaryUserCopiesATreeThroughFusermount(t *testing.T) {
	onEachKind(t, func(t *testing.T, k kind) {
		s := newStore(t, k, nobody(t))
		source := filepath.Join(goSources(t), "encoding")
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		entry := mounted(t, m.point)
		for _, want := range []string{"nosuid", "nodev"} {
			if !slices.Contains(entry.options, want) {
				t.Errorf("mounted with %q, want %s among them", entry.options, want)
			}
		}
		s.person.run(t, s.dir, "cp", "-a", source, m.path("encoding")).ok(t)
		sameTree(t, s.person, source, m.path("encoding"))
		before := listing(t, s.person, m.point)
		m.unmount(t)
		m = s.mountAt(t, alice, m.point)
		diffLines(t, "find after mounting again", before, listing(t, s.person, m.point))
		s.person.run(t, s.dir, "rm", "-rf", m.path("encoding")).ok(t)
		m.unmount(t)
		s.isEmpty(t)
	})
}

// Nobody else, not even root, comes into a drive that an ordinary user has mounted.
func TestADriveIsItsMountersAlone(t *testing.T) {
	requireRoot(t)
	onEachKind(t, func(t *testing.T, k kind) {
		mounter := nobody(t)
		other := person{uid: 65533, gid: 65533, home: mounter.home}
		for _, test := range []struct {
			who      string
			mounter  person
			visitors map[string]person
		}{
			{"root", person{}, map[string]person{"an ordinary user": other}},
			{"an ordinary user", mounter, map[string]person{"another": other, "root": {}}},
		} {
			s := newStore(t, k, test.mounter)
			m := s.mount(t, s.addUser(t, "alice"))
			s.person.shell(t, m.point, "umask 0; echo secret >open-to-all; chmod 777 .").ok(t)
			for who, visitor := range test.visitors {
				for _, command := range [][]string{{"ls", m.point}, {"cat", m.path("open-to-all")}, {"stat", m.path("open-to-all")}} {
					if r := visitor.run(t, "/", command...); r.code == 0 {
						t.Errorf("%s came into a drive that %s mounted: %v", who, test.who, r)
					}
				}
			}
		}
	})
}

// With --allow-other the modes say who may do what.
func TestAllowOtherLetsOthersInAsTheModesSay(t *testing.T) {
	requireRoot(t)
	onEachStore(t, func(t *testing.T, s *store) {
		m := s.mount(t, s.addUser(t, "alice"), "--allow-other")
		s.person.shell(t, m.point, "chmod 755 .; echo shown >open; chmod 644 open; echo hidden >closed; chmod 600 closed").ok(t)
		visitor := nobody(t)
		if got := visitor.run(t, m.point, "cat", "open").ok(t); got != "shown\n" {
			t.Errorf("read %q", got)
		}
		for _, command := range [][]string{{"cat", "closed"}, {"touch", "new"}, {"rm", "-f", "open"}, {"chmod", "666", "open"}} {
			if r := visitor.run(t, m.point, command...); r.code == 0 {
				t.Errorf("another user may: %v", r)
			}
		}
	})
}

// What the machine does not allow an ordinary user is said, and the mount does without it.
func TestAllowOtherThatIsForbiddenIsSaidAndTheMountGoesOn(t *testing.T) {
	requireRoot(t)
	if text, err := os.ReadFile("/etc/fuse.conf"); err == nil {
		for line := range strings.Lines(string(text)) {
			if strings.TrimSpace(line) == "user_allow_other" {
				missing(t, "/etc/fuse.conf has user_allow_other")
			}
		}
	}
	onEachKind(t, func(t *testing.T, k kind) {
		s := newStore(t, k, nobody(t))
		m := s.mount(t, s.addUser(t, "alice"), "--allow-other")
		s.person.shell(t, m.point, "echo works >file; cat file").ok(t)
		m.unmount(t)
		if !strings.Contains(m.stderr.String(), "user_allow_other") {
			t.Errorf("it does not say what is missing:\n%s", m.stderr)
		}
	})
}
