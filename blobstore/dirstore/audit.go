package dirstore

import (
	"bufio"
	"bytes"
	"container/heap"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
)

// The audit log is ROOT/.mediafs/audit/YYYY-MM.jsonl, a record a line (blobstore.AuditRecord as JSON), a file for each month of UTC in which
// records were written. Several processes add to one file: each batch is one write(2) at the end of it, of whole lines. What a
// crash has torn is passed over.
const (
	auditFolder = "audit"
	auditSuffix = ".jsonl"
	auditMonth  = "2006-01"
)

// syncEvery is how often at most the log is made durable.
const syncEvery = time.Second

// auditLog is where a store's drives write what is done.
type auditLog struct {
	mu     sync.Mutex // guards the rest; held while a batch is written
	closed bool
	denied bool // this process may not write here
	folder int  // descriptor; -1: not open yet
	file   int  // of the month; -1: none
	month  string
	uid    int // who owns the log: whoever owns .mediafs
	gid    int
	synced time.Time // when the file was last made durable
}

func newAuditLog() *auditLog { return &auditLog{folder: -1, file: -1} }

// errNoAudit says that this process may not write the log.
var errNoAudit = errors.New("may not be written to")

// appendAudit writes lines at the end of this month's file. It returns how much of them is written, also with an error.
func (s *Store) appendAudit(lines []byte) (int, error) {
	l := s.audit
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.denied {
		return 0, errNoAudit
	}
	err := l.open(s.root.fd, time.Now().UTC().Format(auditMonth))
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS) {
		l.denied = true
		s.log.Warn("nothing is recorded: "+filepath.Join(ownFolder, auditFolder)+" of the store can't be written by this user", "error", err)
		return 0, errNoAudit
	}
	if err != nil {
		return 0, err
	}
	torn, err := l.torn()
	if err != nil {
		return 0, err
	}
	out := lines
	if torn {
		out = append([]byte("\n"), lines...)
	}
	n, err := unix.Write(l.file, out)
	if n = max(n, 0); torn && n > 0 {
		n--
	}
	if err == nil && n < len(lines) {
		err = unix.ENOSPC // write(2) is short on a full disk alone
	}
	if err == nil && time.Since(l.synced) >= syncEvery {
		err = l.sync()
	}
	return n, err
}

// open sees to it that file is that of the month. With mu.
func (l *auditLog) open(root int, month string) error {
	if l.folder < 0 {
		own, err := openPath(root, ownFolder, unix.O_DIRECTORY, beneath)
		if err != nil {
			return err
		}
		defer unix.Close(own)
		var st unix.Statx_t
		if err := statx(own, "", &st); err != nil {
			return err
		}
		l.uid, l.gid = int(st.Uid), int(st.Gid)
		err = unix.Mkdirat(own, auditFolder, 0o700)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		if err == nil && os.Geteuid() == 0 {
			if err := unix.Fchownat(own, auditFolder, l.uid, l.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return err
			}
		}
		if l.folder, err = openat(own, auditFolder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0); err != nil {
			l.folder = -1
			return err
		}
	}
	if l.file >= 0 && l.month == month {
		return nil
	}
	if l.file >= 0 {
		_ = l.sync()
		_ = unix.Close(l.file)
		l.file = -1
	}
	const flags = unix.O_RDWR | unix.O_APPEND | unix.O_NOFOLLOW
	fd, err := openat(l.folder, month+auditSuffix, flags|unix.O_CREAT|unix.O_EXCL, 0o600)
	switch {
	case errors.Is(err, unix.EEXIST):
		fd, err = openat(l.folder, month+auditSuffix, flags, 0)
	case err == nil && os.Geteuid() == 0:
		err = unix.Fchown(fd, l.uid, l.gid)
	}
	if err != nil {
		return err
	}
	l.file, l.month = fd, month
	return nil
}

// torn says whether the file ends within a line. If another process is just writing one, that makes an empty line.
func (l *auditLog) torn() (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(l.file, &st); err != nil || st.Size == 0 {
		return false, err
	}
	var last [1]byte
	n, err := unix.Pread(l.file, last[:], st.Size-1)
	return n == 1 && last[0] != '\n', err
}

func (l *auditLog) sync() error {
	l.synced = time.Now()
	return retry(func() error { return unix.Fdatasync(l.file) })
}

func (l *auditLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	var err error
	if l.file >= 0 {
		err = errors.Join(l.sync(), unix.Close(l.file))
	}
	if l.folder >= 0 {
		err = errors.Join(err, unix.Close(l.folder))
	}
	l.file, l.folder = -1, -1
	return err
}

// A scribe writes the log of one drive.
type scribe struct {
	drive    *Drive
	user     auth.UserID
	host     string
	mount    string
	recorder *blobstore.Recorder
	written  int64 // events before this number are in the log. Known to the recorder's store alone
}

// startRecording has the drive record what is done with it, as that of a user ("": a guest).
func (d *Drive) startRecording(user auth.UserID) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	s := &scribe{drive: d, user: user, host: host, mount: rand.Text()}
	s.recorder = blobstore.NewRecorder(d.store.log.With("drive", d.name), s.write)
	d.scribe = s
	d.recordNow(blobstore.ActionMount)
}

// endRecording stores what is recorded.
func (d *Drive) endRecording(ctx context.Context) {
	if d.scribe == nil {
		return
	}
	d.recordNow(blobstore.ActionUnmount)
	if err := d.scribe.recorder.Close(ctx); err != nil {
		d.store.log.Warn("what was done last is not in the audit log", "drive", d.name, "error", err)
	}
}

func (d *Drive) recordNow(action blobstore.Action) {
	d.Record(blobstore.Event{Time: time.Now(), Action: action, Count: 1, Result: blobstore.ResultOK})
}

// Record implements blobstore.Audit. What is done in a folder of no store is not recorded.
func (d *Drive) Record(event blobstore.Event) {
	if d.scribe == nil {
		return
	}
	if event.Ino != 0 {
		d.mu.Lock()
		if n := d.nodes[event.Ino]; n != nil {
			event.Generation = uint64(n.id.birth)
		}
		d.mu.Unlock()
	}
	d.scribe.recorder.Record(event)
}

// write stores a batch: what of it is not in the log yet, and then the counts of the opened files.
func (s *scribe) write(ctx context.Context, batch blobstore.Batch) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var lines []byte
	var ends []int // of lines, one an event
	from := max(s.written-batch.First, 0)
	for _, event := range batch.Events[from:] {
		record := blobstore.AuditRecord{Event: event, Drive: blobstore.DriveName(s.drive.name), User: s.user, Host: s.host, Mount: s.mount}
		line, err := record.MarshalJSON() // as it is: json.Marshal writes <, > and & otherwise
		if err != nil {
			return err
		}
		lines = append(append(lines, line...), '\n')
		ends = append(ends, len(lines))
	}
	n, err := s.drive.store.appendAudit(lines)
	if errors.Is(err, errNoAudit) {
		return nil // that was said
	}
	whole, _ := slices.BinarySearch(ends, n+1)
	s.written = batch.First + from + int64(whole)
	if err != nil {
		return fmt.Errorf("write the audit log: %w", sentinel(err))
	}
	s.drive.store.index.followNow(ctx)
	return nil
}

// AuditLog implements blobstore.Store.
func (s *Store) AuditLog(ctx context.Context, session auth.Session, query blobstore.AuditQuery, take func(*blobstore.AuditRecord) bool) error {
	if err := session.Check(time.Now()); err != nil {
		return fmt.Errorf("dirstore: audit log: %w", err)
	}
	fits := query.Fits
	switch session.Role {
	case auth.RoleGuest:
		return fmt.Errorf("dirstore: audit log: %w", blobstore.ErrAccess)
	case auth.RoleAdmin:
	default:
		own := blobstore.DriveName(session.User)
		fits = func(r *blobstore.AuditRecord) bool { return r.Drive == own && query.Fits(r) }
	}
	if err := s.readAudit(ctx, query.Since, fits, take); err != nil {
		return fmt.Errorf("dirstore: audit log: %w", sentinel(err))
	}
	return nil
}

// AuditLog reads the log of all drives of the store in root, as whoever may read its files: no session is asked for.
func AuditLog(ctx context.Context, root string, query blobstore.AuditQuery, take func(*blobstore.AuditRecord) bool) error {
	s, err := Open(root, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.readAudit(ctx, query.Since, query.Fits, take); err != nil {
		return fmt.Errorf("read the audit log in %s: %w", filepath.Join(root, ownFolder, auditFolder), err)
	}
	return nil
}

// readAudit calls take for every record that fits, the oldest first. Records are in their files nearly in that order, for drives write
// theirs up to a second late; so the next of some thousand is taken.
func (s *Store) readAudit(ctx context.Context, since time.Time, fits func(*blobstore.AuditRecord) bool, take func(*blobstore.AuditRecord) bool) error {
	var next queue
	read := 0
	stop := errors.New("enough")
	err := s.eachAuditFile(func(name string, f *os.File) error {
		// A record is written after it was made, so it is in no earlier month.
		if !since.IsZero() && name < since.UTC().Format(auditMonth)+auditSuffix {
			return nil
		}
		lines := bufio.NewReaderSize(f, 1<<16)
		for {
			line, err := lines.ReadBytes('\n')
			if errors.Is(err, io.EOF) {
				return nil // what comes after the last line feed is torn, or not whole yet
			}
			if err != nil {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			r := new(blobstore.AuditRecord)
			if json.Unmarshal(line, r) != nil || !fits(r) {
				continue
			}
			read++
			heap.Push(&next, queued{r, read})
			if len(next) > auditWindow && !take(heap.Pop(&next).(queued).AuditRecord) {
				return stop
			}
		}
	})
	if errors.Is(err, stop) {
		return nil
	}
	for err == nil && len(next) > 0 && take(heap.Pop(&next).(queued).AuditRecord) {
	}
	return err
}

// eachAuditFile calls do with the files of the log, the oldest first, until it gives an error.
func (s *Store) eachAuditFile(do func(name string, f *os.File) error) error {
	folder, err := openBelow(s.root.fd, ownFolder, auditFolder)
	if errors.Is(err, unix.ENOENT) {
		return nil // nothing was recorded
	}
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(folder), auditFolder)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if !strings.HasSuffix(name, auditSuffix) {
			continue
		}
		fd, err := openat(folder, name, unix.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), name)
		err = do(name, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// openBelow opens a folder in a folder for reading.
func openBelow(root int, names ...string) (int, error) {
	fd, err := unix.Dup(root)
	for _, name := range names {
		if err != nil {
			return -1, err
		}
		next, openErr := openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		_ = unix.Close(fd)
		fd, err = next, openErr
	}
	return fd, err
}

// auditWindow is how many records are looked at to find the oldest: what two drives write at once at most.
const auditWindow = 16384

// queue is a heap of records by time; those of one time are as they were read.
type queue []queued

type queued struct {
	*blobstore.AuditRecord
	read int
}

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if c := q[i].Time.Compare(q[j].Time); c != 0 {
		return c < 0
	}
	return q[i].read < q[j].read
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(queued)) }
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}

// wholeLines is the part of b up to its last line feed.
func wholeLines(b []byte) []byte { return b[:bytes.LastIndexByte(b, '\n')+1] }
