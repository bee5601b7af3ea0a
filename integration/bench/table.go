package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// samples are what was measured: of a step, for each target, a figure for each run.
type samples map[string]map[string][]float64

func (s samples) add(step, target string, figure float64) {
	if s[step] == nil {
		s[step] = make(map[string][]float64)
	}
	s[step][target] = append(s[step][target], figure)
}

// median gives the middle of the figures, the least and the most; false if there is none.
func (s samples) median(step, target string) (middle, least, most float64, ok bool) {
	all := slices.Sorted(slices.Values(s[step][target]))
	if len(all) == 0 {
		return 0, 0, 0, false
	}
	middle = all[len(all)/2]
	if len(all)%2 == 0 {
		middle = (middle + all[len(all)/2-1]) / 2
	}
	return middle, all[0], all[len(all)-1], true
}

// table measures all steps on all targets, one step after the other on each target, so that what changes on the machine meanwhile meets all alike.
func (p *plan) table(ctx context.Context, out io.Writer) (err error) {
	targets, cluster, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll(targets, cluster)) }()
	got := make(samples)
	for n := range p.runs {
		works := make(map[*target]*work)
		for _, t := range targets {
			dir := filepath.Join(t.dir, fmt.Sprintf("bench-%d-%d", os.Getpid(), n))
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			seed := rand.Uint64()
			works[t] = &work{dir: dir, random: rand.New(rand.NewPCG(seed, 0)), noise: newNoise(seed), scale: p.scale}
		}
		for _, s := range steps {
			if !p.steps.MatchString(s.name) {
				continue
			}
			for _, t := range targets {
				figure, err := measure(ctx, s, t, works[t])
				if err != nil {
					return fmt.Errorf("%s on %s: %w", s.name, t.name, err)
				}
				got.add(s.name, t.name, figure)
				progress("run %d: %-32s %-12s %10.0f %s", n+1, s.name, t.name, figure, s.unit)
			}
		}
		if slices.Contains(p.targets, "raw") {
			if err := p.raw(ctx, cluster, got); err != nil {
				return fmt.Errorf("raw: %w", err)
			}
		}
		for _, t := range targets {
			if err := os.RemoveAll(works[t].dir); err != nil {
				return err
			}
		}
	}
	var names []string
	for _, t := range targets {
		names = append(names, t.name)
	}
	if slices.Contains(p.targets, "raw") {
		names = append(names, "raw")
	}
	_, err = fmt.Fprint(out, got.print(names), "\n", got.compare())
	return err
}

// measure does a step once and gives how much it did a second.
func measure(ctx context.Context, s step, t *target, w *work) (float64, error) {
	if s.cold {
		if err := t.makeCold(ctx); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	amount, err := s.do(ctx, w)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return amount / time.Since(began).Seconds(), err
}

// print is the table of the medians; behind each the least and the most, if they are further than 5 % from it.
func (s samples) print(targets []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| step | unit | %s |\n| --- | --- |%s\n", strings.Join(targets, " | "), strings.Repeat(" --- |", len(targets)))
	for _, step := range steps {
		if s[step.name] == nil {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s |", step.name, step.unit)
		for _, target := range targets {
			middle, least, most, ok := s.median(step.name, target)
			switch {
			case !ok:
				b.WriteString(" |")
			case most-middle <= middle/20 && middle-least <= middle/20:
				fmt.Fprintf(&b, " %s |", number(middle))
			default:
				fmt.Fprintf(&b, " %s (%s–%s) |", number(middle), number(least), number(most))
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// number writes a figure with commas.
func number(f float64) string {
	digits := fmt.Sprintf("%.0f", f)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// A goal is how a step on one target is to compare with another target.
type goal struct {
	step, target, against string
	times                 float64
}

// goals are the ratios that the project set itself.
var goals = []goal{
	{"copy in a 512 MB video, fsync", "postgres", "juicefs", 2.5}, {"copy in a 512 MB video, fsync", "postgres", "raw", 0.75}, {"copy in a 512 MB video, fsync", "folders", "ext4", 0.9},
	{"copy in 300 photos", "postgres", "juicefs", 2.6}, {"copy in 300 photos", "folders", "ext4", 0.8},
	{"create 2,000 small files", "postgres", "juicefs", 5}, {"create 2,000 small files", "folders", "loopback", 1.3},
	{"the same, 8 at a time", "postgres", "juicefs", 7}, {"the same, 8 at a time", "folders", "loopback", 1.3},
	{"the same, each fsynced", "postgres", "juicefs", 4.5}, {"the same, each fsynced", "folders", "loopback", 1.2},
	{"walk and stat, cold", "postgres", "juicefs", 10}, {"walk and stat, cold", "folders", "loopback", 1.3},
	{"read the video, cold", "postgres", "juicefs", 18}, {"read the video, cold", "postgres", "raw", 0.6}, {"read the video, cold", "folders", "ext4", 0.9},
	{"read the photos, cold", "postgres", "juicefs", 20}, {"read the photos, cold", "folders", "ext4", 0.8},
	{"read the small files, cold", "postgres", "juicefs", 4}, {"read the small files, cold", "folders", "loopback", 1.2},
	{"random 4K reads, cold", "postgres", "juicefs", 80}, {"random 4K reads, cold", "folders", "ext4", 0.9},
	{"500 random 4K writes, one fsync", "postgres", "juicefs", 4}, {"500 random 4K writes, one fsync", "folders", "loopback", 0.9},
	{"rename", "postgres", "juicefs", 6}, {"rename", "folders", "loopback", 1.2},
	{"rm -rf", "postgres", "juicefs", 7}, {"rm -rf", "folders", "loopback", 1.2},
}

// compare is the table of what the medians come to against the goals, for the targets that were measured. Folders are also given passed through.
func (s samples) compare() string {
	var b strings.Builder
	b.WriteString("| step | target | against | ratio | wanted | |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, g := range goals {
		targets := []string{g.target}
		if g.target == "folders" {
			targets = append(targets, "passthrough")
		}
		for _, target := range targets {
			ours, _, _, ok := s.median(g.step, target)
			theirs, _, _, also := s.median(g.step, g.against)
			if !ok || !also {
				continue
			}
			reached := "short"
			if ours/theirs >= g.times {
				reached = "reached"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %.2f | %.2f | %s |\n", g.step, target, g.against, ours/theirs, g.times, reached)
		}
	}
	return b.String()
}
