package integration

import (
	"flag"
	"fmt"
	"testing"
	"time"
)

// Faults, each at many moments of work that is going on: what had been synced or closed is there afterwards, byte for byte, what
// failed was told, nothing else has changed, nothing hangs, and every invariant of the store is whole.

var (
	momentsOfAFault = flag.Int("moments", 2, "`how many` moments each fault comes at")
	firstMoment     = flag.Uint64("first-moment", 1, "the `seed` of the first moment; each has the next")
)

// atManyMoments runs a part of a test for each moment.
func atManyMoments(t *testing.T, test func(t *testing.T, seed uint64, name string)) {
	t.Helper()
	for i := range *momentsOfAFault {
		seed := *firstMoment + uint64(i)
		test(t, seed, fmt.Sprintf("moment-%d", seed))
		if t.Failed() {
			t.Fatalf("the fault at moment %d went wrong: -run '^%s$' -moments 1 -first-moment %d", seed, t.Name(), seed)
		}
	}
}

// A past is what folders held that nobody works in any more.
type past map[string]map[string]found

// add remembers a folder.
func (p past) add(t *testing.T, j *job) {
	t.Helper()
	got, err := look(j.folder)
	check(t, err)
	p[j.folder] = got
}

// isUnchanged fails the test if one of the folders is not as it was.
func (p past) isUnchanged(t *testing.T) {
	t.Helper()
	for folder, want := range p {
		got, err := look(folder)
		if err != nil {
			t.Error(err)
		} else if len(got) != len(want) {
			t.Errorf("%s: %d things in it, want %d", folder, len(got), len(want))
		}
		for path, w := range want {
			if g := got[path]; g.kind != w.kind || g.links != w.links || g.target != w.target || string(g.bytes) != string(w.bytes) {
				t.Errorf("%s/%s is not as it was before", folder, path)
			}
		}
	}
}

// usualTimeout is longer than a fault, but for those that are to be longer than it.
const (
	usualTimeout = 30 * time.Second // of mediafs mount, if not said otherwise
	slack        = 20 * time.Second // that a busy machine may take to answer beyond the deadline
)
