package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// The sizes of the drawing, in pixels.
const (
	panelWidth, panelHeight = 270, 170
	left, top               = 44, 62 // of the first panel
	gapWidth, gapHeight     = 46, 62 // between two
	legendLine              = 16
)

// colours tell the operations of an axis apart (those of Paul Tol's bright scheme, and three more).
var colours = []string{"#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#888888", "#994400", "#000000", "#44aa99"}

// drawing is an SVG: a column for each axis, a row for each state, a line for each operation. The sizes are on a logarithmic scale.
func drawing(results []result) []byte {
	var columns [][]result
	for _, r := range results {
		if len(columns) == 0 || columns[len(columns)-1][0].axis.name != r.axis.name {
			columns = append(columns, nil)
		}
		columns[len(columns)-1] = append(columns[len(columns)-1], r)
	}
	legend := 0
	for _, c := range columns {
		legend = max(legend, len(c[0].lines))
	}
	rows := len(columns[0])
	width := left + len(columns)*(panelWidth+gapWidth)
	height := top + rows*(panelHeight+gapHeight) + legend*legendLine

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="%d" y="20" font-size="14">What an operation costs, relative to the smallest size (dashed: %.1f)</text>`+"\n", left, flat)
	for i, column := range columns {
		x := left + i*(panelWidth+gapWidth)
		for j, r := range column {
			r.draw(&b, x, top+j*(panelHeight+gapHeight))
		}
		for j, l := range column[0].lines {
			y := top + rows*(panelHeight+gapHeight) + j*legendLine
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="18" height="3" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n",
				x, y-4, colours[j], x+24, y, html.EscapeString(l.operation))
		}
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

// draw draws one panel.
func (r result) draw(b *strings.Builder, x, y int) {
	highest := 2.0
	for _, l := range r.lines {
		highest = max(highest, math.Ceil(slices.Max(l.relative())))
	}
	first, last := float64(r.axis.sizes[0].n), float64(r.axis.sizes[len(r.axis.sizes)-1].n)
	across := func(n int) float64 { return float64(x) + panelWidth*math.Log(float64(n)/first)/math.Log(last/first) }
	up := func(cost float64) float64 { return float64(y) + panelHeight*(1-cost/highest) }

	fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="bold">%s</text><text x="%d" y="%d">%s</text>`+"\n",
		x, y-20, html.EscapeString(r.axis.title()), x, y-7, html.EscapeString(string(r.state)))
	fmt.Fprintf(b, `<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#bbbbbb"/>`+"\n", x, y, panelWidth, panelHeight)
	step := math.Ceil(highest/4) / 2
	for cost := 0.0; cost <= highest; cost += step {
		fmt.Fprintf(b, `<path d="M%d %.1fh%d" stroke="#eeeeee"/><text x="%d" y="%.1f" text-anchor="end">×%g</text>`+"\n",
			x, up(cost), panelWidth, x-4, up(cost)+4, cost)
	}
	fmt.Fprintf(b, `<path d="M%d %.1fh%d" stroke="#cc3311" stroke-dasharray="5 4"/>`+"\n", x, up(flat), panelWidth)
	for _, s := range r.axis.sizes {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", across(s.n), y+panelHeight+14, short(s.n))
	}
	for i, l := range r.lines {
		var points []string
		for j, cost := range l.relative() {
			points = append(points, fmt.Sprintf("%.1f,%.1f", across(r.axis.sizes[j].n), up(cost)))
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.6"/>`+"\n", strings.Join(points, " "), colours[i])
	}
}
