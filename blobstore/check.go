package blobstore

import (
	"context"
	"maps"
	"slices"
)

// A Finding is one thing that is wrong with a store.
type Finding struct {
	Drive    DriveName `json:"drive,omitempty"` // "": it is about the store as a whole
	Kind     string    `json:"kind"`            // a word or two, with hyphens
	Ino      Ino       `json:"ino,omitempty"`   // of the node that it is about; 0: none, or not known
	Name     string    `json:"name,omitempty"`  // of the entry or the file that it is about; "": none, or not known
	Says     string    `json:"says"`            // what is wrong, in a sentence
	Repaired bool      `json:"repaired"`
}

// CheckReport is what a check comes to.
type CheckReport struct {
	Drives   int64 `json:"drives"`
	Nodes    int64 `json:"nodes"`
	Bytes    int64 `json:"bytes"` // of content, as it is stored
	Repaired bool  `json:"-"`     // the store was repaired, and looked at once more

	Found map[string]int64 `json:"found"` // findings, by kind
	Left  map[string]int64 `json:"left"`  // those that are there still, by kind; what was found, unless the store was repaired
}

// Whole says whether nothing is wrong, or no longer.
func (r *CheckReport) Whole() bool { return len(r.Left) == 0 }

// A Checker looks at one store.
type Checker interface {
	// Look calls found for everything that is wrong, and returns how many drives, nodes and bytes it has looked at.
	Look(ctx context.Context, found func(Finding)) (CheckReport, error)

	// Repair sets right what it can in these drives; in "", what is about the store as a whole. It drops neither content nor names.
	Repair(ctx context.Context, drives []DriveName) error
}

// ShownFindings is how many findings of each kind Check passes on. All are counted.
const ShownFindings = 50

// Check looks at a store and calls take for the first findings of each kind. With repair, if anything is wrong, the store is repaired and
// looked at again; a finding is repaired if nothing of its kind is left in its drive.
func Check(ctx context.Context, c Checker, repair bool, take func(Finding)) (CheckReport, error) {
	before := newTally(take)
	var shown []Finding
	if repair {
		before.take = func(f Finding) { shown = append(shown, f) }
	}
	report, err := c.Look(ctx, before.add)
	if err != nil {
		return report, err
	}
	report.Found, report.Left = before.kinds, before.kinds
	if !repair || report.Whole() {
		return report, nil
	}
	if err := c.Repair(ctx, before.drives()); err != nil {
		return report, err
	}
	var added []Finding // what was not seen before: it came meanwhile, or shows only now
	after := newTally(func(f Finding) {
		if before.places[place{f.Drive, f.Kind}] == 0 {
			added = append(added, f)
		}
	})
	again, err := c.Look(ctx, after.add)
	if err != nil {
		return report, err
	}
	for _, f := range shown {
		f.Repaired = after.places[place{f.Drive, f.Kind}] == 0
		take(f)
	}
	for _, f := range added {
		take(f)
	}
	again.Repaired, again.Found, again.Left = true, before.kinds, after.kinds
	return again, nil
}

// place is where findings of a kind are.
type place struct {
	drive DriveName
	kind  string
}

// A tally counts findings.
type tally struct {
	take   func(Finding) // for the first of each kind
	kinds  map[string]int64
	places map[place]int64
}

func newTally(take func(Finding)) *tally {
	return &tally{take: take, kinds: make(map[string]int64), places: make(map[place]int64)}
}

func (t *tally) add(f Finding) {
	t.kinds[f.Kind]++
	t.places[place{f.Drive, f.Kind}]++
	if t.kinds[f.Kind] <= ShownFindings {
		t.take(f)
	}
}

// drives are those in which something was found.
func (t *tally) drives() []DriveName {
	names := make(map[DriveName]bool)
	for p := range t.places {
		names[p.drive] = true
	}
	return slices.Sorted(maps.Keys(names))
}
