package integration

import (
	"os"
	"testing"
	"time"
)

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

// waitFor asks again and again until the answer is yes. Only what does not happen takes until the deadline.
func waitFor(t testing.TB, what string, seen func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(deadline); !seen(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not after %v: %s", deadline, what)
		}
	}
}
