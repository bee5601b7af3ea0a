package main

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mediafs/blobstore"
	"mediafs/fusefs"
)

// mountMetrics is what Prometheus is told of a mount. No label has a user's name in it but that of a drive which is mounted alone, and none
// has a value for each of many drives.
type mountMetrics struct{ mount *attachment }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("mediafs_"+name, help, labels, nil)
}

var (
	metricInfo       = describe("info", "What is mounted: always 1.", "version", "store", "drive")
	metricDurations  = describe("operation_duration_seconds", "How long requests of the kernel took, by what they ask for.", "operation")
	metricUnderWay   = describe("operations_under_way", "Requests of the kernel that are not answered yet.")
	metricErrors     = describe("operation_errors_total", "Requests that were answered with an error number. Where fault is true, the store, the session or the deadline failed.", "errno", "fault")
	metricRead       = describe("read_bytes_total", "Bytes that were read.")
	metricWritten    = describe("written_bytes_total", "Bytes that were written.")
	metricCopied     = describe("copied_bytes_total", "Bytes that were copied inside a drive, by copy_file_range.")
	metricOpen       = describe("open_files", "Files and folders that are open.")
	metricPending    = describe("pending_bytes", "Bytes that are written and not stored yet.")
	metricSessions   = describe("sessions", "Sessions that the mount is served with. Those that have ended are suspended: their drives answer nothing.", "state")
	metricRemaining  = describe("session_remaining_seconds", "How long the session that ends first of those that last has left. +Inf: it never ends; 0: none lasts.")
	metricRoundTrips = describe("database_round_trips_total", "Questions to the database that it has answered.")
	metricHits       = describe("known_hits_total", "Names and attributes that were asked for and known without asking the database.")
	metricMisses     = describe("known_misses_total", "Names and attributes that the database was asked for.")
)

// A gauge and a counter pass a value on.
type (
	gauge   func(desc *prometheus.Desc, value float64, labels ...string)
	counter func(desc *prometheus.Desc, value uint64, labels ...string)
)

// Describe implements prometheus.Collector.
func (m mountMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		metricInfo, metricDurations, metricUnderWay, metricErrors, metricRead, metricWritten, metricCopied, metricOpen, metricPending,
		metricSessions, metricRemaining, metricRoundTrips, metricHits, metricMisses,
	} {
		to <- desc
	}
}

// Collect implements prometheus.Collector.
func (m mountMetrics) Collect(to chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	counter := func(desc *prometheus.Desc, value uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value), labels...)
	}
	m.collectInfo(gauge)
	collectRequests(m.mount.mount.Stats(), to, gauge, counter)
	pending, _ := m.mount.pendingBytes()
	gauge(metricPending, float64(pending))
	m.collectSessions(gauge)
	if store, ok := m.mount.store.(blobstore.Counter); ok {
		counts := store.Counts()
		counter(metricRoundTrips, counts.RoundTrips)
		counter(metricHits, counts.Hits)
		counter(metricMisses, counts.Misses)
	}
}

func (m mountMetrics) collectInfo(gauge gauge) {
	store, drive := "file", m.mount.shows
	if m.mount.address.database != "" {
		store = "postgres"
	}
	if drive == allDrives || drive == allUsers {
		drive = ""
	}
	gauge(metricInfo, 1, programVersion(), store, drive)
}

func (m mountMetrics) collectSessions(gauge gauge) {
	now := time.Now()
	var remaining []float64 // of those that last
	for _, seat := range m.mount.seats {
		if seconds, lasts := seat.remaining(now); lasts {
			remaining = append(remaining, seconds)
		}
	}
	gauge(metricSessions, float64(len(remaining)), "active")
	gauge(metricSessions, float64(len(m.mount.seats)-len(remaining)), "suspended")
	if len(remaining) == 0 {
		remaining = []float64{0}
	}
	gauge(metricRemaining, slices.Min(remaining))
}

func collectRequests(stats fusefs.Stats, to chan<- prometheus.Metric, gauge gauge, counter counter) {
	for _, o := range stats.Operations {
		within := make(map[float64]uint64, len(o.Within))
		for bound, n := range o.Within {
			within[bound.Seconds()] = n
		}
		to <- prometheus.MustNewConstHistogram(metricDurations, o.Count, o.Took.Seconds(), within, o.Name)
	}
	for _, e := range stats.Errnos {
		counter(metricErrors, e.Count, e.Name, strconv.FormatBool(e.Error))
	}
	gauge(metricUnderWay, float64(stats.UnderWay))
	gauge(metricOpen, float64(stats.OpenHandles))
	counter(metricRead, stats.BytesRead)
	counter(metricWritten, stats.BytesWritten)
	counter(metricCopied, stats.BytesCopied)
}
