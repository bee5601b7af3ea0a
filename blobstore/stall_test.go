package blobstore_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mediafs/blobstore"
)

// pending is how much a drive has still to store.
type pending struct{ atomic.Int64 }

func (p *pending) PendingBytes() int64            { return p.Load() }
func (p *pending) Preserve(context.Context) error { return nil }

func TestADriveIsWaitedForAsLongAsItStoresSomething(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // whose clock goes on by itself when all wait: nothing here takes real time
		p := &pending{}
		p.Store(100)
		ctx, stop := blobstore.UntilStalled(t.Context(), p)
		defer stop()
		for range 10 {
			time.Sleep(blobstore.StallLimit * 9 / 10)
			p.Add(-1)
		}
		if err := ctx.Err(); err != nil {
			t.Fatalf("while something is stored: %v", err)
		}
		begun := time.Now()
		<-ctx.Done()
		if waited := time.Since(begun); waited > 2*blobstore.StallLimit {
			t.Errorf("given up after %v", waited)
		}
		if err := context.Cause(ctx); !errors.Is(err, blobstore.ErrUnavailable) {
			t.Errorf("got %v, want %v", err, blobstore.ErrUnavailable)
		}
	})
}
