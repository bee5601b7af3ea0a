package dirstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// What a store keeps in SQLite is in files of its own folder, which several processes use at once.

// makeDatabase sees to it that the file is there, owned as the folder it is in: whoever runs the web application may run mediafs too.
func makeDatabase(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var folder unix.Stat_t
	if os.Geteuid() != 0 {
		return nil
	}
	if err := unix.Stat(filepath.Dir(path), &folder); err != nil {
		return err
	}
	return f.Chown(int(folder.Uid), int(folder.Gid))
}

// A database's transactions lock it at once, or when they first write.
const (
	lockAtOnce = "immediate"
	lockLater  = "deferred"
)

// connect opens a database whose file is there, with so much memory for its pages, in KiB.
func connect(path, lock string, cache int) (*sql.DB, error) {
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{
		"_pragma": {"busy_timeout(5000)", "journal_mode(wal)", "synchronous(normal)", fmt.Sprintf("cache_size(-%d)", cache)},
		"_txlock": {lock},
	}.Encode()}
	return sql.Open("sqlite", dsn.String())
}

// openDatabase opens a database over one connection, and makes it the first time.
func openDatabase(ctx context.Context, path, schema string, version int) (*sql.DB, error) {
	if err := makeDatabase(path); err != nil {
		return nil, err
	}
	db, err := connect(path, lockAtOnce, 512)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if err := whileBusy(ctx, func() error { return prepareDatabase(ctx, db, schema, version) }); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// whileBusy opens a database until that succeeds: while another program makes it one with a write-ahead log, SQLite waits for nobody.
func whileBusy(ctx context.Context, open func() error) error {
	for until := time.Now().Add(5 * time.Second); ; {
		err := open()
		var e *sqlite.Error
		if !errors.As(err, &e) || e.Code()&0xff != sqlite3.SQLITE_BUSY || time.Now().After(until) {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// prepareDatabase gives a new database, or one of an older version that the schema replaces, its schema, and errIndexVersion for one of another version.
func prepareDatabase(ctx context.Context, db *sql.DB, schema string, current int, older ...int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var version int
	if err := tx.QueryRowContext(ctx, "pragma user_version").Scan(&version); err != nil {
		return err
	}
	switch {
	case version == current:
		return nil
	case version == 0, slices.Contains(older, version):
		if _, err := tx.ExecContext(ctx, schema+fmt.Sprintf("pragma user_version = %d", current)); err != nil {
			return err
		}
		return tx.Commit()
	}
	return fmt.Errorf("it has version %d: %w", version, errIndexVersion)
}

// removeDatabase takes one away. Other processes that have it open go on with what they have.
func removeDatabase(path string) {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		_ = os.Remove(path + suffix)
	}
}
