package pgstore

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/jackc/pgx/v5/pgconn"

	"mediafs/auth"
	"mediafs/blobstore"
)

// What can be wrong with a database as a store.
var (
	ErrAddress        = errors.New("not a Postgres address, like postgres://user@host/database")
	ErrUnreachable    = errors.New("the database can't be reached")
	ErrNotInitialised = errors.New("the database is no store yet: run `mediafs init` with an administrator's login")
	ErrOlderSchema    = errors.New("the store is of an older version: run `mediafs init` with an administrator's login to bring it up to date")
	ErrNewerSchema    = errors.New("the store was made by a newer version of mediafs: update this program")
	ErrPrivilege      = errors.New("the login lacks a privilege")
)

// sentinels are the error codes that migrations/*.sql raise, and those of Postgres that mean something to a user.
var sentinels = map[string]error{
	"MF001": auth.ErrInvalid,
	"MF002": auth.ErrExpired,
	"MF003": auth.ErrBanned,
	"MF004": auth.ErrRevoked, // of the role that opened the drive
	"MF013": blobstore.ErrPermission,
	"MF020": blobstore.ErrNotDir,
	"MF021": blobstore.ErrIsDir,
	"MF022": blobstore.ErrInvalid,
	"MF028": blobstore.ErrNoSpace,
	"MF031": blobstore.ErrTooManyLinks,
	"MF039": blobstore.ErrNotEmpty,
	"MF061": blobstore.ErrNoXattr,
	"MF116": blobstore.ErrStale,
	"MF122": blobstore.ErrQuota,
	"MF404": blobstore.ErrNotExist,
	"MF409": blobstore.ErrExist,
	"23505": blobstore.ErrExist,    // unique_violation
	"25006": blobstore.ErrReadOnly, // read_only_sql_transaction
	"42501": blobstore.ErrAccess,   // insufficient_privilege
	"53100": blobstore.ErrNoSpace,  // disk_full
}

// away are the codes that Postgres answers with while it can't serve; the transaction has not happened.
var away = map[string]bool{
	"53300": true, // too_many_connections
	"57P01": true, // admin_shutdown
	"57P02": true, // crash_shutdown
	"57P03": true, // cannot_connect_now
}

// translate gives an error of an operation the sentinel that package blobstore promises, and names the operation.
func translate(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("pgstore: %s: %w", op, cause)
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		if sentinel, ok := sentinels[pg.Code]; ok {
			return fmt.Errorf("pgstore: %s: %w", op, sentinel)
		}
	}
	if unreachable(err) {
		return fmt.Errorf("pgstore: %s: %w: %w", op, blobstore.ErrUnavailable, err)
	}
	return fmt.Errorf("pgstore: %s: %w", op, err)
}

// unreachable says whether an error means that the database, not the operation, is at fault.
func unreachable(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return away[pg.Code]
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || pgconn.SafeToRetry(err) || pgconn.Timeout(err) || brokenConnection(err)
}

// addressError names what is wrong with an address without repeating it: it may hold a password.
func addressError(err error) error {
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		return ErrAddress
	}
	return connectError(err)
}

// connectError says why there is no connection, in a line without secrets.
func connectError(err error) error {
	for _, sentinel := range []error{ErrNotInitialised, ErrOlderSchema, ErrNewerSchema, ErrPrivilege, ErrAddress} {
		if errors.Is(err, sentinel) {
			return err
		}
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "42501":
			return fmt.Errorf("%w: %s", ErrPrivilege, pg.Message)
		case "3F000", "42P01", "42883": // no such schema, table, function
			return ErrNotInitialised
		}
		return fmt.Errorf("%w: %s", ErrUnreachable, pg.Message)
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		if cause := errors.Unwrap(connect); cause != nil {
			return fmt.Errorf("%w: %s: %w", ErrUnreachable, connect.Config.Host, innermost(cause))
		}
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// innermost is the error at the bottom, of the last of several tries.
func innermost(err error) error {
	for {
		switch e := err.(type) { //nolint:errorlint // walks the chain itself
		case interface{ Unwrap() error }:
			if e.Unwrap() == nil {
				return err
			}
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			errs := e.Unwrap()
			if len(errs) == 0 {
				return err
			}
			err = errs[len(errs)-1]
		default:
			return err
		}
	}
}
