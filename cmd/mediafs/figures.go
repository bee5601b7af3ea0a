package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"mediafs/blobstore"
	"mediafs/fusefs"
)

// figures are what has been counted of a mount since it began, as `status --json` prints them. The same is in its metrics.
type figures struct {
	UnderWay     uint64                      `json:"under_way"`  // requests that are not answered yet
	Operations   map[string]operationFigures `json:"operations"` // requests that were answered, by what they ask for
	Failed       map[string]uint64           `json:"errors_by_errno"`
	Refused      map[string]uint64           `json:"answers_by_errno"` // "no such file" and so on: no errors
	BytesRead    uint64                      `json:"bytes_read"`
	BytesWritten uint64                      `json:"bytes_written"`
	BytesCopied  uint64                      `json:"bytes_copied"` // inside a drive, by copy_file_range(2)
	Database     *databaseFigures            `json:"database,omitempty"`
}

type operationFigures struct {
	Count   uint64  `json:"count"`
	Seconds float64 `json:"seconds"` // that they took, all together
}

type databaseFigures struct {
	RoundTrips  uint64 `json:"round_trips"`
	KnownHits   uint64 `json:"known_hits"`   // names and attributes that were known without asking
	KnownMisses uint64 `json:"known_misses"` // those that were asked for
}

// figuresOf are those of a mount on a store.
func figuresOf(stats fusefs.Stats, store blobstore.Store) figures {
	f := figures{
		UnderWay:     stats.UnderWay,
		Operations:   map[string]operationFigures{},
		Failed:       map[string]uint64{},
		Refused:      map[string]uint64{},
		BytesRead:    stats.BytesRead,
		BytesWritten: stats.BytesWritten,
		BytesCopied:  stats.BytesCopied,
	}
	for _, o := range stats.Operations {
		if o.Count > 0 {
			f.Operations[o.Name] = operationFigures{o.Count, o.Took.Seconds()}
		}
	}
	for _, e := range stats.Errnos {
		switch {
		case e.Count == 0:
		case e.Error:
			f.Failed[e.Name] = e.Count
		default:
			f.Refused[e.Name] = e.Count
		}
	}
	if c, ok := store.(blobstore.Counter); ok {
		counts := c.Counts()
		f.Database = &databaseFigures{counts.RoundTrips, counts.Hits, counts.Misses}
	}
	return f
}

// mostKinds is how many kinds of operations are named to people.
const mostKinds = 3

// inWords says the figures to people.
func (s *mountStatus) inWords() []string {
	if s.Requests == 0 { // of a mount whose program is older than its figures
		return nil
	}
	var all, waited uint64
	var seconds float64
	counts := map[string]uint64{}
	for name, o := range s.Operations {
		all += o.Count
		counts[name] = o.Count
		if name == fusefs.LockWait { // it took as long as others kept the lock
			waited = o.Count
		} else {
			seconds += o.Seconds
		}
	}
	operations := plural(all, "operation")
	if all > waited {
		operations += fmt.Sprintf(" (%s), %v on average", largest(counts, mostKinds), readable(seconds/float64(all-waited)))
	}
	if s.UnderWay > 0 {
		operations += fmt.Sprintf(", %s under way", formatCount(s.UnderWay))
	}
	failed := "no errors"
	if s.Errors > 0 {
		failed = fmt.Sprintf("%s (%s)", plural(s.Errors, "error"), largest(s.Failed, len(s.Failed)))
	}
	content := fmt.Sprintf("%s read, %s written", formatBytes(int64(s.BytesRead)), formatBytes(int64(s.BytesWritten)))
	if s.BytesCopied > 0 {
		content += fmt.Sprintf(", %s copied inside the drive", formatBytes(int64(s.BytesCopied)))
	}
	words := []string{strings.Join([]string{operations, failed, content}, "; ")}
	if d := s.Database; d != nil {
		asked := d.KnownHits + d.KnownMisses
		words = append(words, fmt.Sprintf("%s to the database; %s of %s names and attributes were known without asking it",
			plural(d.RoundTrips, "round trip"), formatCount(d.KnownHits), formatCount(asked)))
	}
	if s.Metrics != "" {
		words = append(words, "metrics are at "+s.Metrics)
	}
	return words
}

// largest lists counts with their names, the largest first, and sums up those after the first n.
func largest(counts map[string]uint64, n int) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	var list []string
	var others uint64
	for i, name := range names {
		if i < n {
			list = append(list, name+" "+formatCount(counts[name]))
		} else {
			others += counts[name]
		}
	}
	if others > 0 {
		list = append(list, "others "+formatCount(others))
	}
	return strings.Join(list, ", ")
}

// readable is a number of seconds as a duration that prints with few digits.
func readable(seconds float64) time.Duration {
	d := time.Duration(seconds * float64(time.Second))
	for _, unit := range []time.Duration{time.Second, time.Millisecond} {
		if d >= unit {
			return d.Round(unit / 10)
		}
	}
	return d.Round(time.Microsecond)
}
