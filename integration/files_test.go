package integration

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	check(t, os.WriteFile(path, []byte(content), 0o644))
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	check(t, err)
	return string(content)
}

// writeProgram writes a script that can be run at once. Another process writes it: a program that this one starts meanwhile for
// another test would have the file open for writing too, for a moment, and then it can't be run (ETXTBSY of execve(2)).
func writeProgram(t testing.TB, path, script string) {
	t.Helper()
	cmd := exec.Command("install", "-m", "755", "/dev/stdin", path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("install %s: %v: %s", path, err, out)
	}
}

// chownLike gives a file to the owner of another.
func chownLike(t testing.TB, path string, other os.FileInfo) {
	t.Helper()
	stat := other.Sys().(*syscall.Stat_t)
	check(t, os.Chown(path, int(stat.Uid), int(stat.Gid)))
}
