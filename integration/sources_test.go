package integration

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Go's source tree goes in, is the same after mounting again, and goes without a trace.
func TestASourceTreeIsKept(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		source := goSources(t)
		program, err := lean() // it is about size
		check(t, err)
		alice := s.addUser(t, "alice")
		m := s.mountWith(t, program, alice, s.mountpoint(t))
		s.person.run(t, s.dir, "cp", "-a", source, m.path("src")).ok(t)
		sameTree(t, s.person, source, m.path("src"))
		before := listing(t, s.person, m.point)
		m.unmount(t)

		m = s.mountWith(t, program, alice, m.point)
		sameTree(t, s.person, source, m.path("src"))
		diffLines(t, "find after mounting again", before, listing(t, s.person, m.point))
		out := s.person.run(t, s.dir, "rsync", "-a", "--itemize-changes", source+"/", m.path("src")+"/").ok(t)
		if out != "" {
			t.Errorf("rsync finds something to transfer:\n%s", out)
		}
		s.person.run(t, s.dir, "rm", "-rf", m.path("src")).ok(t)
		if out := s.person.run(t, s.dir, "ls", "-A", m.point).ok(t); out != "" {
			t.Errorf("after rm -rf there is still:\n%s", out)
		}
		m.unmount(t)
		s.isEmpty(t)
	})
}

// sameTree fails the test unless two trees have the same names, types, contents and link targets.
func sameTree(t *testing.T, p person, want, got string) {
	t.Helper()
	if r := p.run(t, "/", "diff", "-r", "--no-dereference", want, got); r.code != 0 {
		t.Fatal(r)
	}
}

// listing is what find tells of a tree, sorted.
func listing(t *testing.T, p person, dir string) []string {
	t.Helper()
	lines := strings.Split(p.run(t, dir, "find", ".", "-printf", `%p %s %m %T@ %i\n`).ok(t), "\n")
	slices.Sort(lines)
	return lines
}

// diffLines reports the first lines in which two lists differ.
func diffLines(t *testing.T, what string, want, got []string) {
	t.Helper()
	if len(want) != len(got) {
		t.Errorf("%s: %d lines, want %d", what, len(got), len(want))
	}
	reported := 0
	for i := range min(len(want), len(got)) {
		if got[i] != want[i] {
			t.Errorf("%s: got %q, want %q", what, got[i], want[i])
			if reported++; reported == 10 {
				return
			}
		}
	}
}

// isEmpty fails the test if the store of one drive, unmounted, holds anything but its root.
func (s *store) isEmpty(t *testing.T) {
	t.Helper()
	if s.kind == folder {
		left, err := filepath.Glob(filepath.Join(s.root, "alice", "*"))
		check(t, err)
		if len(left) > 0 {
			t.Errorf("the folder still has %q", left)
		}
		return
	}
	conn := s.connect(t)
	for table, query := range map[string]string{
		"nodes":   "SELECT count(*) FROM mediafs.nodes WHERE ino <> 1",
		"entries": "SELECT count(*) FROM mediafs.entries",
		"chunks":  "SELECT count(*) FROM mediafs.chunks",
		"xattrs":  "SELECT count(*) FROM mediafs.xattrs",
	} {
		if n := number(t, conn, query); n != 0 {
			t.Errorf("mediafs.%s still has %d rows", table, n)
		}
	}
	if n := number(t, conn, "SELECT count(*) FROM mediafs.nodes"); n != 2 { // alice's root and that of the public drive
		t.Errorf("mediafs.nodes has %d roots, want 2", n)
	}
}
