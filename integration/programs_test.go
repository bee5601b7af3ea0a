package integration

import "os"

// The tests of fio, stress-ng, dbench, pgbench, SQLite, git and rsync use drives as programs do that others wrote, for a bounded
// time. `make programs` runs them at full length: it sets this.
var fullLength = os.Getenv("MEDIAFS_FULL_LENGTH") != ""

// size is how much a test does: the first at the length that CI has, the second at full length.
func size[T any](bounded, full T) T {
	if fullLength {
		return full
	}
	return bounded
}
