package main

import "github.com/dustin/go-humanize"

// plural writes a count of things.
func plural[N int64 | uint64](n N, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return formatCount(n) + " " + thing
}

// formatCount writes a count for people, with a comma before every three digits.
func formatCount[N int64 | uint64](n N) string { return humanize.Comma(int64(n)) }
