package blobstore

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// StallLimit is how long a drive that is being unmounted may store nothing of what is pending before it is taken for one that can't.
const StallLimit = 10 * time.Second

// stallLooks is how often that is looked at.
const stallLooks = StallLimit / 20

// UntilStalled returns a context that also ends, with ErrUnavailable, once nothing that is pending has been stored for StallLimit. stop lets go of
// it. A Preserver is not asked to wait longer: what it has can be put aside.
func UntilStalled(ctx context.Context, p Preserver) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		looks := time.NewTicker(stallLooks)
		defer looks.Stop()
		least, since := p.PendingBytes(), time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case <-looks.C:
			}
			if now := p.PendingBytes(); now < least {
				least, since = now, time.Now()
			} else if time.Since(since) >= StallLimit {
				cancel(fmt.Errorf("nothing could be stored for %v: %w", StallLimit, ErrUnavailable))
				return
			}
		}
	})
	return ctx, func() {
		cancel(nil)
		watching.Wait()
	}
}
