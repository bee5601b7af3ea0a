package fusefs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"mediafs/blobstore"
)

// Drives are what a mount of many shows.
type Drives interface {
	// List calls take for one drive after the other in the order of their numbers, from the number after on (0: from
	// the start), until take returns false. take must not call the drives.
	List(ctx context.Context, after blobstore.DriveID, take func(blobstore.DriveInfo) bool) error

	// Open opens the drive that is shown under a name: blobstore.ErrNotExist if there is none, an error of package auth
	// if its session has ended. The mount closes what it has opened.
	Open(ctx context.Context, name blobstore.DriveName) (Shown, error)
}

// Shown is a drive as it is shown.
type Shown struct {
	ID       blobstore.DriveID // its number in this mount, as List gives it; at least 1
	Drive    blobstore.Drive
	UID, GID uint32 // of this machine: whom the drive's owner shows as
	Keep     bool   // stays open as long as the mount; others are closed when they are idle
}

// NewMany mounts a folder that shows many drives, one folder each, and serves it; it returns when the mount answers. A drive is
// opened when somebody looks into its folder. The caller calls CloseDrives in the end.
func NewMany(shown Drives, o Options) (*Mount, error) {
	o = o.withDefaults()
	fs := newFilesystemOfMany(shown, o)
	m, err := attach(fs, o)
	if err != nil {
		fs.many.stop()
		ctx, cancel := context.WithTimeout(context.Background(), o.Timeout)
		defer cancel()
		return nil, errors.Join(err, fs.many.closeAll(ctx))
	}
	return m, nil
}

func newFilesystemOfMany(shown Drives, o Options) *filesystem {
	many := newDrives(shown, o)
	fs := newFilesystemAt(newRoot(many, o.RootMode), maxIno, o)
	fs.many = many
	return fs
}

// CloseDrives waits until nothing is served any more, and closes the drives that a mount of many has opened, as
// blobstore.Drive.Close does: what is pending is stored, or the error says of which drive it is not. It does nothing in a mount of
// one drive, whose drive is the caller's.
func (m *Mount) CloseDrives(ctx context.Context) error {
	if m.fs.many == nil {
		return nil
	}
	select {
	case <-m.done:
		return m.fs.many.closeAll(ctx)
	case <-ctx.Done():
		return fmt.Errorf("close the drives of %s: it is still mounted: %w", m.mountpoint, context.Cause(ctx))
	}
}

// drives are the drives of a mount of many. Those that are in use are open; of the others, those that were used last.
type drives struct {
	shown   Drives
	most    int           // how many stay open when nobody uses them, those aside that are kept
	timeout time.Duration // of opening and of closing one
	log     *slog.Logger

	mu      sync.RWMutex
	opened  map[blobstore.DriveID]*drive              // guarded by mu, as the rest
	idled   map[blobstore.DriveID]chan struct{}       // of those that were closed when idle, last: closed when that was done
	names   map[blobstore.DriveID]blobstore.DriveName // of all that were ever shown
	numbers map[blobstore.DriveName]blobstore.DriveID // likewise
	ended   map[blobstore.DriveID]error               // of those that are suspended, open or not: why

	clock    atomic.Uint64 // counts uses, so that it tells which was earlier
	passing  atomic.Int64  // how many are open that are not kept
	opening  singleflight.Group
	idle     chan struct{} // there may be one to close
	stopping chan struct{}
	tasks    sync.WaitGroup // closeIdle, and what opens
}

func newDrives(shown Drives, o Options) *drives {
	m := &drives{
		shown:    shown,
		most:     o.OpenDrives,
		timeout:  o.Timeout,
		log:      o.Logger,
		opened:   make(map[blobstore.DriveID]*drive),
		idled:    make(map[blobstore.DriveID]chan struct{}),
		names:    make(map[blobstore.DriveID]blobstore.DriveName),
		numbers:  make(map[blobstore.DriveName]blobstore.DriveID),
		ended:    make(map[blobstore.DriveID]error),
		idle:     make(chan struct{}, 1),
		stopping: make(chan struct{}),
	}
	m.tasks.Go(m.closeIdle)
	return m
}

// hold returns the drive of a number, held, and opens it if it is not open. ErrStale if none was ever shown by that number.
func (m *drives) hold(ctx context.Context, number blobstore.DriveID) (*drive, error) {
	for {
		d := m.holdOpened(number)
		if d != nil {
			return d, nil
		}
		m.mu.RLock()
		name, known := m.names[number]
		ended := m.ended[number]
		m.mu.RUnlock()
		switch {
		case !known:
			return nil, fmt.Errorf("drive %d: %w", number, blobstore.ErrStale)
		case ended != nil:
			return nil, fmt.Errorf("drive %q: %w", name, ended)
		}
		now, err := m.open(ctx, name)
		if err != nil {
			return nil, err
		}
		if now != number {
			return nil, fmt.Errorf("drive %q: another one has its name now: %w", name, blobstore.ErrStale)
		}
	}
}

// holdNamed is hold for the drive that is shown under a name. ErrNotExist if there is none.
func (m *drives) holdNamed(ctx context.Context, name blobstore.DriveName) (*drive, error) {
	if d := m.holdOpenedNamed(name); d != nil {
		return d, nil
	}
	number, err := m.open(ctx, name)
	if err != nil {
		return nil, err
	}
	return m.hold(ctx, number)
}

// holdOpened is hold for a drive that is open; nil for others.
func (m *drives) holdOpened(number blobstore.DriveID) *drive {
	m.mu.RLock()
	defer m.mu.RUnlock()
	d := m.opened[number]
	if d != nil {
		d.hold()
	}
	return d
}

// holdOpenedNamed is holdOpened for the drive that is shown under a name.
func (m *drives) holdOpenedNamed(name blobstore.DriveName) *drive {
	m.mu.RLock()
	number := m.numbers[name]
	m.mu.RUnlock()
	return m.holdOpened(number)
}

// open has the drive of a name opened, once for all who wait for it, and returns its number. The opening goes on when ctx ends.
func (m *drives) open(ctx context.Context, name blobstore.DriveName) (blobstore.DriveID, error) {
	type result struct {
		number any
		err    error
	}
	opened := make(chan result, 1)
	m.tasks.Go(func() {
		number, err, _ := m.opening.Do(string(name), func() (any, error) { return m.openNow(name) })
		opened <- result{number, err}
	})
	select {
	case r := <-opened:
		if r.err != nil {
			return 0, fmt.Errorf("open drive %q: %w", name, r.err)
		}
		return r.number.(blobstore.DriveID), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("open drive %q: %w", name, context.Cause(ctx))
	}
}

func (m *drives) openNow(name blobstore.DriveName) (blobstore.DriveID, error) {
	ctx, cancel := context.WithTimeout(context.Background(), m.timeout)
	defer cancel()
	m.mu.RLock()
	number := m.numbers[name]
	_, opened := m.opened[number]
	idled := m.idled[number]
	m.mu.RUnlock()
	if opened {
		return number, nil
	}
	if idled != nil {
		select {
		case <-idled:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	shown, err := m.shown.Open(ctx, name)
	if err != nil {
		return 0, err
	}
	if err := m.add(name, shown); err != nil {
		return 0, errors.Join(err, shown.Drive.Close(ctx))
	}
	m.becameIdle() // this one is not, but another may be too many now
	return shown.ID, nil
}

// add takes in a drive that was opened.
func (m *drives) add(name blobstore.DriveName, shown Shown) error {
	if err := m.remember(blobstore.DriveInfo{ID: shown.ID, Name: name}); err != nil {
		return err
	}
	d := &drive{
		Drive: shown.Drive, number: shown.ID, ids: newIDs(shown.Drive, shown.UID, shown.GID),
		many: m, name: name, keep: shown.Keep,
	}
	d.used.Store(m.clock.Add(1))
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.opened[d.number] != nil {
		return fmt.Errorf("number %d is that of drive %q: %w", d.number, m.opened[d.number].name, blobstore.ErrInvalid)
	}
	if ended := m.ended[d.number]; ended != nil {
		d.suspended.Store(&ended)
	}
	d.again = m.idled[d.number] != nil
	m.opened[d.number] = d
	if !d.keep {
		m.passing.Add(1)
	}
	return nil
}

// remember takes note of a drive's number, which leads to its name from then on.
func (m *drives) remember(info blobstore.DriveInfo) error {
	if info.ID == 0 || info.ID > blobstore.MaxDriveID {
		return fmt.Errorf("drive %q: %d is no number of a drive: %w", info.Name, info.ID, blobstore.ErrInvalid)
	}
	m.mu.RLock()
	known := m.names[info.ID] == info.Name && m.numbers[info.Name] == info.ID
	m.mu.RUnlock()
	if known {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.names[info.ID] = info.Name
	m.numbers[info.Name] = info.ID
	return nil
}

// becameIdle has closeIdle look whether too many are open.
func (m *drives) becameIdle() {
	if m.passing.Load() <= int64(m.most) {
		return
	}
	select {
	case m.idle <- struct{}{}:
	default:
	}
}

// closeIdle closes idle drives, those used longest ago first, while more than most are open.
func (m *drives) closeIdle() {
	for {
		select {
		case <-m.idle:
		case <-m.stopping:
			return
		}
		for d, closed := m.takeIdle(); d != nil; d, closed = m.takeIdle() {
			ctx, cancel := context.WithTimeout(context.Background(), m.timeout)
			if err := d.Close(ctx); err != nil { // nothing was pending
				m.log.Error("close an idle drive", "drive", d.name, "error", err)
			}
			cancel()
			close(closed)
		}
	}
}

// takeIdle takes the drive out that is to be closed next, if any. It is not opened again before the channel is closed.
func (m *drives) takeIdle() (*drive, chan struct{}) {
	if m.passing.Load() <= int64(m.most) {
		return nil, nil
	}
	m.mu.Lock() // nobody comes to hold a drive meanwhile
	defer m.mu.Unlock()
	var oldest *drive
	for _, d := range m.opened {
		if (oldest == nil || d.used.Load() < oldest.used.Load()) && d.isIdle() {
			oldest = d
		}
	}
	if oldest == nil {
		return nil, nil
	}
	delete(m.opened, oldest.number)
	m.passing.Add(-1)
	closed := make(chan struct{})
	m.idled[oldest.number] = closed
	return oldest, closed
}

// stop ends what goes on in the background. Nothing is asked any more.
func (m *drives) stop() {
	close(m.stopping)
	m.tasks.Wait()
}

// closeAll closes the drives that are open, all at once, so that one whose store is away does not use up the time of the others.
func (m *drives) closeAll(ctx context.Context) error {
	m.mu.Lock()
	opened := m.opened
	m.opened = make(map[blobstore.DriveID]*drive)
	m.mu.Unlock()
	var closing sync.WaitGroup
	failed := make(chan error, len(opened))
	for _, d := range opened {
		closing.Go(func() {
			if err := d.Close(ctx); err != nil {
				failed <- fmt.Errorf("drive %q: %w", d.name, err)
			}
		})
	}
	closing.Wait()
	close(failed)
	var errs []error
	for err := range failed {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
