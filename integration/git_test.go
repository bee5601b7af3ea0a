package integration

import (
	"strings"
	"testing"
)

// makeRepository makes a repository with some hundred files and some history, as the person, outside of any drive.
func makeRepository(t *testing.T, s *store) string {
	t.Helper()
	dir := s.mountpoint(t) // a folder like any other
	s.person.shell(t, dir, `
		git init -q -b main .
		git config user.name 'A Tester'
		git config user.email tester@example.org
		cp -r "`+goSources(t)+`"/{archive,encoding} .
		git add .
		git commit -qm 'the first'
		for i in 1 2 3 4 5; do
			echo "// $i" | tee -a encoding/json/*.go >/dev/null
			git commit -qam "change $i"
		done
		git mv encoding/json encoding/other
		git commit -qm moved
		git tag -a v1 -m 'a tag'`).ok(t)
	return dir
}

func TestGitWorksOnADrive(t *testing.T) {
	asEveryone(t, func(t *testing.T, s *store) {
		repository := makeRepository(t, s)
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		s.person.run(t, m.point, "git", "clone", "-q", repository, "clone").ok(t)
		clone := m.path("clone")
		fsck := func() {
			t.Helper()
			s.person.run(t, clone, "git", "fsck", "--full", "--strict", "--no-dangling").ok(t)
			if out := s.person.run(t, clone, "git", "status", "--porcelain").ok(t); out != "" {
				t.Errorf("git status says that something changed:\n%s", out)
			}
		}
		fsck()
		s.person.shell(t, clone, `
			git config user.name 'A Tester'
			git config user.email tester@example.org
			git checkout -qb other
			sed -i 1d archive/*/*.go
			git commit -qam 'on the drive'
			git checkout -q main
			git merge -q --no-ff -m merged other
			git gc -q --prune=now`).ok(t)
		fsck()
		// A clone of the clone is on the same drive: git links the objects.
		s.person.run(t, m.point, "git", "clone", "-q", "clone", "second").ok(t)
		m.unmount(t)

		m = s.mountAt(t, alice, m.point)
		fsck()
		heads := s.person.shell(t, m.point, "git -C clone rev-parse HEAD; git -C second rev-parse HEAD").ok(t)
		if head := strings.Fields(heads); len(head) != 2 || head[0] != head[1] {
			t.Errorf("the heads of the clones are %q, want twice the same", head)
		}
	})
}
