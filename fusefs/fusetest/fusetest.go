// Package fusetest is what the tests of a mounted drive have in common, wherever they mount one.
package fusetest

import (
	"maps"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// POSIX is go-fuse's own suite for file systems: tests of an empty folder, by name, except for three.
func POSIX() map[string]func(t *testing.T, folder string) {
	suite := maps.Clone(posixtest.All)
	// It wants two locks of one process to be in each other's way, which fcntl(2) says they are not, and ext4 fails it too:
	// TestLocksAreHeldByProcesses of fusefs has it right.
	delete(suite, "FcntlFlockLocksFile")
	// It skips itself without O_TMPFILE: TestFilesWithoutNamesAreRefused of fusefs.
	delete(suite, "Tmpfile")
	// It replaces a name as fast as it can and takes every errno for an answer but ESTALE:
	// TestNameThatIsReplacedAllTheTimeLeadsToOneOrTheOther of fusefs.
	delete(suite, "OpenSymlinkRace")
	return suite
}
