package main

import (
	"fmt"
	"slices"
	"strings"
)

// report is the tables, in Markdown, and which operations are not flat.
func report(results []result) string {
	var b strings.Builder
	for _, r := range results {
		r.table(&b)
	}
	var steep []string
	for _, r := range results {
		for _, l := range r.lines {
			if most := slices.Max(l.relative()); most > flat {
				steep = append(steep, fmt.Sprintf("- %s, %s: %s ×%.2f\n", r.axis.title(), r.state, l.operation, most))
			}
		}
	}
	if len(steep) == 0 {
		fmt.Fprintf(&b, "No operation costs more than ×%.1f at any size.\n", flat)
	} else {
		fmt.Fprintf(&b, "More than ×%.1f:\n\n%s", flat, strings.Join(steep, ""))
	}
	return b.String()
}

func (r result) table(b *strings.Builder) {
	fmt.Fprintf(b, "%s, %s:\n\n| µs |", r.axis.title(), r.state)
	for _, s := range r.axis.sizes {
		fmt.Fprintf(b, " %s |", short(s.n))
	}
	b.WriteString(" most |\n| --- |" + strings.Repeat(" ---: |", len(r.axis.sizes)+1) + "\n")
	for _, l := range r.lines {
		fmt.Fprintf(b, "| %s |", l.operation)
		for _, c := range l.costs {
			fmt.Fprintf(b, " %s |", microseconds(c.Seconds()*1e6))
		}
		fmt.Fprintf(b, " ×%.2f |\n", slices.Max(l.relative()))
	}
	b.WriteString("\n")
}

// microseconds has two digits at least.
func microseconds(µs float64) string {
	if µs < 10 {
		return fmt.Sprintf("%.1f", µs)
	}
	return fmt.Sprintf("%.0f", µs)
}
