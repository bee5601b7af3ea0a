package integration

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
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

// A repository of 20,000 objects, most of them in a pack, and at full length of 50,000, each in a file of its own.
var gitObjects = size(20_000, 50_000)

const (
	objectsPerCommit = 4 // the commit, a file, its folder and the root
	gitFiles         = 200
)

func TestGitKeepsManyObjectsOnADrive(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		repository := m.path("repository")
		step := func(what, dir, script string) string {
			t.Helper()
			start := time.Now()
			defer func() { t.Logf("%s: %.1f s", what, time.Since(start).Seconds()) }()
			return strings.TrimSpace(s.person.shell(t, dir, script).ok(t))
		}
		commits := gitObjects / objectsPerCommit
		packed := size(commits-50, 0)
		writeHistory(t, filepath.Join(s.dir, "packed"), 0, packed)
		writeHistory(t, filepath.Join(s.dir, "loose"), packed, commits)
		step("init", m.point, "git init -q -b main repository")
		if packed > 0 {
			step("import to a pack", repository, "git -c fastimport.unpackLimit=1 fast-import --quiet <../../packed")
		}
		step("import to files", repository, "git -c fastimport.unpackLimit=1000000 fast-import --quiet <../../loose")
		loose, err := strconv.Atoi(step("count", repository, "git count-objects | cut -d' ' -f1"))
		check(t, err)
		if want := (commits - packed) * objectsPerCommit; loose != want {
			t.Errorf("%d objects are in files of their own, want %d", loose, want)
		}
		const fsck = "git fsck --full --strict --no-dangling --no-progress"
		step("fsck", repository, fsck)
		step("gc", repository, "git gc -q --prune=now")
		if got := step("count", repository, "git count-objects -v | sed -n 's/^in-pack: //p'"); got != strconv.Itoa(gitObjects) {
			t.Errorf("%s objects are packed, want %d", got, gitObjects)
		}
		step("clone and check out", m.point, "git clone -q --no-local repository clone")
		step("check out the middle and the end", m.path("clone"), "git checkout -q HEAD~"+strconv.Itoa(gitFiles/2)+"; git checkout -q main")
		m.unmount(t)

		m = s.mountAt(t, alice, m.point)
		for _, dir := range []string{repository, m.path("clone")} {
			step("fsck after mounting again", dir, fsck)
		}
		if got := step("status", m.path("clone"), "git log --oneline | wc -l; git status --porcelain"); got != strconv.Itoa(commits) {
			t.Errorf("the clone has these commits and changes: %q, want %d and none", got, commits)
		}
		for n := commits - gitFiles; n < commits; n++ {
			if got, want := readFile(t, m.path("clone", historyFile(n))), historyContent(n); got != want {
				t.Fatalf("%s: got %q, want %q", historyFile(n), got, want)
			}
		}
	})
}

// writeHistory writes the commits [from, to) of a history for git fast-import. Each changes one file.
func writeHistory(t *testing.T, path string, from, to int) {
	t.Helper()
	var history strings.Builder
	for n := from; n < to; n++ {
		fmt.Fprintf(&history, "commit refs/heads/main\ncommitter A Tester <tester@example.org> %d +0000\ndata 0\n", 1_700_000_000+n)
		if n == from && from > 0 {
			history.WriteString("from refs/heads/main^0\n")
		}
		content := historyContent(n)
		fmt.Fprintf(&history, "M 100644 inline %s\ndata %d\n%s\n", historyFile(n), len(content), content)
	}
	writeFile(t, path, history.String())
}

func historyFile(n int) string { return fmt.Sprintf("folder %d/file %d", n%gitFiles%20, n%gitFiles) }

func historyContent(n int) string { return fmt.Sprintf("as commit %d leaves it\n", n) }
