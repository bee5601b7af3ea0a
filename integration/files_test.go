package integration

import (
	"os"
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

// chownLike gives a file to the owner of another.
func chownLike(t testing.TB, path string, other os.FileInfo) {
	t.Helper()
	stat := other.Sys().(*syscall.Stat_t)
	check(t, os.Chown(path, int(stat.Uid), int(stat.Gid)))
}
