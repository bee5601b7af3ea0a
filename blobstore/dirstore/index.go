package dirstore

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"mediafs/blobstore"
)

// indexFile is an SQLite database beside the store, which several processes use at once. It keeps what can be found out anew: how often files
// were opened, as the audit log says. For each file of the log it knows how far it has followed it; what comes after that and what it
// makes of it change in one transaction, so every line counts once, whoever follows. An index that is missing or broken is made anew and
// follows from the beginning.
const indexFile = "index.sqlite"

// indexVersion is the version of the schema (user_version).
const indexVersion = 1

const indexSchema = `
	create table followed (file text primary key, offset integer not null) without rowid;
	create table accesses (
		drive text not null, ino integer not null, generation integer not null, -- of the node that has the number now, or had it last
		count integer not null, at_ns integer not null,
		primary key (drive, ino)
	) without rowid;`

// followStep is how many bytes of the log are followed in one transaction.
const followStep = 4 << 20

var errIndexVersion = errors.New("it was made by another version of mediafs")

// index is a store's indexFile, opened when it is first needed.
type index struct {
	store *Store
	path  string

	mu   sync.Mutex // guards the rest; held by whoever uses the database
	db   *sql.DB    // nil: not open
	lost error      // it can't be used by this process

	life  context.Context
	end   context.CancelFunc
	task  sync.WaitGroup
	catch chan struct{} // holds one while a task follows what is far behind
}

func newIndex(s *Store, root string) *index {
	x := &index{store: s, path: filepath.Join(root, ownFolder, indexFile), catch: make(chan struct{}, 1)}
	x.life, x.end = context.WithCancel(context.Background())
	return x
}

// close ends the background and lets the database go.
func (x *index) close() error {
	x.end()
	x.task.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.lost = blobstore.ErrUnavailable
	if x.db == nil {
		return nil
	}
	return x.db.Close()
}

// use calls do with the database. One that is broken is made anew, and do called once more.
func (x *index) use(ctx context.Context, do func(*sql.DB) error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for again := true; ; again = false {
		if x.lost != nil {
			return x.lost
		}
		err := x.open(ctx)
		if err == nil {
			err = do(x.db)
		}
		switch {
		case err == nil:
			return nil
		case again && isBroken(err):
			x.store.log.Warn("the store's index is broken; making it anew from the audit log", "error", err)
			x.remove()
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EROFS), errors.Is(err, errIndexVersion):
			x.lost = err
			x.store.log.Warn("how often files are opened can't be told: the store's index can't be used", "error", err)
			return err
		default:
			return err
		}
	}
}

func isBroken(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff { // without what extends the code
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT:
		return true
	}
	return false
}

// remove takes away a broken index. With mu. Other processes that have it open go on with what they have.
func (x *index) remove() {
	if x.db != nil {
		_ = x.db.Close()
		x.db = nil
	}
	removeDatabase(x.path)
}

// open opens the database, and makes it the first time. With mu.
func (x *index) open(ctx context.Context) (err error) {
	if x.db == nil {
		x.db, err = openDatabase(ctx, x.path, indexSchema, indexVersion)
	}
	return err
}

// accesses is how often a node was opened, and when last.
func (x *index) accesses(ctx context.Context, drive string, ino blobstore.Ino, generation uint64) (count int64, at time.Time, err error) {
	var ns int64
	err = x.use(ctx, func(db *sql.DB) error {
		err := db.QueryRowContext(ctx, "select count, at_ns from accesses where drive = ? and ino = ? and generation = ?",
			drive, int64(ino), int64(generation)).Scan(&count, &ns)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return count, time.Unix(0, ns), err
}

// followNow follows the log one step. What is left after that is followed in the background.
func (x *index) followNow(ctx context.Context) {
	if !x.step(ctx) {
		return
	}
	select {
	case x.catch <- struct{}{}:
	default:
		return
	}
	x.task.Go(func() {
		for x.life.Err() == nil && x.step(x.life) {
		}
		<-x.catch
	})
}

// step follows the log and says whether there is more of it.
func (x *index) step(ctx context.Context) (more bool) {
	err := x.use(ctx, func(db *sql.DB) (err error) {
		more, err = x.follow(ctx, db)
		return err
	})
	if err != nil && x.life.Err() == nil {
		x.store.log.Debug("the audit log could not be followed; trying again with what is recorded next", "error", err)
	}
	return more && err == nil
}

// counted is a node as the table of accesses knows it.
type counted struct {
	drive      blobstore.DriveName
	ino        blobstore.Ino
	generation uint64
}

type opens struct{ count, atNs int64 }

func (x *index) follow(ctx context.Context, db *sql.DB) (more bool, err error) {
	return x.followUntil(ctx, db, nil)
}

// followUntil follows each file of the log to its end, or if until is not nil, as far as that says.
func (x *index) followUntil(ctx context.Context, db *sql.DB, until map[string]int64) (more bool, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer tx.Rollback()
	found := make(map[counted]opens)
	left := followStep
	err = x.store.eachAuditFile(func(name string, f *os.File) error {
		var offset int64
		err := tx.QueryRowContext(ctx, "select offset from followed where file = ?", name).Scan(&offset)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		size := info.Size()
		if until != nil {
			size = min(size, until[name])
		}
		if size <= offset {
			return nil
		}
		n := min(size-offset, int64(left))
		more = more || n < size-offset
		if n == 0 {
			return nil
		}
		part := make([]byte, n)
		got, err := f.ReadAt(part, offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		whole := wholeLines(part[:got])
		if len(whole) == 0 && got == followStep { // no record is that long
			whole = part
		}
		left -= len(whole)
		count(whole, found)
		_, err = tx.ExecContext(ctx, "insert into followed (file, offset) values (?, ?) on conflict do update set offset = excluded.offset",
			name, offset+int64(len(whole)))
		return err
	})
	if err != nil {
		return false, err
	}
	// Of two nodes with one number, the one that was born later has it.
	add, err := tx.PrepareContext(ctx, `insert into accesses as a (drive, ino, generation, count, at_ns) values (?, ?, ?, ?, ?)
		on conflict do update set count = case a.generation when excluded.generation then a.count + excluded.count else excluded.count end,
			at_ns = case a.generation when excluded.generation then max(a.at_ns, excluded.at_ns) else excluded.at_ns end,
			generation = excluded.generation where a.generation <= excluded.generation`)
	if err != nil {
		return false, err
	}
	defer add.Close()
	for node, o := range found {
		if _, err := add.ExecContext(ctx, string(node.drive), int64(node.ino), int64(node.generation), o.count, o.atNs); err != nil {
			return false, err
		}
	}
	return more, tx.Commit()
}

// count adds up the opens in lines of the log. Lines that are no records count nothing.
func count(lines []byte, found map[counted]opens) {
	for line := range bytes.Lines(lines) {
		if !bytes.Contains(line, []byte(`"action":"open"`)) {
			continue
		}
		var r blobstore.AuditRecord
		if json.Unmarshal(line, &r) != nil || r.Action != blobstore.ActionOpen || r.Result != blobstore.ResultOK || r.Generation == 0 || r.Count < 1 {
			continue
		}
		node := counted{r.Drive, r.Ino, r.Generation}
		o := found[node]
		found[node] = opens{o.count + int64(r.Count), max(o.atNs, r.Time.UnixNano())}
	}
}
