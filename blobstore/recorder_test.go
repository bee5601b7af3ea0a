package blobstore_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"mediafs/blobstore"
)

var errAway = errors.New("away")

// shelf is a store of batches that can be away. It has the events by their numbers, as a store that passes over what it has.
type shelf struct {
	mu      sync.Mutex
	away    bool
	events  map[int64]blobstore.Event
	batches int
	changed chan struct{} // closed and made anew with every call of store
}

func newShelf() *shelf {
	return &shelf{events: map[int64]blobstore.Event{}, changed: make(chan struct{})}
}

func (s *shelf) store(_ context.Context, batch blobstore.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
	for i, event := range batch.Events {
		s.events[batch.First+int64(i)] = event
	}
	s.batches++
	if s.away { // the worst: it was stored, and the answer is lost
		return errAway
	}
	return nil
}

func (s *shelf) setAway(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

func (s *shelf) all() []blobstore.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]blobstore.Event, len(s.events))
	for i := range list {
		list[i] = s.events[int64(i)]
	}
	return list
}

// wait waits for the next call of store, at most so long.
func (s *shelf) wait(t *testing.T, most time.Duration) {
	t.Helper()
	s.mu.Lock()
	changed := s.changed
	s.mu.Unlock()
	select {
	case <-changed:
	case <-time.After(most):
		t.Fatalf("nothing was stored within %v", most)
	}
}

func opened(path string) blobstore.Event {
	return blobstore.Event{Time: time.Now(), Action: blobstore.ActionOpen, Ino: 7, Path: path, Count: 1, Bytes: 3, Result: blobstore.ResultOK}
}

func newRecorder(s *shelf) *blobstore.Recorder {
	return blobstore.NewRecorder(slog.New(slog.DiscardHandler), s.store)
}

func TestARecorderStoresEventsInTheirOrder(t *testing.T) {
	s := newShelf()
	r := newRecorder(s)
	for i := range 1000 {
		r.Record(opened(fmt.Sprint("/", i)))
	}
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Record(opened("/after"))
	got := s.all()
	if len(got) != 1000 {
		t.Fatalf("got %d events, want 1000", len(got))
	}
	for i, event := range got {
		if want := fmt.Sprint("/", i); event.Path != want || event.Count != 1 {
			t.Fatalf("event %d: got %+v, want path %s", i, event, want)
		}
	}
}

func TestEventsAlikeAreCountedAsOne(t *testing.T) {
	s := newShelf()
	r := newRecorder(s)
	for range 500 {
		r.Record(opened("/a"))
		r.Record(opened("/b"))
	}
	other := opened("/a")
	other.UID = 1000
	r.Record(other)
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := s.all()
	if len(got) != 3 || got[0].Count != 500 || got[1].Count != 500 || got[2].Count != 1 || got[0].Bytes != 1500 {
		t.Errorf("got %+v, want 500 times /a and /b, and once /a of another", got)
	}
}

func TestAnEventIsStoredSoonWithoutAClose(t *testing.T) {
	s := newShelf()
	r := newRecorder(s)
	defer r.Close(t.Context())
	r.Record(opened("/a"))
	s.wait(t, 10*time.Second)
	if got := s.all(); len(got) != 1 || got[0].Path != "/a" {
		t.Errorf("got %+v", got)
	}
}

func TestABatchThatFailedIsStoredLaterAndOnce(t *testing.T) {
	s := newShelf()
	s.setAway(true)
	r := newRecorder(s)
	r.Record(opened("/first"))
	s.wait(t, 10*time.Second)
	r.Record(opened("/second"))
	if err := r.Close(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("close while the store is away: got %v, want %v", err, errAway)
	}
	s.setAway(false)
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.all(); len(got) != 2 || got[0].Path != "/first" || got[1].Path != "/second" {
		t.Errorf("got %+v, want the two events", got)
	}
}

func TestWhatThereIsNoRoomForIsCounted(t *testing.T) {
	for name, path := range map[string]func(i int) string{
		"many events": func(i int) string { return fmt.Sprint("/", i) },
		"long paths":  func(i int) string { return fmt.Sprintf("/%04000d", i) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf()
			s.setAway(true)
			r := newRecorder(s)
			const n = 20_000
			start := time.Now()
			for i := range n {
				r.Record(opened(path(i)))
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("recording took %v: it waited", took)
			}
			s.setAway(false)
			if err := r.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			kept, lost, size := 0, 0, 0
			for _, event := range s.all() {
				if event.Action == blobstore.ActionLost {
					lost += event.Count
				} else {
					kept++
					size += len(event.Path)
				}
			}
			if lost == 0 || kept+lost != n {
				t.Errorf("got %d kept and %d lost of %d", kept, lost, n)
			}
			if size > 2<<20 && name == "long paths" {
				t.Errorf("kept %d bytes of paths", size)
			}
		})
	}
}

func TestRecordingAtOnceFromManyIsCountedWhole(t *testing.T) {
	s := newShelf()
	r := newRecorder(s)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 2000 {
				r.Record(opened(fmt.Sprint("/", i%100)))
			}
		})
	}
	all.Wait()
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, event := range s.all() {
		n += event.Count
	}
	if n != 16_000 {
		t.Errorf("got %d events, want 16000", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	r := blobstore.NewRecorder(slog.New(slog.DiscardHandler), func(context.Context, blobstore.Batch) error { return nil })
	defer r.Close(b.Context())
	paths := make([]string, 1000)
	for i := range paths {
		paths[i] = fmt.Sprintf("/Reisen/2024/photo%04d.jpg", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		event := opened(paths[i%len(paths)])
		event.Ino = blobstore.Ino(i % len(paths))
		r.Record(event)
	}
}
