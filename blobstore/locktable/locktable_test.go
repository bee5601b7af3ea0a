package locktable

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"mediafs/blobstore"
)

// What with makes of ranges is what a table of single bytes says.
func TestRangesAreThoseOfSingleBytes(t *testing.T) {
	const seed, bytes, owners = 1, 24, 3
	random := rand.New(rand.NewPCG(seed, seed))
	for range 300 {
		var held []Held
		var model [owners][bytes]blobstore.LockType
		for range 30 {
			a, b := random.Int64N(bytes), random.Int64N(bytes)
			lock := Held{Lock: blobstore.Lock{
				Owner: random.Uint64N(owners), Type: blobstore.LockType(random.IntN(3)), Start: min(a, b), End: max(a, b),
			}}
			more := false
			for at := lock.Start; at <= lock.End; at++ {
				more = more || model[lock.Owner][at] < lock.Type
				model[lock.Owner][at] = lock.Type
			}
			if got := grows(held, lock); got != more {
				t.Fatalf("of %v: %v grows: %v, want %v", held, lock, got, more)
			}
			held = with(held, lock)
			var got [owners][bytes]blobstore.LockType
			for i, h := range held {
				for at := h.Start; at <= h.End; at++ {
					if got[h.Owner][at] != blobstore.LockNone {
						t.Fatalf("byte %d is in two locks of one owner: %v", at, held)
					}
					got[h.Owner][at] = h.Type
				}
				for _, other := range held[:i] {
					if other.Start > h.Start {
						t.Fatalf("not sorted: %v", held)
					}
					if other.Owner == h.Owner && other.Type == h.Type && touches(other, h) {
						t.Fatalf("%v and %v are not one", other, h)
					}
				}
			}
			if got != model {
				t.Fatalf("after %v: got %v, want %v", lock, got, model)
			}
		}
	}
}

// What is dropped while somebody asks for a lock is gone when that has ended, at once here, and for others when it is settled.
func TestWhatIsDroppedWhileAClaimIsUnderWayIsGone(t *testing.T) {
	claiming, goOn := make(chan []Held), make(chan struct{})
	table := Table{Claim: func(ctx context.Context, _ blobstore.Ino, held []Held, _ bool) (*blobstore.Lock, error) {
		claiming <- held
		select {
		case <-goOn:
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}}
	lock := func(owner uint64, at int64) Held {
		return Held{Lock: blobstore.Lock{Type: blobstore.LockWrite, Owner: owner, Start: at, End: at}}
	}
	done := make(chan error, 1)
	set := func(l Held) { go func() { done <- table.Set(t.Context(), 1, l, false) }() }
	set(lock(1, 1))
	<-claiming
	goOn <- struct{}{}
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	set(lock(2, 2))
	if held := <-claiming; len(held) != 2 {
		t.Fatalf("claimed %v, want both", held)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	err := table.Drop(short, 1, func(h Held) bool { return h.Owner == 1 })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drop while another is in turn: got %v, want %v", err, context.DeadlineExceeded)
	}
	goOn <- struct{}{}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := table.Test(1, lock(3, 1)); got != nil {
		t.Errorf("what was dropped is held: %v", got)
	}
	if got := table.Test(1, lock(3, 2)); got == nil {
		t.Error("what was asked for meanwhile is not held")
	}
	go func() { done <- table.Settle(t.Context(), false, func(blobstore.Ino) {}) }()
	if held := <-claiming; len(held) != 1 || held[0].Owner != 2 {
		t.Errorf("settling claims %v, want the second alone", held)
	}
	goOn <- struct{}{}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
