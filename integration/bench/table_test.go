package main

import "testing"

func TestTheRatioIsTheMedianOfTheRunsRatios(t *testing.T) {
	var samples []sample
	for run, seconds := range []float64{1, 10, 2} { // the second run is ten times as slow on both
		samples = append(samples,
			sample{Step: "s", Target: "ours", Run: run, Amount: 300, Seconds: seconds},
			sample{Step: "s", Target: "theirs", Run: run, Amount: 100, Seconds: seconds})
	}
	r := &results{samples}
	if got := r.ratio("s", "ours", "theirs"); got != 3 {
		t.Errorf("the ratio is %v, want 3", got)
	}
	if got := r.ratio("s", "ours", "nobody"); got != 0 {
		t.Errorf("the ratio to nobody is %v, want 0", got)
	}
	if got, want := cell(r.rates("s", "ours")), "150 (30.0–300)"; got != want {
		t.Errorf("the cell is %q, want %q", got, want)
	}
}

func TestADemandIsReachedOrShort(t *testing.T) {
	for _, test := range []struct {
		got, want float64
		text      string
	}{
		{0, 2, "–"},
		{1234.4, 0, "1,234"},
		{2.5, 2.5, "2.50, reached 2.5"},
		{2.4, 2.5, "**2.40**, short of 2.5"},
	} {
		if text := versus(test.got, test.want); text != test.text {
			t.Errorf("%v of %v is %q, want %q", test.got, test.want, text, test.text)
		}
	}
}

func TestAClientStarvesWhoWaitsOftenEnough(t *testing.T) {
	times := func(n, slow int) (each []float64) {
		for i := range n {
			if i < slow {
				each = append(each, 1)
			} else {
				each = append(each, 0.01)
			}
		}
		return each
	}
	for _, test := range []struct {
		each   []float64
		starve bool
	}{
		{times(200, 0), false},
		{times(200, 1), false}, // within the last hundredth
		{times(200, 4), true},
		{times(50, 4), false}, // too few to say
	} {
		s := &clientSample{Each: [][]float64{times(200, 0), test.each}}
		s.Each[0] = s.Each[0][:len(test.each)]
		if got := starves(s); got != test.starve {
			t.Errorf("with %d of %d operations slow: starves %v, want %v", len(test.each), len(test.each), got, test.starve)
		}
	}
}
