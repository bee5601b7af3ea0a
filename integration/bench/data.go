package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

const (
	megabyte  = 1 << 20
	blockSize = 4 << 10
)

// data is what one run writes and reads. It cannot be compressed, and no two runs have the same.
type data struct {
	video  []byte
	photos [][]byte
	small  [][]byte // 4 KB each; the same for each step that creates small files
	big    []byte   // 16 MB, for clients that write at the same time

	reads  []int64  // where the video is read, in blocks of 4 KB
	writes []int64  // where it is written
	blocks [][]byte // with what
}

// newData makes the data of a run. scale is 1 for what the table says.
func newData(seed uint64, scale float64) *data {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	noise := rand.NewChaCha8(key)
	random := rand.New(noise)
	bytes := func(n int) []byte {
		b := make([]byte, n)
		_, _ = noise.Read(b) // never fails
		return b
	}
	many := func(n, size int) [][]byte {
		all := make([][]byte, scaled(n, scale))
		for i := range all {
			all[i] = bytes(size)
		}
		return all
	}
	d := &data{
		video:  bytes(scaled(512, scale) * megabyte),
		photos: many(300, megabyte/2),
		small:  many(2000, blockSize),
		big:    bytes(scaled(16*megabyte, scale)),
		reads:  make([]int64, scaled(3000, scale)),
		blocks: many(500, blockSize),
	}
	d.writes = make([]int64, len(d.blocks))
	for _, offsets := range [][]int64{d.reads, d.writes} {
		for i := range offsets {
			offsets[i] = random.Int64N(int64(len(d.video))/blockSize) * blockSize
		}
	}
	return d
}

// scaled is a part of n, at least 1.
func scaled(n int, scale float64) int { return max(1, int(float64(n)*scale)) }

func fileName(prefix string, i int) string { return fmt.Sprintf("%s%04d", prefix, i) }
