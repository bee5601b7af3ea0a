package pgstore

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"mediafs/auth"
	"mediafs/blobstore"
)

// Drive is a drive in the database, attached by one session.
//
// A guest's attachment writes nothing, so it has no row in mediafs.mounts and nobody knows what it has open: a file that is removed
// meanwhile is collected as if it were not, and reading on gives ErrStale.
type Drive struct {
	store   *Store
	log     *slog.Logger
	session atomic.Pointer[auth.Session] // whose the next transaction is
	guest   bool
	wanted  string // mediafs.drive of its transactions: its number, or "" for the session's own
	id      int32
	chunk   int64    // bytes in a chunk
	mount   [16]byte // this attachment's row in mediafs.mounts, a UUID

	key      [32]byte // the right to add to the drive's log, see mediafs.attachments
	recorder *blobstore.Recorder

	numbers numbers
	quota   *quota
	waiters waiters
	known   known
	sole    *sole
	making  makings
	makers  makers
	epochs  *epochs
	atimes  atimes
	spool   *spool // nil: nothing is kept
	locks   locks

	describing describing

	crash struct {
		mu    sync.Mutex    // held while one is heard of
		heard atomic.Uint64 // crashes.count then
	}

	commits atomic.Uint64 // transactions that changed something and committed without waiting for the disk
	durable atomic.Uint64 // how many of those are known to be on it
	losses  atomic.Uint64 // times that the server may have crashed with commits that it may have lost
	changes atomic.Uint64 // changes made here; a listing read before one has attributes that may be old

	// dropping is held shared while a name is taken away, from looking what is open here until that is done, and for a
	// moment by whoever opens a file: a file is either seen open, and kept, or opened afterwards, and not found.
	dropping sync.RWMutex

	mu    sync.Mutex
	blobs map[blobstore.Ino]*blob // guarded by mu: files open here, and files with bytes that are not stored yet

	stop    context.CancelFunc // ends tasks
	life    context.Context    // ends with the drive
	tasks   sync.WaitGroup     // background stores, the keeper, and what describes files; waited for by Close
	collect chan struct{}      // says that something was removed
	settle  chan struct{}      // says that the database may have other locks for held than are
}

var (
	_ blobstore.Drive     = (*Drive)(nil)
	_ blobstore.Preserver = (*Drive)(nil)
)

// attach attaches a drive. find gives its number and the size of its chunks, or no row if there is no such drive for the session.
func (s *Store) attach(ctx context.Context, session auth.Session, name blobstore.DriveName, find statement) (*Drive, error) {
	d := &Drive{
		store:   s,
		guest:   session.Role == auth.RoleGuest,
		blobs:   make(map[blobstore.Ino]*blob),
		collect: make(chan struct{}, 1),
		epochs:  newEpochs(),
		settle:  make(chan struct{}, 1),
		known:   known{era: 1},
		sole:    newSole(),
		quota:   newQuota(),
	}
	d.known.making = &d.making
	d.describing.soon = make(chan struct{}, 1)
	d.locks.table.Claim = d.claim
	d.session.Store(&session)
	own := name == ""
	if own {
		name = blobstore.DriveName(session.User)
	}
	d.log = s.log.With("drive", name)
	for _, random := range [][]byte{d.mount[:], d.key[:]} {
		if _, err := rand.Read(random); err != nil {
			return nil, err
		}
	}
	d.life, d.stop = context.WithCancel(context.WithoutCancel(ctx))
	find.each = func(r pgx.Rows) error { return r.Scan(&d.id, &d.chunk) }
	err := d.run(ctx, "open drive", attaching, find)
	if err == nil && d.id == 0 {
		err = translate(ctx, "open drive", blobstore.ErrNotExist)
	}
	if !own {
		d.wanted = strconv.Itoa(int(d.id))
	}
	if err == nil {
		err = d.register(ctx)
	}
	if err == nil && !d.guest {
		err = d.beat(ctx)
	}
	if err == nil && !d.guest {
		err = d.arrive(ctx)
	}
	if err == nil {
		err = d.askQuota(ctx)
	}
	if err == nil && s.spool != "" && !d.guest {
		err = d.openSpool(ctx, session.User)
	}
	if err != nil {
		d.stop()
		return nil, err
	}
	d.tasks.Go(d.keep)
	d.tasks.Go(d.watchSole)
	if !d.guest {
		d.tasks.Go(d.describeFiles)
	}
	d.startRecording()
	return d, nil
}

// ID is the drive's number.
func (d *Drive) ID() blobstore.DriveID { return blobstore.DriveID(d.id) }

// Owner is 0, 0: a drive's own files belong to no user of any machine, and show as whoever mounts it.
func (d *Drive) Owner() (uid, gid uint32) { return 0, 0 }

// Close stores what is pending and detaches the drive. If the session has ended that is an error only if something is pending; what
// can't be stored is kept in the spool (blobstore.ErrKept).
func (d *Drive) Close(ctx context.Context) error {
	var errs []error
	storing, stop := blobstore.UntilStalled(ctx, d)
	for _, b := range d.pendingBlobs() {
		err := b.store(storing, everything)
		if nameless, lost := b.isNameless(); err != nil && (!nameless || lost != nil) { // what has no name any more need not be stored
			errs = append(errs, err)
		}
	}
	if err := d.makeNamesDurable(storing); err != nil && !isSessionEnd(err) {
		errs = append(errs, err)
	}
	if err := d.storeAtimes(storing); err != nil && !isSessionEnd(err) { // nothing of the user's is at stake
		d.log.Warn("times of access are lost", "error", err)
	}
	stop()
	d.stop()
	d.tasks.Wait()
	answered := d.endRecording(ctx)
	if len(errs) > 0 {
		d.spool.die(false)
		return d.closeKeeping(errors.Join(errs...))
	}
	d.letGo()
	d.spool.close()
	if d.guest {
		return nil
	}
	if !answered { // nothing of the user's is at stake, who need not wait long
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, blobstore.StallLimit)
		defer cancel()
	}
	err := d.collectAll(ctx)
	if err == nil {
		err = d.run(ctx, "close drive", repeating, statement{
			sql:  "delete from mediafs.locks where drive_id = $1 and mount_id = $2",
			args: []any{d.id, d.mount},
		}, statement{
			sql:  "delete from mediafs.mounts where drive_id = $1 and mount_id = $2",
			args: []any{d.id, d.mount},
		})
	}
	d.spool.die(err == nil)
	if err != nil {
		d.log.Warn("the drive could not be detached; the next mount does it", "error", err)
	}
	return nil
}

// isSessionEnd says whether an error is that the session has ended.
func isSessionEnd(err error) bool {
	for _, end := range []error{auth.ErrInvalid, auth.ErrExpired, auth.ErrRevoked, auth.ErrBanned} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// letGo forgets all blobs and gives their memory back. Nothing is pending but what belongs to files without a name.
func (d *Drive) letGo() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.blobs {
		b.mu.Lock()
		b.discard(0)
		b.dropSegments(0, -1)
		b.mu.Unlock()
	}
	clear(d.blobs)
}

// PendingBytes is how much is written and not yet stored.
func (d *Drive) PendingBytes() int64 {
	var n int64
	for _, b := range d.pendingBlobs() {
		n += b.pendingBytes()
	}
	return n
}

// pendingBlobs are the files with bytes or times that are not stored yet.
func (d *Drive) pendingBlobs() []*blob {
	d.mu.Lock()
	all := slices.Collect(maps.Values(d.blobs))
	d.mu.Unlock()
	return slices.DeleteFunc(all, func(b *blob) bool { return !b.isPending() })
}

// open are the numbers of the files that are open here.
func (d *Drive) open() []int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	inos := make([]int64, 0, len(d.blobs))
	for ino := range d.blobs {
		inos = append(inos, int64(ino))
	}
	return inos
}

// makeDurable returns once everything that was committed before is on the disk of the database server. A later commit that
// waits does that, because the log is written in order; so it costs a round trip only if there was none. The commit has to write something,
// or it would wait for nothing.
func (d *Drive) makeDurable(ctx context.Context) error {
	commits := d.commits.Load()
	if d.guest || d.durable.Load() >= commits {
		return nil
	}
	there := false
	commit := func() error { // something to commit; when the mount was heard of is for beat to say
		return d.run(ctx, "sync", durably, statement{
			sql:  "update mediafs.mounts set seen_at = seen_at where drive_id = $1 and mount_id = $2 returning true",
			args: []any{d.id, d.mount},
			each: func(r pgx.Rows) error { return r.Scan(&there) },
		})
	}
	err := commit()
	if err == nil && !there { // a crash of the server has undone that the mount is known, or it was silent for a day
		if err = d.beat(ctx); err == nil {
			err = commit()
		}
	}
	if err == nil {
		d.isDurable(commits)
	}
	return err
}

// makeNamesDurable is makeDurable for a drive that is closed. What was renamed or removed and not synced is no reason to wait for a server that is away: it has
// been told, and writes it out by itself if it has not crashed.
func (d *Drive) makeNamesDurable(ctx context.Context) error {
	if d.known.away.Load() {
		return nil
	}
	err := d.makeDurable(ctx)
	if errors.Is(err, blobstore.ErrUnavailable) {
		d.log.Warn("what was renamed or removed last may come back if the database server has crashed", "error", err)
		return nil
	}
	return err
}

// isDurable notes that the first so many commits are on disk.
func (d *Drive) isDurable(commits uint64) { raise(&d.durable, commits) }

// raise sets a counter to n unless it is there already.
func raise(counter *atomic.Uint64, n uint64) {
	for {
		known := counter.Load()
		if known >= n || counter.CompareAndSwap(known, n) {
			return
		}
	}
}

// numbers hands out the drive's numbers, for nodes and for positions in folders, from a block taken from the database.
type numbers struct {
	mu        sync.Mutex // guards next and end
	next, end int64
}

// numberBlock is how many numbers a mount takes at a time; those it does not use are never used.
const numberBlock = 4096

// number returns one that the drive has never used. Taking a block waits for the disk: were it undone by a crash of the server, the next mount
// would be handed the numbers that this one goes on to use.
func (d *Drive) number(ctx context.Context) (int64, error) {
	d.numbers.mu.Lock()
	defer d.numbers.mu.Unlock()
	if d.numbers.next == d.numbers.end {
		var end int64
		err := d.run(ctx, "take numbers", durably, statement{
			sql:  "update mediafs.drives set next_ino = next_ino + $2 where drive_id = $1 returning next_ino",
			args: []any{d.id, int64(numberBlock)},
			each: func(r pgx.Rows) error { return r.Scan(&end) },
		})
		if err != nil {
			return 0, err
		}
		d.numbers.next, d.numbers.end = end-numberBlock, end
	}
	n := d.numbers.next
	d.numbers.next++
	return n, nil
}
