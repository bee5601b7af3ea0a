package fusefs

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// counts are what is counted of a mount's requests. Counting takes no lock and waits for nobody: whoever reads them meanwhile may see a
// request that is counted here and not yet there.
type counts struct {
	begun                 atomic.Uint64
	kinds                 []kindCounts                      // by operation.number
	errnos                [unix.EHWPOISON + 1]atomic.Uint64 // requests that were answered with each; EHWPOISON is the largest of errno(3)
	read, written, copied atomic.Uint64                     // bytes
}

// kindCounts are of the requests of one kind that were answered.
type kindCounts struct {
	within [len(durationBounds) + 1]atomic.Uint64 // by how long they took; the last: longer than all bounds
	took   atomic.Int64                           // nanoseconds, all together
}

func newCounts() counts { return counts{kinds: make([]kindCounts, len(operations))} }

// answered counts a request.
func (c *counts) answered(op *operation, took time.Duration, errno unix.Errno) {
	kind := &c.kinds[op.number]
	within := 0
	for within < len(durationBounds) && took > durationBounds[within] {
		within++
	}
	kind.within[within].Add(1)
	kind.took.Add(int64(took))
	if errno != 0 {
		c.errnos[errno].Add(1)
	}
}

// durationBounds are what durations are sorted by, from an answer out of memory to the usual deadline.
var durationBounds = [...]time.Duration{
	10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	1 * time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 1 * time.Second, 5 * time.Second, 30 * time.Second,
}

// Stats are counts since the mount began.
type Stats struct {
	Requests     uint64
	UnderWay     uint64           // of them, those that are not answered yet
	Operations   []OperationStats // of those that are answered: every kind there is
	Errors       uint64           // requests that the store, the session or the deadline failed; "no such file" is an answer, not an error
	Errnos       []ErrnoStats     // what requests were answered with, other than success: those that are errors, and what else there was
	OpenHandles  int              // open files and folders, now
	BytesRead    uint64           // through this program: what is passed through, the kernel moves itself
	BytesWritten uint64           // likewise
	BytesCopied  uint64           // by copy_file_range(2), inside the drive
	Passthrough  bool             // the kernel reads and writes the files behind the drive itself
}

// LockWait is the kind of requests that wait until they have a lock, for as long as others keep it.
const LockWait = "lock_wait"

// OperationStats are of the requests of one kind.
type OperationStats struct {
	Name   string // as the kernel calls it: lookup, read, ...; or LockWait
	Count  uint64
	Took   time.Duration            // all together
	Within map[time.Duration]uint64 // how many took no longer; the keys are the same for every kind
}

// ErrnoStats are of the requests that were answered with one errno.
type ErrnoStats struct {
	Name  string // of errno(3)
	Count uint64
	Error bool // the store, the session or the deadline failed
}

func (fs *filesystem) stats() Stats {
	c := &fs.counts
	s := Stats{
		OpenHandles:  fs.handles.open(),
		BytesRead:    c.read.Load(),
		BytesWritten: c.written.Load(),
		BytesCopied:  c.copied.Load(),
		Passthrough:  fs.handles.passthrough.used.Load(),
	}
	for i := range c.kinds {
		kind := &c.kinds[i]
		o := OperationStats{Name: operations[i].name, Took: time.Duration(kind.took.Load()), Within: make(map[time.Duration]uint64, len(durationBounds))}
		for j := range kind.within {
			o.Count += kind.within[j].Load()
			if j < len(durationBounds) {
				o.Within[durationBounds[j]] = o.Count
			}
		}
		s.Operations = append(s.Operations, o)
		s.UnderWay -= o.Count
	}
	s.Requests = c.begun.Load() // last: no more can have been answered
	s.UnderWay += s.Requests
	for i := range c.errnos {
		errno := unix.Errno(i)
		e := ErrnoStats{Name: unix.ErrnoName(errno), Count: c.errnos[i].Load(), Error: isFault(errno)}
		if e.Count == 0 && !e.Error {
			continue
		}
		if e.Error {
			s.Errors += e.Count
		}
		s.Errnos = append(s.Errnos, e)
	}
	return s
}
