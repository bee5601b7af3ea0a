package memstore

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/locktable"
)

// attached is a drive as one session has it.
type attached struct {
	*drive
	number  uint64 // of the attachment
	session atomic.Pointer[auth.Session]
}

var (
	_ blobstore.Drive  = (*attached)(nil)
	_ blobstore.Locker = (*attached)(nil)
)

func (d *drive) attach(session auth.Session) *attached {
	a := &attached{drive: d, number: d.attached.Add(1)}
	a.session.Store(&session)
	a.Record(blobstore.Event{Time: time.Now(), Action: blobstore.ActionMount, Count: 1, Result: blobstore.ResultOK})
	return a
}

// Renew implements blobstore.Drive.
func (a *attached) Renew(_ context.Context, session auth.Session) error {
	now := a.session.Load()
	if err := session.Check(time.Now()); err != nil {
		return fmt.Errorf("renew the session: %w", err)
	}
	if session.User != now.User || session.Role != now.Role {
		return fmt.Errorf("renew the session: %w", auth.ErrRevoked)
	}
	a.session.Store(&session)
	return nil
}

// Record implements blobstore.Audit.
func (a *attached) Record(event blobstore.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.audit = append(a.audit, blobstore.AuditRecord{Event: event, Drive: a.name, User: a.session.Load().User, Host: "memory", Mount: fmt.Sprintf("%p", a)})
	if n := a.nodes[event.Ino]; n != nil && event.Action == blobstore.ActionOpen && event.Result == blobstore.ResultOK {
		n.accesses += event.Count
		n.accessedNs = max(n.accessedNs, event.Time.UnixNano())
	}
}

// Close implements blobstore.Drive.
func (a *attached) Close(ctx context.Context) error {
	a.dropLocks(ctx, 0, func(h locktable.Held) bool { return h.Mount == a.number })
	a.Record(blobstore.Event{Time: time.Now(), Action: blobstore.ActionUnmount, Count: 1, Result: blobstore.ResultOK})
	return nil
}
