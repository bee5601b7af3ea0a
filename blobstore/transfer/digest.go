package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"

	"mediafs/blobstore"
)

// blockSize is what holes are multiples of, as far as checksums go.
const blockSize = 4096

// A digest is the checksum of a content: the SHA-256 of its blocks that are not all zero, each after its offset. So it is the same wherever there are holes, and
// these cost nothing. Blocks are added in their order.
type digest struct{ hash hash.Hash }

func newDigest() digest { return digest{sha256.New()} }

// add adds what is at off, a multiple of blockSize. What p ends with may be part of a block only at the end of the content.
func (d digest) add(p []byte, off int64) {
	for len(p) > 0 {
		block := p[:min(len(p), blockSize)]
		if !isZero(block) {
			var at [8]byte
			binary.BigEndian.PutUint64(at[:], uint64(off))
			d.hash.Write(at[:])
			d.hash.Write(block)
		}
		p, off = p[len(block):], off+int64(len(block))
	}
}

func (d digest) sum() [sha256.Size]byte { return [sha256.Size]byte(d.hash.Sum(nil)) }

var zeros [blockSize]byte

func isZero(p []byte) bool { return string(p) == string(zeros[:len(p)]) }

// eachPiece reads the content of a file of this size without its holes, if it may have some, and calls take for each piece: at multiples of blockSize, the
// next after the one before. It returns where the content ends, which is before size if somebody cut it.
func eachPiece(ctx context.Context, f blobstore.File, size int64, sparse bool, buffer []byte, take func(p []byte, off int64) error) (end int64, err error) {
	for off := int64(0); off < size; {
		limit := size
		if sparse {
			data, err := f.Seek(ctx, off, blobstore.SeekData)
			if errors.Is(err, blobstore.ErrNoData) {
				return size, nil // a hole to the end
			}
			if err != nil {
				return off, err
			}
			off = max(off, data/blockSize*blockSize)
			hole, err := f.Seek(ctx, data, blobstore.SeekHole)
			if err != nil {
				return off, err
			}
			limit = min((hole+blockSize-1)/blockSize*blockSize, size)
		}
		for off < limit {
			p := buffer[:min(int64(len(buffer)), limit-off)]
			n, err := f.ReadAt(ctx, p, off)
			if err != nil {
				return off, err
			}
			if err := take(p[:n], off); err != nil {
				return off, err
			}
			off += int64(n)
			if n < len(p) {
				return off, nil
			}
		}
	}
	return size, nil
}

// isSparse says whether a file may have holes.
func isSparse(a *blobstore.Attr) bool { return a.Allocated < a.Size }
