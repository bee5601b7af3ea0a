package main

import (
	"bytes"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
)

// resources are what a mount takes of its machine. What can't be told is 0.
type resources struct {
	Goroutines    int   `json:"goroutines"`
	Descriptors   int   `json:"descriptors"`    // files, pipes and sockets that its process has open
	ResidentBytes int64 `json:"resident_bytes"` // memory of its process
	HeapBytes     int64 `json:"heap_bytes"`     // of that, what was in use at the last garbage collection
}

// ownResources are those of this process.
func ownResources() resources {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	return resources{
		Goroutines:    runtime.NumGoroutine(),
		Descriptors:   ownDescriptors(),
		ResidentBytes: ownMemory(),
		HeapBytes:     int64(live[0].Value.Uint64()),
	}
}

func ownDescriptors() int {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(open) - 1 // without the one that reads this
}

// ownMemory is the second field of proc_pid_statm(5).
func ownMemory() int64 {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(statm)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
