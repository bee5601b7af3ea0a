package pgstore

import (
	"bytes"
	"errors"
	"testing"
)

// sampleSpool is a spool file of two files, and one that is yet to be made.
func sampleSpool(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := newSpoolWriter(&b, keptHeader{drive: [16]byte{1, 2, 3}, chunk: 16384, user: "alice"})
	w.file(keptFile{ino: 20, number: 20, known: 5, storedMtime: 1, mtimePending: true, mtimeNs: 2, ctimeNs: 3})
	w.piece(keptPiece{idx: 0, off: wholeChunk, data: make([]byte, 16384)})
	w.piece(keptPiece{idx: 7, off: 100, data: []byte("middle")})
	w.piece(keptPiece{idx: 9, off: wholeTail, data: []byte("tail")})
	w.file(keptFile{ino: 21, number: 33})
	w.piece(keptPiece{idx: 0, off: 0, data: []byte("x")})
	w.file(keptFile{ino: 22, number: 22, making: &keptMaking{parent: 1, name: "new", ns: 4, atimeNs: 5, mode: 0o100600, uid: 6, gid: 7}})
	w.piece(keptPiece{idx: 0, off: wholeTail, data: []byte("y")})
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestASpoolFileThatIsCutOrChangedAnywhereIsDamaged(t *testing.T) {
	whole := sampleSpool(t)
	if _, err := checkSpool(bytes.NewReader(whole)); err != nil {
		t.Fatalf("whole: got %v", err)
	}
	for i := 0; i < len(whole); i += 1 + i%7 {
		if _, err := checkSpool(bytes.NewReader(whole[:i])); !errors.Is(err, errDamaged) {
			t.Fatalf("cut at %d: got %v, want %v", i, err, errDamaged)
		}
		changed := bytes.Clone(whole)
		changed[i] ^= 0x10
		if _, err := checkSpool(bytes.NewReader(changed)); !errors.Is(err, errDamaged) {
			t.Fatalf("changed at %d: got %v, want %v", i, err, errDamaged)
		}
	}
	if _, err := checkSpool(bytes.NewReader(append(bytes.Clone(whole), 0))); !errors.Is(err, errDamaged) {
		t.Errorf("longer: got %v, want %v", err, errDamaged)
	}
}

func FuzzSpoolFile(f *testing.F) {
	f.Add(sampleSpool(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := checkSpool(bytes.NewReader(data))
		if err != nil {
			if !errors.Is(err, errDamaged) {
				t.Errorf("got %v, want %v", err, errDamaged)
			}
			return
		}
		// What is accepted is what the writer makes of it.
		var b bytes.Buffer
		w := newSpoolWriter(&b, h)
		r, _ := newSpoolReader(bytes.NewReader(data))
		for {
			file, piece, err := r.next()
			if err != nil {
				t.Fatal(err)
			}
			if file != nil {
				w.file(*file)
			} else if piece != nil {
				w.piece(*piece)
			} else {
				break
			}
		}
		if err := w.end(); err != nil || !bytes.Equal(b.Bytes(), data) {
			t.Errorf("written again it is another file (%v)", err)
		}
	})
}

func TestAKeptPieceInFlightLiesBelowWhatWasWrittenSince(t *testing.T) {
	d := &Drive{chunk: 16384}
	older := &piece{data: bytes.Repeat([]byte{'o'}, 16384), extents: []extent{{0, 1000}}}
	newer := &piece{data: bytes.Repeat([]byte{'n'}, 16384), extents: []extent{{0, 500}, {2000, 2010}}}
	b := &blob{drive: d, ino: 20, flight: map[int32]*piece{0: older, 1: older}, dirty: map[int32]*piece{0: newer}}
	b.attr.Nlink = 1
	var out bytes.Buffer
	w := newSpoolWriter(&out, keptHeader{chunk: 16384})
	b.keep(w)
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	r, err := newSpoolReader(&out)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 2*16384)
	for {
		file, p, err := r.next()
		if err != nil {
			t.Fatal(err)
		}
		if p != nil {
			copy(got[p.from(16384):], p.data)
		} else if file == nil {
			break
		}
	}
	want := make([]byte, 2*16384)
	copy(want, bytes.Repeat([]byte{'n'}, 500))
	copy(want[500:], bytes.Repeat([]byte{'o'}, 500))
	copy(want[2000:], bytes.Repeat([]byte{'n'}, 10))
	copy(want[16384:], bytes.Repeat([]byte{'o'}, 1000))
	if !bytes.Equal(got, want) {
		t.Error("what is kept is not what a reader would have seen")
	}
}
