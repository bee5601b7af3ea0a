package main

import (
	"fmt"
	"io"
	"strings"
)

// print writes a result as a table of Markdown.
func (r result) print(to io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "From %s to %s %s, %s:\n\n| µs |", short(r.axis.sizes[0].n), short(r.axis.sizes[len(r.axis.sizes)-1].n), r.axis.name, r.state)
	for _, s := range r.axis.sizes {
		fmt.Fprintf(&b, " %s |", short(s.n))
	}
	b.WriteString(" most |\n| --- |" + strings.Repeat(" --- |", len(r.axis.sizes)+1) + "\n")
	for _, l := range r.lines {
		fmt.Fprintf(&b, "| %s |", l.operation)
		most := 0.0
		for i, c := range l.costs {
			fmt.Fprintf(&b, " %s |", microseconds(c.Seconds()*1e6))
			most = max(most, l.relative()[i])
		}
		fmt.Fprintf(&b, " ×%.2f |\n", most)
	}
	b.WriteString("\n")
	_, err := io.WriteString(to, b.String())
	return err
}

// microseconds has two digits at least.
func microseconds(µs float64) string {
	if µs < 10 {
		return fmt.Sprintf("%.1f", µs)
	}
	return fmt.Sprintf("%.0f", µs)
}
