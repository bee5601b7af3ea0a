package dirstore

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// A describer finds out what the files say that a drive has changed, once they are left alone. It is one goroutine, which starts with the first such file and
// ends with the drive, and does what it can: what it does not get to, FindAssets finds.
type describer struct {
	drive *Drive
	life  context.Context
	end   context.CancelFunc
	task  sync.WaitGroup
	wake  chan struct{} // holds one when there is something new to do

	mu     sync.Mutex // guards the rest
	begun  bool
	ended  bool
	due    []dueFile // the one that is due first, first
	last   time.Time // when something was changed last
	queued map[fileID]bool
}

type dueFile struct {
	id  fileID
	ino blobstore.Ino
	at  time.Time
}

const (
	// maxDue is how many files wait to be described.
	maxDue = 1 << 16

	// quiet is for how long nothing must have been changed before the work begins, so that it takes nothing from who writes many files; but no file waits
	// for that longer than patience.
	quiet    = 250 * time.Millisecond
	patience = 5 * time.Second

	// describeBatch is how many are described before that is stored.
	describeBatch = 64
)

func newDescriber(d *Drive) *describer {
	r := &describer{drive: d, wake: make(chan struct{}, 1), queued: make(map[fileID]bool)}
	r.life, r.end = context.WithCancel(context.Background())
	return r
}

// changed notes that the content of a node may be another than it was. It neither waits nor fails.
func (r *describer) changed(n *node) {
	id := fileID{r.drive.name, n.id}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = time.Now()
	if r.ended || n.id.birth == 0 || r.queued[id] || len(r.due) >= maxDue {
		return
	}
	r.queued[id] = true
	r.drive.store.catalog.setWaiting(id, 1)
	r.due = append(r.due, dueFile{id, r.drive.number(n), r.last.Add(2 * settled)})
	if !r.begun {
		r.begun = true
		r.task.Go(r.run)
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// close ends the work, whatever is left of it.
func (r *describer) close() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.end()
	r.task.Wait()
	for _, f := range r.due {
		r.drive.store.catalog.setWaiting(f.id, -1)
	}
}

func (r *describer) run() {
	var done []found
	var ids []fileID
	store := func() {
		if err := r.drive.store.catalog.put(r.life, done); err != nil && r.life.Err() == nil {
			r.drive.store.log.Debug("what files say could not be kept", "drive", r.drive.name, "error", err)
		}
		for _, id := range ids {
			r.drive.store.catalog.setWaiting(id, -1)
		}
		done, ids = nil, nil
	}
	defer store()
	for {
		next, wait := r.next()
		if wait != 0 || len(ids) >= describeBatch {
			store()
		}
		switch {
		case wait < 0:
			select {
			case <-r.wake:
				continue
			case <-r.life.Done():
				return
			}
		case wait > 0:
			select {
			case <-time.After(wait):
				continue
			case <-r.life.Done():
				return
			}
		}
		ids = append(ids, next.id)
		facts, err := r.describe(next)
		switch {
		case r.life.Err() != nil:
			return
		case errors.Is(err, errUnsettled):
			r.again(next)
		case facts != nil:
			done = append(done, *facts)
		}
	}
}

// next takes the file that is due, or says how long until one is; -1: there is none.
func (r *describer) next() (f dueFile, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.due) == 0 {
		return f, -1
	}
	now := time.Now()
	at := r.due[0].at
	if idle := r.last.Add(quiet); at.Before(idle) {
		at = idle
		if most := r.due[0].at.Add(patience); at.After(most) {
			at = most
		}
	}
	if wait = at.Sub(now); wait > 0 {
		return f, wait
	}
	f = r.due[0]
	r.due = r.due[1:]
	delete(r.queued, f.id) // what is written to it from now on is to be described too
	return f, 0
}

// again has a file wait once more.
func (r *describer) again(f dueFile) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || r.queued[f.id] || len(r.due) >= maxDue {
		return
	}
	f.at = time.Now().Add(4 * settled)
	r.queued[f.id] = true
	r.drive.store.catalog.setWaiting(f.id, 1)
	r.due = append(r.due, f)
}

// errUnsettled is of a file that is being changed.
var errUnsettled = errors.New("it is being changed")

// describe describes a file by its number, if that is still its. nil if there is nothing to say.
func (r *describer) describe(f dueFile) (*found, error) {
	n, err := r.drive.hold(r.life, f.ino)
	if err != nil {
		return nil, err
	}
	defer r.drive.drop(n)
	var st unix.Statx_t
	at, err := r.drive.open(n, &st)
	if err != nil || n.id != f.id.identity {
		if err == nil {
			at.release()
		}
		return nil, err
	}
	defer at.release()
	facts, size, mtimeNs, err := describeFile(r.life, at, n.id, true)
	if err != nil {
		return nil, err
	}
	if facts == nil {
		if since := time.Since(time.Unix(0, mtimeNs)); since < time.Minute {
			return nil, errUnsettled
		}
		return nil, nil
	}
	return &found{f.id, size, mtimeNs, *facts}, nil
}
