package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestStatusListsMountsByMountpoint(t *testing.T) {
	expires, pending := time.Date(2030, 1, 2, 3, 4, 5, 0, time.Local), int64(3<<20)
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	answered := []mountStatus{
		{Drive: "bob", Mountpoint: "/mnt/b", Store: "postgres://h/d", sessionStatus: sessionStatus{Expires: &expires}, OpenFiles: 2, PendingBytes: &pending, Errors: 7, Since: since, PID: 2, Log: "/run/mediafs/x.log"},
		{Drive: "anna", Mountpoint: "/mnt/a", Store: "/srv/media", Since: since, PID: 1, Notes: []string{"files are not passed through"}, Requests: 1, figures: figures{Operations: map[string]operationFigures{"read": {1, 0.002}}, BytesRead: 5}},
		{PID: 99, Problem: "does not answer: timeout"},
	}
	list := withUnanswered(answered, map[string]string{"/mnt/a": "mediafs:anna", "/mnt/b": "mediafs:bob", "/mnt/dead drive": "mediafs:carl"})
	var out strings.Builder
	if err := printStatus(&out, list); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"DRIVE MOUNTPOINT STORE SESSION ENDS OPEN PENDING ERRORS SINCE",
		"? process 99 ? ? ? ? ? ?",
		"anna /mnt/a /srv/media never 0 0 0 2026-01-02 03:04:05",
		"bob /mnt/b postgres://h/d 2030-01-02 03:04:05 2 3.0 MiB 7 2026-01-02 03:04:05",
		"carl /mnt/dead drive ? ? ? ? ? ?",
		"process 99: does not answer: timeout",
		"/mnt/a: 1 operation (read 1), 2ms on average; no errors; 5 B read, 0 B written",
		"/mnt/a: files are not passed through",
		"/mnt/b: its log is /run/mediafs/x.log",
		"/mnt/dead drive: no mediafs of yours answers for it: if its process is gone, run `mediafs umount '/mnt/dead drive'`",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestStatusWithoutMounts(t *testing.T) {
	isolate(t)
	mounts, err := ourMounts()
	if err != nil {
		t.Fatal(err)
	}
	got := mediafs(t, "status", "--json")
	var list []mountStatus
	if err := json.Unmarshal([]byte(got.stdout), &list); got.code != exitOK || err != nil || list == nil {
		t.Fatalf("got %+v, %v", got, err)
	}
	for _, s := range list { // somebody else's, whom this runtime folder does not know
		if mounts[s.Mountpoint] == "" && s.Problem == "" {
			t.Errorf("got %+v", s)
		}
	}
	var out strings.Builder
	if err := printStatus(&out, nil); err != nil || out.String() != "nothing is mounted\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

func TestFormatBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 40: "5.0 TiB", 5000 << 40: "5000.0 TiB"} {
		if got := formatBytes(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
