package describe_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color/palette"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"

	"mediafs/blobstore"
	"mediafs/blobstore/describe"
)

func read(t *testing.T, content []byte) blobstore.Described {
	t.Helper()
	facts, err := describe.Read(t.Context(), bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatalf("describe %d bytes: %v", len(content), err)
	}
	if sum := sha256.Sum256(content); !bytes.Equal(facts.SHA256, sum[:]) {
		t.Errorf("got the checksum %x, want %x", facts.SHA256, sum)
	}
	return facts
}

func encoded(t testing.TB, encode func(w io.Writer, m image.Image) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := encode(&b, image.NewPaletted(image.Rect(0, 0, 30, 20), palette.Plan9)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func jpegFile(t testing.TB) []byte {
	return encoded(t, func(w io.Writer, m image.Image) error { return jpeg.Encode(w, m, nil) })
}

// dates is the EXIF of a picture, as a TIFF file of two folders: the tags are those of dates and offsets from UTC, and any orientation.
func dates(order binary.AppendByteOrder, tags map[uint16]string) []byte {
	tag := func(b []byte, id, kind uint16, count, value uint32) []byte {
		b = order.AppendUint16(order.AppendUint16(b, id), kind)
		return order.AppendUint32(order.AppendUint32(b, count), value)
	}
	b := []byte("II")
	if order.String() == binary.BigEndian.String() {
		b = []byte("MM")
	}
	b = order.AppendUint32(order.AppendUint16(b, 42), 8)
	b = order.AppendUint16(b, 2)
	if order.String() == binary.BigEndian.String() {
		b = tag(b, 0x0112, 3, 1, 6<<16) // turned by 90 degrees
	} else {
		b = tag(b, 0x0112, 3, 1, 6)
	}
	exif := uint32(len(b) + 12 + 4)
	b = tag(b, 0x8769, 4, 1, exif)
	b = order.AppendUint32(b, 0)
	b = order.AppendUint16(b, uint16(len(tags)))
	texts := exif + 2 + uint32(len(tags))*12 + 4
	var all []byte
	for _, id := range []uint16{0x9003, 0x9004, 0x9011, 0x9012} {
		if text, ok := tags[id]; ok {
			text += "\x00"
			b = tag(b, id, 2, uint32(len(text)), texts+uint32(len(all)))
			all = append(all, text...)
		}
	}
	b = order.AppendUint32(b, 0)
	return append(b, all...)
}

// withExif puts EXIF into a JPEG, behind its first two bytes.
func withExif(file, exif []byte) []byte {
	segment := append([]byte("Exif\x00\x00"), exif...)
	b := []byte{0xff, 0xd8, 0xff, 0xe1}
	b = binary.BigEndian.AppendUint16(b, uint16(len(segment)+2))
	return append(append(b, segment...), file[2:]...)
}

// box is a part of an HEIF or AVIF file.
func box(kind string, parts ...[]byte) []byte {
	inner := bytes.Join(parts, nil)
	b := binary.BigEndian.AppendUint32(nil, uint32(len(inner)+8))
	return append(append(b, kind...), inner...)
}

// heif is a picture of 4000 by 3000 pixels without any, of a brand.
func heif(brand string) []byte {
	size := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(make([]byte, 4), 4000), 3000)
	return append(box("ftyp", []byte(brand), make([]byte, 4), []byte("mif1"+brand)),
		box("meta", make([]byte, 4),
			box("pitm", []byte{0, 0, 0, 0, 0, 1}),
			box("iprp", box("ipco", box("ispe", size)), box("ipma", []byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1})))...)
}

// webpFile is a picture of 30 by 20 pixels as its header tells.
func webpFile() []byte {
	lossless := binary.LittleEndian.AppendUint32([]byte{0x2f}, 29|19<<14)
	b := append([]byte("RIFF"), 0, 0, 0, 0)
	b = append(b, "WEBPVP8L"...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(lossless)+1))
	b = append(append(b, lossless...), 0, 0)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-8))
	return b
}

func TestFilesSayWhatTheyAre(t *testing.T) {
	taken := time.Date(2019, 7, 14, 16, 30, 5, 0, time.UTC)
	withDates := func(order binary.AppendByteOrder, tags map[uint16]string) []byte {
		return withExif(jpegFile(t), dates(order, tags))
	}
	pngFile := encoded(t, png.Encode)
	exifChunk := append([]byte("eXIf"), dates(binary.BigEndian, map[uint16]string{0x9003: "2019:07:14 16:30:05"})...)
	pngWithExif := binary.BigEndian.AppendUint32(bytes.Clone(pngFile[:33]), uint32(len(exifChunk)-4))
	pngWithExif = append(pngWithExif, exifChunk...)
	pngWithExif = append(binary.BigEndian.AppendUint32(pngWithExif, crc32.ChecksumIEEE(exifChunk)), pngFile[33:]...)
	far := bytes.Repeat(append([]byte{0xff, 0xe2, 0xff, 0xff}, make([]byte, 0xfffd)...), 20) // more than a MiB before the size
	for name, file := range map[string]struct {
		content []byte
		want    blobstore.Described
	}{
		"a JPEG":                            {jpegFile(t), blobstore.Described{Type: "image/jpeg", Width: 30, Height: 20}},
		"a PNG":                             {pngFile, blobstore.Described{Type: "image/png", Width: 30, Height: 20}},
		"a PNG with EXIF":                   {pngWithExif, blobstore.Described{Type: "image/png", Width: 30, Height: 20, Taken: taken}},
		"a GIF":                             {encoded(t, func(w io.Writer, m image.Image) error { return gif.Encode(w, m, nil) }), blobstore.Described{Type: "image/gif", Width: 30, Height: 20}},
		"a TIFF":                            {encoded(t, func(w io.Writer, m image.Image) error { return tiff.Encode(w, m, nil) }), blobstore.Described{Type: "image/tiff", Width: 30, Height: 20}},
		"a BMP":                             {encoded(t, bmp.Encode), blobstore.Described{Type: "image/bmp", Width: 30, Height: 20}},
		"a WebP":                            {webpFile(), blobstore.Described{Type: "image/webp", Width: 30, Height: 20}},
		"an AVIF":                           {heif("avif"), blobstore.Described{Type: "image/avif", Width: 4000, Height: 3000}},
		"an HEIC":                           {heif("heic"), blobstore.Described{Type: "image/heic", Width: 4000, Height: 3000}},
		"a JPEG with its size behind 1 MiB": {append(append([]byte{0xff, 0xd8}, far...), jpegFile(t)[2:]...), blobstore.Described{Type: "image/jpeg", Width: 30, Height: 20}},
		"text":                              {[]byte("Grüße aus Berlin\n"), blobstore.Described{Type: "text/plain"}},
		"HTML":                              {[]byte("<!DOCTYPE html><html></html>"), blobstore.Described{Type: "text/html"}},
		"a PDF":                             {[]byte("%PDF-1.7\n"), blobstore.Described{Type: "application/pdf"}},
		"nothing":                           {nil, blobstore.Described{Type: describe.Unknown}},
		"bytes":                             {[]byte{0, 1, 2, 3, 0xff}, blobstore.Described{Type: describe.Unknown}},
		"a date without a zone":             {withDates(binary.LittleEndian, map[uint16]string{0x9003: "2019:07:14 16:30:05"}), blobstore.Described{Type: "image/jpeg", Width: 30, Height: 20, Taken: taken}},
		"a date with a zone": {
			withDates(binary.BigEndian, map[uint16]string{0x9003: "2019:07:14 18:30:05", 0x9011: "+02:00"}),
			blobstore.Described{Type: "image/jpeg", Width: 30, Height: 20, Taken: taken},
		},
		"a zone that is none": {
			withDates(binary.BigEndian, map[uint16]string{0x9003: "2019:07:14 16:30:05", 0x9011: "   :  "}),
			blobstore.Described{Type: "image/jpeg", Width: 30, Height: 20, Taken: taken},
		},
		"the date of a scan": {
			withDates(binary.BigEndian, map[uint16]string{0x9004: "2019:07:14 18:30:05", 0x9012: "+02:00"}),
			blobstore.Described{Type: "image/jpeg", Width: 30, Height: 20, Taken: taken},
		},
		"a clock that nobody has set": {withDates(binary.LittleEndian, map[uint16]string{0x9003: "0000:00:00 00:00:00"}), blobstore.Described{Type: "image/jpeg", Width: 30, Height: 20}},
		"a date that is none":         {withDates(binary.LittleEndian, map[uint16]string{0x9003: "yesterday at noon.."}), blobstore.Described{Type: "image/jpeg", Width: 30, Height: 20}},
	} {
		t.Run(name, func(t *testing.T) {
			got := read(t, file.content)
			if got.Type != file.want.Type || got.Width != file.want.Width || got.Height != file.want.Height || !got.Taken.Equal(file.want.Taken) {
				t.Errorf("got %s, %dx%d, taken %v; want %s, %dx%d, %v", got.Type, got.Width, got.Height, got.Taken,
					file.want.Type, file.want.Width, file.want.Height, file.want.Taken)
			}
		})
	}
}

// TestBrokenFilesSayLess cuts pictures at every place and puts every byte of their beginnings to extremes: whatever comes of it is described
// with the right type and checksum, or with less, and never with an error.
func TestBrokenFilesSayLess(t *testing.T) {
	for name, content := range map[string][]byte{
		"JPEG": withExif(jpegFile(t), dates(binary.LittleEndian, map[uint16]string{0x9003: "2019:07:14 16:30:05"})),
		"PNG":  encoded(t, png.Encode),
		"TIFF": encoded(t, func(w io.Writer, m image.Image) error { return tiff.Encode(w, m, nil) }),
		"WebP": webpFile(),
		"AVIF": heif("avif"),
	} {
		t.Run(name, func(t *testing.T) {
			for n := range min(len(content), 400) {
				read(t, content[:n])
			}
			for i := range min(len(content), 400) {
				for _, b := range []byte{0, 0x7f, 0xff} {
					broken := bytes.Clone(content)
					broken[i] = b
					read(t, broken)
				}
			}
		})
	}
}

// allocated is how many bytes do allocates.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// maxAllocated is what one description may allocate, whatever the file says.
const maxAllocated = 64 << 20

func TestWhatAFileDeclaresTakesNoMemory(t *testing.T) {
	ihdr := []byte("IHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x06\x00\x00\x00") // 2,147,483,647 pixels each way
	hugePNG := binary.BigEndian.AppendUint32(append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"), ihdr...), crc32.ChecksumIEEE(ihdr))
	bomb := binary.BigEndian.AppendUint32(nil, 0xfffffff0)
	jpegOfSegments := append([]byte{0xff, 0xd8}, bytes.Repeat([]byte{0xff, 0xe0, 0, 2}, 1<<20)...)
	tiffOfTags := append([]byte("II*\x00\x08\x00\x00\x00\xff\xff"), bytes.Repeat([]byte{1, 1, 4, 0, 0xff, 0xff, 0xff, 0xff, 8, 0, 0, 0}, 1<<17)...)
	properties := box("meta", make([]byte, 4), box("pitm", []byte{0, 0, 0, 0, 0, 1}),
		box("iprp", box("ipma", []byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, bytes.Repeat(append([]byte{0, 1, 255}, make([]byte, 255)...), 1<<17))))
	for name, content := range map[string][]byte{
		"a PNG of 2^62 pixels":         hugePNG,
		"a PNG with a chunk of 4 GiB":  append(append(bytes.Clone(hugePNG[:8]), bomb...), "eXIf"...),
		"a WebP with a chunk of 4 GiB": append([]byte("RIFF\xff\xff\xff\xffWEBPVP8X\xff\xff\xff\xff"), bytes.Repeat([]byte{0xff}, 100)...),
		"a JPEG of a million segments": jpegOfSegments,
		"a TIFF of 65,535 large tags":  tiffOfTags,
		"a HEIF of many properties":    append(heif("heic")[:28], properties...),
		"a BMP of 2^62 pixels":         append([]byte("BM\xff\xff\xff\xff\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00\xff\xff\xff\x7f\xff\xff\xff\x7f\x01\x00\x18\x00"), make([]byte, 24)...),
	} {
		t.Run(name, func(t *testing.T) {
			var facts blobstore.Described
			if n := allocated(func() { facts = read(t, content) }); n > maxAllocated {
				t.Errorf("describing %d bytes allocated %d", len(content), n)
			}
			if facts.Width != 0 || facts.Height != 0 {
				t.Errorf("got a size of %dx%d", facts.Width, facts.Height)
			}
		})
	}
}

// zeros is a file of zeros, however long, that tells how it was read.
type zeros struct {
	next, read int64
	seeks      int
	before     func()
}

func (z *zeros) ReadAt(p []byte, off int64) (int, error) {
	if z.before != nil {
		z.before()
	}
	if off != z.next {
		z.seeks++
	}
	clear(p)
	z.read += int64(len(p))
	z.next = off + int64(len(p))
	return len(p), nil
}

func TestABigFileIsReadOnceInOrderWithLittleMemory(t *testing.T) {
	const size = 64<<20 + 12345
	var z zeros
	n := allocated(func() {
		if _, err := describe.Read(t.Context(), &z, size); err != nil {
			t.Fatal(err)
		}
	})
	if z.read != size || z.seeks != 0 {
		t.Errorf("%d bytes were read for %d, %d times out of order", z.read, size, z.seeks)
	}
	if n > 4<<20 {
		t.Errorf("describing it allocated %d bytes", n)
	}
}

func TestWhatCantBeReadIsAnError(t *testing.T) {
	ended := errors.New("the drive is closed")
	ctx, cancel := context.WithCancelCause(t.Context())
	z := zeros{before: func() { cancel(ended) }}
	if _, err := describe.Read(ctx, &z, math.MaxInt64); !errors.Is(err, ended) {
		t.Errorf("with an ended context: got error %v, want %v", err, ended)
	}
	if _, err := describe.Read(t.Context(), strings.NewReader("short"), 100); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("of a file that was cut: got error %v, want %v", err, io.ErrUnexpectedEOF)
	}
	// The folder of tags of this TIFF is at its end, which is read again for it.
	content := encoded(t, func(w io.Writer, m image.Image) error { return tiff.Encode(w, m, nil) })
	moved := append([]byte("II*\x00"), binary.LittleEndian.AppendUint32(nil, 1<<20)...)
	moved = append(moved, make([]byte, 1<<20-len(moved))...)
	moved = append(moved, content[binary.LittleEndian.Uint32(content[4:]):]...)
	if facts := read(t, moved); facts.Width != 30 {
		t.Errorf("got a TIFF of %d pixels, want 30", facts.Width)
	}
	broken := errors.New("the disk is broken")
	if _, err := describe.Read(t.Context(), &onceReadable{content: moved, then: broken}, int64(len(moved))); !errors.Is(err, broken) {
		t.Errorf("of a disk that breaks: got error %v, want %v", err, broken)
	}
}

// onceReadable is a file whose bytes can be read once.
type onceReadable struct {
	content []byte
	read    int
	then    error
}

func (o *onceReadable) ReadAt(p []byte, off int64) (int, error) {
	if o.read >= len(o.content) {
		return 0, o.then
	}
	n := copy(p, o.content[off:])
	o.read += n
	return n, nil
}

func FuzzRead(f *testing.F) {
	f.Add([]byte{})
	f.Add(withExif(jpegFile(f), dates(binary.LittleEndian, map[uint16]string{0x9003: "2019:07:14 16:30:05", 0x9011: "+02:00"})))
	f.Add(withExif(jpegFile(f)[:200], dates(binary.BigEndian, map[uint16]string{0x9004: "2019:07:14 16:30:05"})))
	f.Add(encoded(f, png.Encode))
	f.Add(encoded(f, func(w io.Writer, m image.Image) error { return gif.Encode(w, m, nil) }))
	f.Add(encoded(f, func(w io.Writer, m image.Image) error { return tiff.Encode(w, m, nil) }))
	f.Add(encoded(f, bmp.Encode))
	f.Add(webpFile())
	f.Add(heif("avif"))
	f.Add(heif("heic"))
	f.Fuzz(func(t *testing.T, content []byte) {
		var facts blobstore.Described
		if n := allocated(func() { facts = read(t, content) }); n > maxAllocated {
			t.Errorf("describing %d bytes allocated %d", len(content), n)
		}
		if facts.Type == "" || strings.ContainsAny(facts.Type, "; ") {
			t.Errorf("got the type %q", facts.Type)
		}
		if facts.Width < 0 || facts.Height < 0 || (facts.Width == 0) != (facts.Height == 0) {
			t.Errorf("got a size of %dx%d", facts.Width, facts.Height)
		}
	})
}
