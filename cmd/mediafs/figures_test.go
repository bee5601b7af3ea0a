package main

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFiguresInWords(t *testing.T) {
	for what, c := range map[string]struct {
		status mountStatus
		want   []string
	}{
		"much": {
			mountStatus{
				Requests: 12482, Errors: 3, Metrics: "http://127.0.0.1:9900/metrics",
				figures: figures{
					UnderWay: 2,
					Operations: map[string]operationFigures{
						"read": {8100, 1.5}, "lookup": {3200, 0.5}, "getattr": {900, 0.4}, "write": {150, 0.096}, "mkdir": {129, 0}, "lock_wait": {1, 3600},
					},
					Failed: map[string]uint64{"EIO": 1, "ENOSPC": 2}, Refused: map[string]uint64{"ENOENT": 700},
					BytesRead: 3 << 29, BytesWritten: 340 << 20, BytesCopied: 1 << 10,
					Database: &databaseFigures{RoundTrips: 5301, KnownHits: 9200, KnownMisses: 800},
				},
			},
			[]string{
				"12,480 operations (read 8,100, lookup 3,200, getattr 900, others 280), 200µs on average, 2 under way; 3 errors (ENOSPC 2, EIO 1); " +
					"1.5 GiB read, 340.0 MiB written, 1.0 KiB copied inside the drive",
				"5,301 round trips to the database; 9,200 of 10,000 names and attributes were known without asking it",
				"metrics are at http://127.0.0.1:9900/metrics",
			},
		},
		"little": {
			mountStatus{Requests: 1, Errors: 1, figures: figures{
				Operations: map[string]operationFigures{"getattr": {1, 1.234}}, Failed: map[string]uint64{"EIO": 1}, Database: &databaseFigures{RoundTrips: 1},
			}},
			[]string{
				"1 operation (getattr 1), 1.2s on average; 1 error (EIO 1); 0 B read, 0 B written",
				"1 round trip to the database; 0 of 0 names and attributes were known without asking it",
			},
		},
		"nothing but waiting": {
			mountStatus{Requests: 2, figures: figures{UnderWay: 1, Operations: map[string]operationFigures{"lock_wait": {1, 5}}}},
			[]string{"1 operation, 1 under way; no errors; 0 B read, 0 B written"},
		},
		"a program that tells no figures": {mountStatus{}, nil},
	} {
		if got := c.status.inWords(); !slices.Equal(got, c.want) {
			t.Errorf("%s: got\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
}

func TestFormatCount(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 123456: "123,456", 1234567: "1,234,567", math.MaxUint64: "18,446,744,073,709,551,615"} {
		if got := formatCount(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

func TestDurationsAreReadable(t *testing.T) {
	for seconds, want := range map[float64]string{0: "0s", 0.0000123: "12µs", 0.0012345: "1.2ms", 0.0999999: "100ms", 12.345: "12.3s"} {
		if got := readable(seconds); got.String() != want {
			t.Errorf("%v: got %v, want %s", time.Duration(seconds*float64(time.Second)), got, want)
		}
	}
}
