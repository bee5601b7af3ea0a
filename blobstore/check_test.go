package blobstore_test

import (
	"context"
	"errors"
	"testing"

	"mediafs/blobstore"
)

// broken is a store with so many findings of each kind in each drive, some of which can be repaired.
type broken struct {
	found    map[blobstore.DriveName]map[string]int
	lasting  string // a kind that can't be repaired
	added    string // a kind that shows after the repair
	repaired []blobstore.DriveName
	err      error
}

func (b *broken) Look(_ context.Context, found func(blobstore.Finding)) (blobstore.CheckReport, error) {
	for drive, kinds := range b.found {
		for kind, n := range kinds {
			for range n {
				found(blobstore.Finding{Drive: drive, Kind: kind})
			}
		}
	}
	return blobstore.CheckReport{Drives: int64(len(b.found))}, nil
}

func (b *broken) Repair(_ context.Context, drives []blobstore.DriveName) error {
	b.repaired = drives
	for _, drive := range drives {
		for kind := range b.found[drive] {
			if kind != b.lasting {
				delete(b.found[drive], kind)
			}
		}
		if b.added != "" {
			b.found[drive][b.added] = 1
		}
	}
	return b.err
}

func TestCheckTellsTheFirstOfEachKindAndCountsAll(t *testing.T) {
	store := &broken{found: map[blobstore.DriveName]map[string]int{"anna": {"orphan": 3 * blobstore.ShownFindings, "usage": 1}, "bob": {}}}
	shown := map[string]int{}
	report, err := blobstore.Check(t.Context(), store, false, func(f blobstore.Finding) { shown[f.Kind]++ })
	if err != nil || report.Whole() || report.Repaired || store.repaired != nil {
		t.Fatalf("got %+v, %v", report, err)
	}
	if shown["orphan"] != blobstore.ShownFindings || shown["usage"] != 1 {
		t.Errorf("told of %v", shown)
	}
	if report.Found["orphan"] != 3*blobstore.ShownFindings || report.Left["orphan"] != 3*blobstore.ShownFindings || report.Drives != 2 {
		t.Errorf("got %+v", report)
	}
}

func TestCheckSaysWhatWasRepairedAndWhatIsLeft(t *testing.T) {
	store := &broken{
		found:   map[blobstore.DriveName]map[string]int{"anna": {"orphan": 2, "foreign": 1}, "bob": {"orphan": 1}, "carol": {}},
		lasting: "foreign", added: "new",
	}
	type told struct {
		drive    blobstore.DriveName
		kind     string
		repaired bool
	}
	got := map[told]int{}
	report, err := blobstore.Check(t.Context(), store, true, func(f blobstore.Finding) { got[told{f.Drive, f.Kind, f.Repaired}]++ })
	if err != nil || report.Whole() || !report.Repaired {
		t.Fatalf("got %+v, %v", report, err)
	}
	if len(store.repaired) != 2 || store.repaired[0] != "anna" || store.repaired[1] != "bob" {
		t.Errorf("repaired %q", store.repaired)
	}
	for what, n := range map[told]int{
		{"anna", "orphan", true}: 2, {"anna", "foreign", false}: 1, {"bob", "orphan", true}: 1, {"anna", "new", false}: 1, {"bob", "new", false}: 1,
	} {
		if got[what] != n {
			t.Errorf("%+v: told %d times, want %d", what, got[what], n)
		}
	}
	if report.Found["orphan"] != 3 || report.Left["orphan"] != 0 || report.Left["foreign"] != 1 || report.Left["new"] != 2 {
		t.Errorf("got %+v", report)
	}
}

func TestAWholeStoreIsNotRepairedAndAFailedRepairIsAnError(t *testing.T) {
	whole := &broken{}
	if report, err := blobstore.Check(t.Context(), whole, true, nil); err != nil || !report.Whole() || report.Repaired || whole.repaired != nil {
		t.Errorf("got %+v, %v", report, err)
	}
	failing := &broken{found: map[blobstore.DriveName]map[string]int{"anna": {"orphan": 1}}, err: errors.New("the disk is full")}
	if _, err := blobstore.Check(t.Context(), failing, true, func(blobstore.Finding) {}); !errors.Is(err, failing.err) {
		t.Errorf("got %v", err)
	}
}
