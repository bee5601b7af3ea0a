package memstore

import (
	"maps"
	"math"
	"slices"

	"mediafs/blobstore"
)

const pageSize = 4096

type page [pageSize]byte

// A content is the bytes of a file. Pages are kept by their number, which is their offset divided by pageSize; one that is
// not there is a hole. There is none at or past size, and what the last one has past size is zero.
type content struct {
	size  int64
	pages map[int64]*page
}

func (c *content) allocated() int64 { return int64(len(c.pages)) * pageSize }

func (c *content) readAt(p []byte, off int64) int {
	if off >= c.size {
		return 0
	}
	p = p[:min(int64(len(p)), c.size-off)]
	for rest := p; len(rest) > 0; {
		number, at := off/pageSize, off%pageSize
		n := min(len(rest), int(pageSize-at))
		if page := c.pages[number]; page != nil {
			copy(rest[:n], page[at:])
		} else {
			clear(rest[:n])
		}
		rest, off = rest[n:], off+int64(n)
	}
	return len(p)
}

func (c *content) writeAt(p []byte, off int64) {
	if c.pages == nil {
		c.pages = make(map[int64]*page)
	}
	for len(p) > 0 {
		number, at := off/pageSize, off%pageSize
		if c.pages[number] == nil {
			c.pages[number] = new(page)
		}
		n := copy(c.pages[number][at:], p)
		p, off = p[n:], off+int64(n)
		c.size = max(c.size, off)
	}
}

// truncate grows or cuts.
func (c *content) truncate(size int64) {
	c.zero(size, math.MaxInt64-size)
	c.size = size
}

// zero makes whole pages of the range holes and clears parts of others. The size stays.
func (c *content) zero(off, n int64) {
	for number, page := range c.pages {
		start := number * pageSize
		from, to := max(off-start, 0), min(off+n-start, pageSize)
		switch {
		case from == 0 && to == pageSize:
			delete(c.pages, number)
		case from < to:
			clear(page[from:to])
		}
	}
}

// copyFrom copies n bytes, holes as holes. Both contents may be one, if the ranges do not overlap.
func (c *content) copyFrom(src *content, srcOff, dstOff, n int64) {
	c.zero(dstOff, n)
	c.size = max(c.size, dstOff+n)
	for _, number := range slices.Sorted(maps.Keys(src.pages)) {
		start := number * pageSize
		from, to := max(start, srcOff), min(start+pageSize, srcOff+n)
		if from < to {
			c.writeAt(src.pages[number][from-start:to-start], dstOff+from-srcOff)
		}
	}
}

// seek finds the next data or hole.
func (c *content) seek(off int64, whence blobstore.SeekWhence) (int64, error) {
	if off < 0 || off >= c.size {
		return 0, blobstore.ErrNoData
	}
	switch whence {
	case blobstore.SeekHole:
		for c.pages[off/pageSize] != nil {
			off = (off/pageSize + 1) * pageSize
		}
		return min(off, c.size), nil
	case blobstore.SeekData:
		found := int64(math.MaxInt64)
		for number := range c.pages {
			if number >= off/pageSize {
				found = min(found, max(off, number*pageSize))
			}
		}
		if found == math.MaxInt64 {
			return 0, blobstore.ErrNoData
		}
		return found, nil
	}
	return 0, blobstore.ErrInvalid
}
