package blobstore

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"
)

// What a Recorder holds at most: about 1 MiB of events without their paths, and the paths.
const (
	recordedEvents = 8192
	recordedPaths  = 2 << 20 // bytes
)

// recordEvery is how old an event gets in memory while the store works.
const recordEvery = time.Second

// attemptToRecord is how long the store may take for one batch before it is tried again.
const attemptToRecord = 30 * time.Second

// A Batch is events on their way to the log, in the order they were noted. Their numbers tell them from all others of their Recorder:
// a batch whose storing failed comes again with the same, so that a store whose answer was lost can pass over what it has.
type Batch struct {
	First  int64 // the number of Events[0]; the next has First+1
	Events []Event
}

// A Recorder is the memory between a drive and its log. Events alike that come within a second are one there, with a Count and the sum
// of their Bytes: reading a folder of ten thousand files that may not be read is one denial each, not one for every try.
type Recorder struct {
	store func(context.Context, Batch) error
	log   *slog.Logger

	mu      sync.Mutex // guards what follows
	waiting []Event
	alike   map[likeness]int // where in waiting
	paths   int              // bytes of paths in waiting and in the batch on its way
	sending int              // events in the batch on its way
	lost    int              // events that there was no room for
	since   time.Time        // when the first of them came

	batch   Batch // on its way; empty if there is none. Known to run alone, and to Close when that has ended; so is the next
	failing bool  // the last attempt failed

	begun chan struct{} // something waits
	full  chan struct{} // half of what there is room for waits
	life  context.Context
	end   context.CancelFunc
	task  sync.WaitGroup
}

// likeness is what events have in common that are counted as one.
type likeness struct {
	action        Action
	ino           Ino
	generation    uint64
	path, newPath string
	uid           uint32
	result        string
}

// NewRecorder starts a Recorder. store is never called twice at once; it must not keep the batch. The Recorder must be closed.
func NewRecorder(log *slog.Logger, store func(context.Context, Batch) error) *Recorder {
	r := &Recorder{
		store: store,
		log:   log,
		alike: make(map[likeness]int),
		begun: make(chan struct{}, 1),
		full:  make(chan struct{}, 1),
	}
	r.life, r.end = context.WithCancel(context.Background())
	r.task.Go(r.run)
	return r
}

// Record notes an event, as Audit promises. After Close it does nothing.
func (r *Recorder) Record(event Event) {
	if r.life.Err() != nil {
		return
	}
	event.Count = max(event.Count, 1)
	like := likeness{event.Action, event.Ino, event.Generation, event.Path, event.NewPath, event.UID, event.Result}
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.alike[like]; ok && event.Time.Sub(r.waiting[at].Time) < recordEvery { // what waits for a store that is away gets older
		first := &r.waiting[at]
		first.Bytes += event.Bytes
		first.Count = min(first.Count, math.MaxInt32-event.Count) + event.Count
		return
	}
	size := len(event.Path) + len(event.NewPath)
	events := len(r.waiting) + r.sending
	if events >= recordedEvents || r.paths+size > recordedPaths {
		if r.lost == 0 {
			r.since = event.Time
		}
		r.lost = min(r.lost, math.MaxInt32-event.Count) + event.Count
		return
	}
	r.alike[like] = len(r.waiting)
	r.waiting = append(r.waiting, event)
	r.paths += size
	signal(r.begun)
	if events+1 >= recordedEvents/2 || r.paths >= recordedPaths/2 {
		signal(r.full)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is known already
	}
}

// run stores what waits: a second after its first event came, or when half of the room is taken.
func (r *Recorder) run() {
	for {
		select {
		case <-r.begun:
		case <-r.life.Done():
			return
		}
		for again := true; again; {
			timer := time.NewTimer(recordEvery)
			select {
			case <-timer.C:
			case <-r.full:
			case <-r.life.Done():
			}
			timer.Stop()
			if r.life.Err() != nil {
				return
			}
			ctx, cancel := context.WithTimeout(r.life, attemptToRecord)
			err := r.flush(ctx)
			cancel()
			again = err != nil
		}
	}
}

// flush stores what waits, once.
func (r *Recorder) flush(ctx context.Context) error {
	for len(r.batch.Events) > 0 || r.take() {
		if err := r.store(ctx, r.batch); err != nil {
			if !r.failing && ctx.Err() == nil {
				r.log.Warn("what was done can't be written to the audit log; trying again", "error", err)
			}
			r.failing = true
			return err
		}
		r.failing = false
		r.stored()
	}
	return nil
}

// take makes a batch of what waits, and says whether there is any.
func (r *Recorder) take() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost > 0 {
		r.waiting = append(r.waiting, Event{Time: r.since, Action: ActionLost, Count: r.lost, Result: ResultOK})
		r.lost = 0
	}
	if len(r.waiting) == 0 {
		return false
	}
	r.batch.Events, r.waiting = r.waiting, nil
	r.sending = len(r.batch.Events)
	clear(r.alike)
	return true
}

// stored lets the batch go.
func (r *Recorder) stored() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.batch.Events {
		r.paths -= len(r.batch.Events[i].Path) + len(r.batch.Events[i].NewPath)
	}
	r.sending = 0
	r.batch.First += int64(len(r.batch.Events))
	r.batch.Events = nil
}

// Close stores what waits and ends the Recorder. An error means that the rest is lost.
func (r *Recorder) Close(ctx context.Context) error {
	r.end()
	r.task.Wait()
	return r.flush(ctx)
}
