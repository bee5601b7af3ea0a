package integration

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// A faultQuota is the quota of a drive at a moment: a tight one, which bites while the workers work, an ample one, or none, as the seed says.
type faultQuota struct {
	s     *store
	u     user
	tight bool
	none  bool
	used  quotaLine // before
}

// quotaAt sets the quota of a moment. A tight one bites in every fourth moment, from the first on; a drive has none in every second.
func (s *store) quotaAt(t *testing.T, u user, m *mount, seed uint64) *faultQuota {
	t.Helper()
	q := s.ampleQuotaAt(t, u, m, seed)
	if q.tight = seed%4 == 1; q.tight {
		q.allow(t, m, 256<<10, 30)
	}
	return q
}

// ampleQuotaAt is quotaAt for work that ends with its first failure: nothing is refused.
func (s *store) ampleQuotaAt(t *testing.T, u user, m *mount, seed uint64) *faultQuota {
	t.Helper()
	q := &faultQuota{s: s, u: u, none: seed%2 == 0, used: s.quota(t, u)}
	if q.none {
		s.limit(t, u, "none", "none", nil)
	} else {
		q.raise(t, m)
	}
	return q
}

// raise leaves room for all that comes, and the drive under a quota.
func (q *faultQuota) raise(t *testing.T, m *mount) {
	t.Helper()
	if !q.none {
		q.allow(t, m, 64<<20, 10_000)
	}
}

// allow leaves room for so much beside what was used, in blocks of df.
func (q *faultQuota) allow(t *testing.T, m *mount, bytes, files int64) {
	t.Helper()
	const block = 4096
	q.s.limit(t, q.u, strconv.FormatInt((q.used.Bytes+bytes)/block*block, 10), strconv.FormatInt(q.used.Files+files, 10), m)
}

// held fails the test if the drive holds more than it may, or if something was refused that had room.
func (q *faultQuota) held(t *testing.T, jobs ...*job) {
	t.Helper()
	now := q.s.quota(t, q.u)
	if now.MaxBytes != nil && now.Bytes > *now.MaxBytes || now.MaxFiles != nil && now.Files > *now.MaxFiles {
		t.Errorf("the drive holds %d bytes and %d files, and may %d and %d", now.Bytes, now.Files, *now.MaxBytes, *now.MaxFiles)
	}
	refused := 0
	for _, j := range jobs {
		refused += j.refused
	}
	if refused > 0 && !q.tight {
		t.Errorf("the quota refused %d operations, and there was room", refused)
	} else if q.tight {
		t.Logf("the quota refused %d operations", refused)
	}
}

// isExact fails the test unless the store is whole, and quota and df tell of a drive what is in it. Nobody works in it; what has lost its last name may still be
// counted for a moment.
func (s *store) isExact(t *testing.T, u user, m *mount) {
	t.Helper()
	s.isWhole(t)
	var q quotaLine
	var st unix.Statfs_t
	var files, bytes int64
	exact := false
	defer func() {
		if !exact {
			t.Logf("quota %+v, df %+v, counted %d bytes in %d files", q, st, bytes, files)
		}
	}()
	waitUntil(t, "quota and df tell what is there", func() bool {
		q, st = s.quota(t, u), m.space(t)
		files, bytes = m.holds(t, u)
		exact = q.Files == files && (s.kind == postgres || q.Bytes == bytes) && // in a database check compares them
			(q.MaxFiles == nil || int64(st.Files-st.Ffree) == q.Files) &&
			(q.MaxBytes == nil || int64(st.Bavail)*st.Frsize == (*q.MaxBytes-q.Bytes)/st.Frsize*st.Frsize)
		return exact
	})
}

// holds counts what is in a drive: on folders below the mount, with what files take on the disk as far as they reach.
func (m *mount) holds(t *testing.T, u user) (files, bytes int64) {
	t.Helper()
	root := m.point
	if m.s.kind == folder {
		root = m.s.folder(u)
	}
	seen := make(map[uint64]bool)
	check(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || seen[st.Ino] {
			return err
		}
		seen[st.Ino] = true
		files++
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			unit := st.Blksize
			bytes += min(st.Blocks*512, (st.Size+unit-1)/unit*unit)
		}
		return nil
	}))
	return files, bytes
}

// usualTimeout is longer than a fault, but for those that are to be longer than it.
const (
	usualTimeout = 30 * time.Second // of mediafs mount, if not said otherwise
	slack        = 20 * time.Second // that a busy machine may take to answer beyond the deadline
)
