package main

import "fmt"

// An axis is one thing that grows, in steps of ten.
type axis struct {
	name  string // what grows
	unit  string
	sizes []size
	// many is whether each drive has a folder with half of its files, beside the others.
	many bool
	// open is whether opening a drive is measured too.
	open bool
}

// A size is a database: so many drives, all alike.
type size struct {
	n      int // of the axis's unit
	drives int
	files  int // of each drive
	album  int // files in a folder
	chunks int // of each file
}

// Content: one chunk of fullEvery has all its bytes, the others have chunkBytes, as the disk has no room for 100 GB. So there is a row for every chunk, and the
// index of chunks is as large as it is in fact; the table that holds what is out of line has one row of fullEvery.
const (
	chunkSize  = 64 << 10
	chunkBytes = 16
	smallBytes = 1024 // of a file of one chunk
	fullEvery  = 16
	bigChunks  = 256 // of a file of 16 MiB
)

func axes() []axis {
	files := axis{name: "files in a drive", unit: "files", many: true}
	for n := 1_000; n <= 1_000_000; n *= 10 {
		files.sizes = append(files.sizes, size{n: n, drives: 1, files: n, album: 100, chunks: 1})
	}
	drives := axis{name: "drives in a database", unit: "drives", open: true}
	for n := 10; n <= 10_000; n *= 10 {
		drives.sizes = append(drives.sizes, size{n: n, drives: n, files: 100, album: 100, chunks: 1})
	}
	bytes := axis{name: "GB in a drive", unit: "GB"}
	for n := 1; n <= 100; n *= 10 {
		bytes.sizes = append(bytes.sizes, size{n: n, drives: 1, files: n * 64, album: 32, chunks: bigChunks})
	}
	return []axis{files, drives, bytes}
}

// upTo are the sizes that are at most 1/share of the largest, two at least.
func (a axis) upTo(share int) axis {
	largest := a.sizes[len(a.sizes)-1].n / share
	keep := 2
	for keep < len(a.sizes) && a.sizes[keep].n <= largest {
		keep++
	}
	a.sizes = a.sizes[:keep]
	return a
}

// title says what grows, from where to where.
func (a axis) title() string {
	return fmt.Sprintf("%s to %s %s", short(a.sizes[0].n), short(a.sizes[len(a.sizes)-1].n), a.name)
}

// short is a number as a label has it.
func short(n int) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return fmt.Sprintf("%dM", n/1_000_000)
	case n >= 1_000 && n%1_000 == 0:
		return fmt.Sprintf("%dk", n/1_000)
	}
	return fmt.Sprint(n)
}
