package main

import (
	"math/big"

	"github.com/dustin/go-humanize"
)

// plural writes a count of things.
func plural[N int64 | uint64](n N, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return formatCount(n) + " " + thing
}

// formatCount writes a count for people, with a comma before every three digits.
func formatCount[N int64 | uint64](n N) string {
	if n < 0 {
		return humanize.Comma(int64(n))
	}
	return humanize.BigComma(new(big.Int).SetUint64(uint64(n)))
}
