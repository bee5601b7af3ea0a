package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// results finds samples.
type results struct {
	samples []sample
}

// rates are those of a step on a target, by run.
func (r *results) rates(step, target string) (rates []float64) {
	for i := range r.samples {
		if s := &r.samples[i]; s.Step == step && s.Target == target {
			rates = append(rates, s.rate())
		}
	}
	return rates
}

// median is 0 of nothing.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// ratio is the median of the runs' ratios: what has slowed a whole run does not change it. 0 if there are none.
func (r *results) ratio(step, target, of string) float64 {
	ours, theirs := r.rates(step, target), r.rates(step, of)
	var ratios []float64
	for i := range min(len(ours), len(theirs)) {
		ratios = append(ratios, ours[i]/theirs[i])
	}
	return median(ratios)
}

// figure writes a rate with three digits that count.
func figure(v float64) string {
	switch {
	case v >= 1000:
		return grouped(int64(v + 0.5))
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

func grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// cell is a median with the lowest and the highest.
func cell(rates []float64) string {
	switch len(rates) {
	case 0:
		return "–"
	case 1:
		return figure(rates[0])
	}
	return fmt.Sprintf("%s (%s–%s)", figure(median(rates)), figure(slices.Min(rates)), figure(slices.Max(rates)))
}

// markdown is a table.
func markdown(heading []string, rows [][]string) string {
	lines := []string{"| " + strings.Join(heading, " | ") + " |", "|" + strings.Repeat(" --- |", len(heading))}
	for _, row := range rows {
		lines = append(lines, "| "+strings.Join(row, " | ")+" |")
	}
	return strings.Join(lines, "\n") + "\n"
}

// rateTable has a row a step and a column a target.
func (r *results) rateTable(p *plan) string {
	heading := []string{"step", "unit"}
	for _, c := range p.columns {
		heading = append(heading, c.heading)
	}
	var rows [][]string
	for _, s := range p.selected() {
		if !p.wanted(s.name) {
			continue
		}
		row := []string{s.name, s.unit}
		for _, c := range p.columns {
			row = append(row, cell(r.rates(s.name, c.key)))
		}
		rows = append(rows, row)
	}
	return markdown(heading, rows)
}
