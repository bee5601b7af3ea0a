package integration

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// testdata/tools.sh uses a folder with everyday tools. On a drive it has to say what it says on the local disk and leave the
// same tree. It leaves out, and so does the comparison, what rightly differs between two filesystems: how big folders are
// (st_size and blocks), how much room the device has, inode numbers, and the times of what was not given one.
func TestToolsBehaveAsOnTheLocalDisk(t *testing.T) {
	asEveryone(t, func(t *testing.T, s *store) {
		script, err := filepath.Abs("testdata/tools.sh")
		check(t, err)
		m := s.mount(t, s.addUser(t, "alice"))
		local := s.mountpoint(t) // nothing is mounted there
		want := s.person.run(t, local, "bash", script)
		got := s.person.run(t, m.point, "bash", script)
		for name, r := range map[string]result{"local": want, "drive": got} {
			writeFile(t, filepath.Join(s.dir, name), r.stdout)
		}
		if r := s.person.run(t, s.dir, "diff", "-a", "--show-function-line=^== ", "-U1", "local", "drive"); r.code != 0 {
			t.Errorf("the tools say something else on the drive:\n%s", r.stdout)
		}
		if got.stderr != "" || want.stderr != "" {
			t.Errorf("the script itself failed: %s\n%s", want.stderr, got.stderr)
		}
		diffLines(t, "tree", fingerprint(t, s.person, local), fingerprint(t, s.person, m.point))
		m.unmount(t)
	})
}

// fingerprint describes each node of a tree.
func fingerprint(t *testing.T, p person, dir string) []string {
	t.Helper()
	// The script gives times in other decades than this one. What a drive knows of its files, user.mediafs.*, no local disk has.
	const script = `
		find . -type d -printf '%p %y %m %n links %U:%G\n'
		find . ! -type d -printf '%p %y %m %n links %U:%G %s bytes -> %l\n'
		find . -type f -size -1G -exec sha256sum {} + 2>&1
		find . ! -newermt 2020-01-01 -printf '%p %T+\n'
		find . -newermt 2039-12-31 -printf '%p %T+\n'
		find . -exec getfattr --absolute-names -dhm '^user\.([^m]|m[^e])' {} + 2>&1`
	lines := strings.Split(p.run(t, dir, "bash", "-c", script).stdout, "\n")
	slices.Sort(lines)
	return lines
}
