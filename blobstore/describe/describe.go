// Package describe finds out what the content of a file says of it: its type, its checksum, and of a picture its size and when it was taken.
//
// Files come from anywhere, so nothing that one says of itself is believed further than it is long: memory and work are bounded whatever sizes
// it declares, nothing is unpacked, and what can't be understood is left out. Only what keeps the bytes from being read is an error.
package describe

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"strings"

	"github.com/gabriel-vasile/mimetype"

	"mediafs/blobstore"
)

const (
	// headSize is how much of the beginning is kept while the rest is read: nearly every format has its facts there.
	headSize = 256 << 10

	// pieceSize is how much is read at once.
	pieceSize = 1 << 20
)

// Unknown is the type of a file whose content tells none, an empty one included.
const Unknown = "application/octet-stream"

// Read describes the first size bytes of r. It reads them once, in order, and then, for some pictures, a little of what is behind the first 256 KiB
// again. io.ErrUnexpectedEOF if there are fewer; context.Cause(ctx) once ctx has ended.
func Read(ctx context.Context, r io.ReaderAt, size int64) (blobstore.Described, error) {
	file := &reader{ctx: ctx, from: r, size: size}
	head := make([]byte, min(size, headSize))
	sum := sha256.New()
	if err := file.fill(head, 0); err != nil {
		return blobstore.Described{}, err
	}
	sum.Write(head)
	if size > headSize {
		piece := make([]byte, min(size-headSize, pieceSize))
		for at := int64(headSize); at < size; at += int64(len(piece)) {
			piece = piece[:min(size-at, pieceSize)]
			if err := file.fill(piece, at); err != nil {
				return blobstore.Described{}, err
			}
			sum.Write(piece)
		}
	}
	facts := blobstore.Described{Type: typeOf(head), SHA256: sum.Sum(nil)}
	file.head = head
	facts.Width, facts.Height, facts.Taken = picture(file, facts.Type)
	if file.failed != nil {
		return blobstore.Described{}, file.failed
	}
	return facts, nil
}

// typeOf is the MIME type of what begins with head, without parameters.
func typeOf(head []byte) string {
	if len(head) == 0 {
		return Unknown
	}
	found, _, _ := strings.Cut(mimetype.Detect(head).String(), ";")
	return strings.TrimSpace(found)
}

const (
	// windowSize is how much is read at once of what is behind the head.
	windowSize = 64 << 10

	// How many bytes are handed to those who look for a picture's facts, and read for them: enough for any picture that has them where they belong,
	// and little enough that one made to be walked through for ever is soon given up. Some camera makers' programs put megabytes before the size;
	// what reads the rest may keep eight bytes for each.
	sizeBudget = 16 << 20
	metaBudget = 4 << 20
)

// errEnough ends the search for a picture's facts.
var errEnough = errors.New("the facts are too far into the file")

// reader is a file for those who look for facts in it: an io.ReaderAt that answers from the head and from one window further on.
type reader struct {
	ctx  context.Context
	from io.ReaderAt
	size int64
	head []byte

	window   []byte // what is at windowAt; nil: nothing yet
	windowAt int64
	left     int64 // how many bytes of a budget are left
	failed   error // why the file can't be read. What decoders make of it does not count
}

// fill reads all of p.
func (r *reader) fill(p []byte, off int64) error {
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	if len(p) == 0 {
		return nil
	}
	n, err := r.from.ReadAt(p, off)
	switch {
	case n == len(p): // at the end, an io.EOF may come with it
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}

// ReadAt implements io.ReaderAt.
func (r *reader) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("before the beginning")
	}
	for n < len(p) {
		at := off + int64(n)
		if at >= r.size {
			return n, io.EOF
		}
		part, err := r.part(at)
		if err != nil {
			return n, err
		}
		got := copy(p[n:], part)
		n += got
		if r.left -= int64(got); r.left < 0 {
			return n, errEnough
		}
	}
	return n, nil
}

// part is what there is from a place within the file on, at least a byte.
func (r *reader) part(at int64) ([]byte, error) {
	if at < int64(len(r.head)) {
		return r.head[at:], nil
	}
	if at >= r.windowAt && at < r.windowAt+int64(len(r.window)) {
		return r.window[at-r.windowAt:], nil
	}
	if r.failed != nil {
		return nil, r.failed
	}
	if r.left -= windowSize; r.left < 0 {
		return nil, errEnough
	}
	if r.window == nil {
		r.window = make([]byte, windowSize)
	}
	r.windowAt = at - at%windowSize
	r.window = r.window[:min(r.size-r.windowAt, windowSize)]
	if err := r.fill(r.window, r.windowAt); err != nil {
		r.window, r.failed = nil, err
		return nil, err
	}
	return r.window[at-r.windowAt:], nil
}
