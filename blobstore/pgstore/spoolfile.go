package pgstore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"mediafs/blobstore"
)

// A spool file is a sequence of frames:
//
//	kind 1 byte | length of the payload 4 bytes | payload | checksum 4 bytes
//
// Numbers are little-endian. The checksum is CRC-32C of everything before it in the file but the checksums, so that no frame can be
// missing, changed or in another's place. First comes one header, then for each file a frame of its own and its pieces, and one
// end, without which the file is torn.
const (
	frameHeader byte = iota + 1 // magic, drive, chunk size, user
	frameFile                   // a keptFile; the pieces that follow are of it
	framePiece                  // chunk, offset in it or wholeChunk or wholeTail, data
	frameEnd                    // empty
)

const (
	spoolMagic = "mediafs spool 1\n"
	maxFrame   = 1<<20 + 16 // bytes: the largest chunk and what is said of it
)

// errDamaged is of a spool file that is not as it was written.
var errDamaged = errors.New("the file is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// keptHeader says whose a spool file is.
type keptHeader struct {
	drive [16]byte
	chunk int64
	user  string
}

// keptFile is a file with bytes or a time in a spool file: what a transfer says of it.
type keptFile struct {
	ino          blobstore.Ino
	number       int64
	known        int64 // the size in the database, as known then
	storedMtime  int64 // mtime there
	mtimePending bool
	mtimeNs      int64
	ctimeNs      int64
	making       *keptMaking // the database does not have it yet; nil: it has
}

// keptMaking is what a file is to be made as.
type keptMaking struct {
	parent         blobstore.Ino
	name           string
	ns             int64 // when it was
	atimeNs        int64
	mode, uid, gid uint32
}

// The lengths of what frameFile has: always, and before the name if the file is to be made.
const (
	keptFileBytes   = 49
	keptMakingBytes = 36
)

// keptPiece is an extent of a chunk, as in a transfer.
type keptPiece struct {
	idx, off int32
	data     []byte
}

// from is where the piece begins in its file.
func (p *keptPiece) from(chunk int64) int64 { return int64(p.idx)*chunk + int64(max(p.off, 0)) }

// spoolWriter writes frames. The first error stays and is that of end.
type spoolWriter struct {
	w   *bufio.Writer
	sum uint32
	err error
}

func newSpoolWriter(w io.Writer, h keptHeader) *spoolWriter {
	s := &spoolWriter{w: bufio.NewWriterSize(w, 256<<10)}
	head := append([]byte(spoolMagic), h.drive[:]...)
	head = binary.LittleEndian.AppendUint64(head, uint64(h.chunk))
	s.frame(frameHeader, head, []byte(h.user))
	return s
}

func (s *spoolWriter) frame(kind byte, payload ...[]byte) {
	var n int
	for _, p := range payload {
		n += len(p)
	}
	s.write(binary.LittleEndian.AppendUint32([]byte{kind}, uint32(n)))
	for _, p := range payload {
		s.write(p)
	}
	if s.err == nil {
		_, s.err = s.w.Write(binary.LittleEndian.AppendUint32(nil, s.sum))
	}
}

func (s *spoolWriter) write(p []byte) {
	s.sum = crc32.Update(s.sum, castagnoli, p)
	if s.err == nil {
		_, s.err = s.w.Write(p)
	}
}

func (s *spoolWriter) file(f keptFile) {
	var b []byte
	for _, n := range []int64{int64(f.ino), f.number, f.known, f.storedMtime, f.mtimeNs, f.ctimeNs} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	var pending byte
	if f.mtimePending {
		pending = 1
	}
	b = append(b, pending)
	if m := f.making; m != nil {
		for _, n := range []int64{int64(m.parent), m.ns, m.atimeNs} {
			b = binary.LittleEndian.AppendUint64(b, uint64(n))
		}
		for _, n := range []uint32{m.mode, m.uid, m.gid} {
			b = binary.LittleEndian.AppendUint32(b, n)
		}
		b = append(b, m.name...)
	}
	s.frame(frameFile, b)
}

func (s *spoolWriter) piece(p keptPiece) {
	head := binary.LittleEndian.AppendUint32(nil, uint32(p.idx))
	head = binary.LittleEndian.AppendUint32(head, uint32(p.off))
	s.frame(framePiece, head, p.data)
}

func (s *spoolWriter) end() error {
	s.frame(frameEnd)
	return errors.Join(s.err, s.w.Flush())
}

// spoolReader reads what spoolWriter wrote.
type spoolReader struct {
	r   *bufio.Reader
	sum uint32
	h   keptHeader
}

// newSpoolReader reads the header. Here and later an error that is not of r wraps errDamaged.
func newSpoolReader(r io.Reader) (*spoolReader, error) {
	s := &spoolReader{r: bufio.NewReaderSize(r, 256<<10)}
	kind, p, err := s.frame()
	if err != nil {
		return nil, err
	}
	const fixed = len(spoolMagic) + 16 + 8
	if kind != frameHeader || len(p) < fixed || string(p[:len(spoolMagic)]) != spoolMagic {
		return nil, fmt.Errorf("%w: it does not begin as one of this version", errDamaged)
	}
	copy(s.h.drive[:], p[len(spoolMagic):])
	s.h.chunk = int64(binary.LittleEndian.Uint64(p[fixed-8:]))
	s.h.user = string(p[fixed:])
	if s.h.chunk < 1 || s.h.chunk > 1<<20 {
		return nil, fmt.Errorf("%w: no drive has chunks of %d bytes", errDamaged, s.h.chunk)
	}
	return s, nil
}

func (s *spoolReader) frame() (byte, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return 0, nil, torn(err)
	}
	n := binary.LittleEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("%w: a frame of %d bytes", errDamaged, n)
	}
	p := make([]byte, int(n)+4)
	if _, err := io.ReadFull(s.r, p); err != nil {
		return 0, nil, torn(err)
	}
	s.sum = crc32.Update(crc32.Update(s.sum, castagnoli, head[:]), castagnoli, p[:n])
	if binary.LittleEndian.Uint32(p[n:]) != s.sum {
		return 0, nil, fmt.Errorf("%w: a checksum is wrong", errDamaged)
	}
	return head[0], p[:n], nil
}

// torn is the error of a file that ends before its end.
func torn(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is cut off", errDamaged)
	}
	return err
}

// next returns the next file or piece, or neither at the end.
func (s *spoolReader) next() (*keptFile, *keptPiece, error) {
	kind, p, err := s.frame()
	if err != nil {
		return nil, nil, err
	}
	switch {
	case kind == frameEnd && len(p) == 0:
		return nil, nil, nil
	case kind == frameFile && len(p) >= keptFileBytes && p[keptFileBytes-1] <= 1:
		at := func(i int) int64 { return int64(binary.LittleEndian.Uint64(p[8*i:])) }
		file := &keptFile{
			ino: blobstore.Ino(at(0)), number: at(1), known: at(2), storedMtime: at(3), mtimeNs: at(4), ctimeNs: at(5),
			mtimePending: p[keptFileBytes-1] == 1,
		}
		if p = p[keptFileBytes:]; len(p) == 0 {
			return file, nil, nil
		}
		if len(p) > keptMakingBytes && blobstore.CheckName(string(p[keptMakingBytes:])) == nil {
			half := func(i int) uint32 { return binary.LittleEndian.Uint32(p[4*i:]) }
			file.making = &keptMaking{
				parent: blobstore.Ino(at(0)), ns: at(1), atimeNs: at(2), mode: half(6), uid: half(7), gid: half(8), name: string(p[keptMakingBytes:]),
			}
			return file, nil, nil
		}
	case kind == framePiece && len(p) > 8:
		piece := &keptPiece{idx: int32(binary.LittleEndian.Uint32(p)), off: int32(binary.LittleEndian.Uint32(p[4:])), data: p[8:]}
		in := int64(max(piece.off, 0)) + int64(len(piece.data))
		whole := piece.off != wholeChunk || in == s.h.chunk
		if piece.idx >= 0 && piece.off >= wholeTail && in <= s.h.chunk && whole && piece.from(s.h.chunk)+int64(len(piece.data)) <= blobstore.MaxFileSize {
			return nil, piece, nil
		}
	}
	return nil, nil, fmt.Errorf("%w: a frame makes no sense", errDamaged)
}

// checkSpool reads a spool file to its end.
func checkSpool(r io.Reader) (keptHeader, error) {
	s, err := newSpoolReader(r)
	if err != nil {
		return keptHeader{}, err
	}
	for named := false; ; {
		file, piece, err := s.next()
		switch {
		case err != nil:
			return s.h, err
		case file != nil:
			named = true
		case piece == nil:
			if _, err := s.r.ReadByte(); !errors.Is(err, io.EOF) {
				return s.h, fmt.Errorf("%w: something follows its end", errDamaged)
			}
			return s.h, nil
		case !named:
			return s.h, fmt.Errorf("%w: a piece of no file", errDamaged)
		}
	}
}
