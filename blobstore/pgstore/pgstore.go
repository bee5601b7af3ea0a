// Package pgstore keeps drives as rows in Postgres.
//
// The tables and what they promise are in migrations/001_store.sql. Three rules hold the package together:
//
//   - One operation is one transaction in one round trip. What takes more than one statement is a function of the database
//     (migrations/002_operations.sql); the session's token travels in front of it in the same transaction.
//   - The database checks the owner: every table has forced row-level security by that token. Nothing here has to be right for
//     one user's files to be out of another's reach.
//   - Content is chunks of one size, and a chunk, the file's size and its times are stored together. What is written is kept
//     in memory first, within a budget, and leaves in the background; Sync and Flush wait until it is durable.
//
// Operations on names and attributes commit without waiting for the disk: after a crash of the database server the last of
// them may be undone, in order, never half done. Sync and Flush wait for the disk, which covers all that was before.
package pgstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/semaphore"

	"mediafs/auth"
	"mediafs/blobstore"
)

// Options are the budgets of a Store. The zero value of each is its default.
type Options struct {
	Logger *slog.Logger

	Connections    int   // to the database at most
	PendingBytes   int64 // memory for what is written and not yet stored
	ReadAheadBytes int64 // memory for what is read before it is asked for
	ChunkSize      int   // of new drives, in bytes; a power of two; 64 KiB

	// Spool is the folder of this machine where Drive.Preserve keeps what could not be stored; it is made if its parent is
	// there. It must belong to whoever runs this program, and nobody else may enter it. "": nothing is kept.
	Spool string
}

// The defaults of what Options bound.
const (
	DefaultConnections    = 6
	DefaultPendingBytes   = 64 << 20
	DefaultReadAheadBytes = 32 << 20
)

func (o *Options) setDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Connections == 0 {
		o.Connections = DefaultConnections
	}
	if o.PendingBytes == 0 {
		o.PendingBytes = DefaultPendingBytes
	}
	if o.ReadAheadBytes == 0 {
		o.ReadAheadBytes = DefaultReadAheadBytes
	}
	if o.ChunkSize == 0 {
		o.ChunkSize = 64 << 10
	}
}

// Store is a blobstore.Store in a Postgres database. It is also the auth.Authenticator of the sessions that the database knows.
type Store struct {
	pool      *pgxpool.Pool
	log       *slog.Logger
	host      string
	chunkSize int
	spool     string

	pending   *semaphore.Weighted // bytes of pieces not yet stored
	readAhead *semaphore.Weighted // bytes of segments
	pieces    sync.Pool           // of *[]byte of the largest chunk size seen

	crashes *crashes
	counts  *counts
}

var (
	_ blobstore.Store    = (*Store)(nil)
	_ auth.Authenticator = (*Store)(nil)
)

// connectTimeout is how long a server may take to answer a new connection.
const connectTimeout = 5 * time.Second

// Open connects to the store at a postgres:// address. Errors: ErrUnreachable, ErrNotInitialised, ErrOlderSchema,
// ErrNewerSchema, ErrPrivilege.
//
// A login that the policies do not bind (a superuser, an owner of the tables, one that may act as mediafs_worker) steps down to the role mediafs on every
// connection before anything else.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	o.setDefaults()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, addressError(err)
	}
	crashes, err := newCrashes()
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(o.Connections)
	config.ConnConfig.ConnectTimeout = connectTimeout
	config.ConnConfig.RuntimeParams["application_name"] = "mediafs"
	config.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		registerPieces(c)
		if err := stepDown(ctx, c); err != nil {
			return err
		}
		return crashes.connected(ctx, c)
	}
	asParameters(config.ConnConfig)
	counts := &counts{}
	countRoundTrips(config.ConnConfig, &counts.roundTrips)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, addressError(err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	s := &Store{
		pool:      pool,
		log:       o.Logger,
		host:      host,
		chunkSize: o.ChunkSize,
		spool:     o.Spool,
		pending:   semaphore.NewWeighted(o.PendingBytes),
		readAhead: semaphore.NewWeighted(o.ReadAheadBytes),
		crashes:   crashes,
		counts:    counts,
	}
	if err := pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error { return checkSchema(ctx, c.Conn()) }); err != nil {
		pool.Close()
		return nil, connectError(err)
	}
	return s, nil
}

// Close ends the connections.
func (s *Store) Close() error {
	s.pool.Close()
	return nil
}

// stepDown makes a new connection one that the policies bind and whose secrets the server does not log, or refuses it with
// ErrPrivilege.
func stepDown(ctx context.Context, c *pgx.Conn) error {
	if err := hideParameters(ctx, c); err != nil {
		return err
	}
	// The path is what mediafs.admit would set in each transaction. All statements find rows by their keys, whatever the parameters are:
	// planning those with arrays anew each time costs as much as the rest.
	if _, err := c.Exec(ctx, "set search_path = pg_catalog, pg_temp; set plan_cache_mode = force_generic_plan"); err != nil {
		return err
	}
	var schema, above, member bool
	err := c.QueryRow(ctx, `
		select to_regnamespace('mediafs') is not null,
			r.rolsuper or r.rolbypassrls or exists (
				select from pg_roles o where o.rolname in ('mediafs_owner', 'mediafs_worker') and pg_has_role(r.oid, o.oid, 'member')),
			exists (select from pg_roles m where m.rolname = 'mediafs' and pg_has_role(r.oid, m.oid, 'usage'))
		from pg_roles r where r.rolname = current_user`).Scan(&schema, &above, &member)
	switch {
	case err != nil:
		return err
	case !schema:
		return ErrNotInitialised
	case !member:
		return fmt.Errorf("%w: login %q is not a member of the role mediafs: GRANT mediafs TO it", ErrPrivilege, c.Config().User)
	case above:
		if _, err := c.Exec(ctx, "set role mediafs"); err != nil {
			return fmt.Errorf("%w: login %q can't step down to the role mediafs: %w", ErrPrivilege, c.Config().User, err)
		}
	}
	return nil
}

// Authenticate asks the database whose token it is: an account's, or a session of the web application in the same database.
func (s *Store) Authenticate(ctx context.Context, token auth.Token) (auth.Session, error) {
	session := auth.Session{Token: token}
	if token.IsZero() {
		return session, auth.ErrInvalid
	}
	var user, role string
	var expires *time.Time
	var banned bool
	err := s.pool.QueryRow(ctx, "select user_id, role, expires_at, coalesce(banned, false) from mediafs.whoami($1)", token.Reveal()).
		Scan(&user, &role, &expires, &banned)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return auth.Session{}, auth.ErrInvalid
	case err != nil:
		return auth.Session{}, connectError(err)
	case banned:
		return auth.Session{}, auth.ErrBanned
	}
	session.User = auth.UserID(user)
	if session.Role, err = auth.ParseRole(role); err != nil {
		return auth.Session{}, err
	}
	if expires != nil {
		session.Expires = *expires
	}
	if err := session.Check(time.Now()); err != nil {
		return auth.Session{}, err
	}
	return session, nil
}
