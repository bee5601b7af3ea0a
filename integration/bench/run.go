package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// A column is a target with what the table calls it.
type column struct {
	key     string // what -targets selects by
	heading string
	target  target
}

// A sample is one step done once on one target.
type sample struct {
	Step    string  `json:"step"`
	Target  string  `json:"target"`
	Run     int     `json:"run"`
	Amount  int     `json:"amount"` // of what Unit counts
	Unit    string  `json:"unit"`
	Seconds float64 `json:"seconds"`

	CPU *cpuSample `json:"cpu,omitempty"` // if it was watched
}

func (s *sample) rate() float64 { return float64(s.Amount) / s.Seconds }

// A plan is what is measured.
type plan struct {
	columns  []column
	wanted   func(step string) bool // steps that are reported
	runs     int
	scale    float64
	seed     uint64
	settle   func(context.Context) error
	progress progress
	watch    watcher
}

// progress is where what has been measured is said at once.
type progress struct{ to io.Writer }

func (p progress) say(format string, values ...any) {
	_, _ = fmt.Fprintf(p.to, format+"\n", values...) // if nobody listens, what is measured is reported all the same
}

// A watcher observes a step while it is done.
type watcher interface {
	begin(ctx context.Context, s *step, c column) error
	end(s *sample) error
}

// selected are the wanted steps and those that they need, in order.
func (p *plan) selected() (selected []*step) {
	needed := map[string]bool{}
	for i := len(steps) - 1; i >= 0; i-- { // what a step needs comes before it
		s := &steps[i]
		if !p.wanted(s.name) && !needed[s.name] {
			continue
		}
		for _, name := range s.needs {
			needed[name] = true
		}
		selected = append([]*step{s}, selected...)
	}
	return selected
}

// measure does all runs. Within a run each step is done on one target after the other, so that what drifts on the machine changes all of
// them alike; each run begins with another target.
func (p *plan) measure(ctx context.Context) (samples []sample, err error) {
	selected := p.selected()
	for run := range p.runs {
		d := newData(p.seed+uint64(run), p.scale)
		for _, c := range p.columns {
			if err := c.target.fresh(ctx, run); err != nil {
				return samples, fmt.Errorf("%s: %w", c.heading, err)
			}
		}
		for _, s := range selected {
			for i := range p.columns {
				c := p.columns[(i+run)%len(p.columns)]
				got, does, err := p.one(ctx, c, s, d)
				if err != nil {
					return samples, fmt.Errorf("%s on %s: %w", s.name, c.heading, err)
				}
				if !does || !p.wanted(s.name) {
					continue
				}
				got.Run = run
				samples = append(samples, got)
				p.progress.say("run %d  %-32s %-24s %12s %s", run+1, s.name, c.heading, figure(got.rate()), s.unit)
			}
		}
		for _, c := range p.columns {
			if err := c.target.clear(ctx); err != nil {
				return samples, fmt.Errorf("%s: %w", c.heading, err)
			}
		}
	}
	return samples, nil
}

// one does one step on one target. What others have left to be written out is written first.
func (p *plan) one(ctx context.Context, c column, s *step, d *data) (got sample, does bool, err error) {
	if err = p.settle(ctx); err == nil && s.cold {
		err = c.target.forget(ctx)
	}
	if err == nil && p.watch != nil {
		err = p.watch.begin(ctx, s, c)
	}
	if err != nil {
		return got, false, err
	}
	start := time.Now()
	amount, does, err := c.target.do(ctx, s, d)
	got = sample{Step: s.name, Target: c.key, Amount: amount, Unit: s.unit, Seconds: time.Since(start).Seconds()}
	if p.watch != nil {
		err = errors.Join(err, p.watch.end(&got))
	}
	return got, does, err
}
