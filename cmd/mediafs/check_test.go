package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"mediafs/blobstore"
)

func TestFindingsArePrintedOnOneLineEach(t *testing.T) {
	var out strings.Builder
	p := checkPrinter{w: &out}
	p.finding(blobstore.Finding{Drive: "anna", Kind: "orphan", Ino: 17, Says: "it is in no folder"})
	p.finding(blobstore.Finding{Drive: "anna", Kind: "no-node", Ino: 18, Name: "a\nb\x1b\xff", Says: "a name of\nnothing", Repaired: true})
	p.finding(blobstore.Finding{Kind: "index", Name: "entries_position", Says: "it is gone"})
	p.report(&blobstore.CheckReport{Drives: 2, Nodes: 30, Bytes: 2048, Found: map[string]int64{"orphan": 1, "index": 2}, Left: map[string]int64{"index": 2}})
	want := `anna: orphan: ino 17: it is in no folder
anna: no-node: ino 18: "a\nb\x1b\xff": a name of; nothing (repaired)
the store: index: entries_position: it is gone
2 drives, 30 nodes, 2.0 KiB: found: index 2, orphan 1
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestFindingsAsJSONAreAnObjectALine(t *testing.T) {
	var out strings.Builder
	p := checkPrinter{w: &out, json: true}
	p.finding(blobstore.Finding{Drive: "anna", Kind: "no-node", Ino: 18, Name: "a\xff", Says: "<nothing>"})
	p.finding(blobstore.Finding{Drive: "anna", Kind: "no-node", Ino: 18, Name: "a\nb", Repaired: true})
	p.report(&blobstore.CheckReport{Drives: 2, Nodes: 30, Bytes: 2048, Repaired: true, Found: map[string]int64{"no-node": 2}})
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 3 {
		t.Fatalf("got %q", lines)
	}
	for i, want := range []map[string]any{
		{"drive": "anna", "kind": "no-node", "ino": 18.0, "name": nil, "name_quoted": `"a\xff"`, "says": "<nothing>", "repaired": false},
		{"name": "a\nb", "name_quoted": nil, "repaired": true},
		{"drives": 2.0, "nodes": 30.0, "bytes": 2048.0, "whole": true, "left": nil},
	} {
		var got map[string]any
		if err := json.Unmarshal([]byte(lines[i]), &got); err != nil {
			t.Fatal(err)
		}
		for key, value := range want {
			if got[key] != value {
				t.Errorf("line %d: %s is %v, want %v", i, key, got[key], value)
			}
		}
	}
}

func TestTheLastLineSaysWhetherTheStoreIsWhole(t *testing.T) {
	some, none := map[string]int64{"links": 3}, map[string]int64{}
	for want, report := range map[string]blobstore.CheckReport{
		"0 drives, 0 nodes, 0 B: whole\n":                         {},
		"0 drives, 0 nodes, 0 B: found: links 3\n":                {Found: some, Left: some},
		"0 drives, 0 nodes, 0 B: whole now, repaired: links 3\n":  {Found: some, Left: none, Repaired: true},
		"0 drives, 0 nodes, 0 B: found: links 3; left: links 3\n": {Found: some, Left: some, Repaired: true},
	} {
		var out strings.Builder
		p := checkPrinter{w: &out}
		if p.report(&report); out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space") }

func TestFindingsThatCannotBePrintedAreAnError(t *testing.T) {
	p := checkPrinter{w: fullDisk{}}
	p.finding(blobstore.Finding{Kind: "orphan"})
	p.report(&blobstore.CheckReport{})
	if p.failed == nil {
		t.Error("got no error")
	}
}

func TestCheckOfWhatIsNoStore(t *testing.T) {
	isolate(t)
	wantError(t, mediafs(t, "check", "--store", t.TempDir()), exitStoreSchema, "not a store yet", "mediafs init")
	wantError(t, mediafs(t, "check"), exitUsage, "--store")
	wantError(t, mediafs(t, "check", "--store", t.TempDir(), "extra"), exitUsage, "argument")
	wantError(t, mediafs(t, "check", "--store", "postgres://nobody@127.0.0.1:1/none"), exitStoreAway, "can't be reached")
}
