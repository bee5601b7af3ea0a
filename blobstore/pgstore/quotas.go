package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"mediafs/auth"
	"mediafs/blobstore"
)

var _ blobstore.Quotas = (*Store)(nil)

// Quotas is one round trip, however many drives there are.
func (s *Store) Quotas(ctx context.Context, session auth.Session) ([]blobstore.Quota, error) {
	if err := session.Check(time.Now()); err != nil {
		return nil, err
	}
	return readQuotas(ctx, s.pool, "mediafs.quotas($1)", credential(session))
}

// SetQuota is in force, for all mounts, when it returns. A mount foresees it within a second while it is used, or when it is refused the first time.
func (s *Store) SetQuota(ctx context.Context, session auth.Session, drive blobstore.DriveName, maxBytes, maxFiles int64) error {
	if err := session.Check(time.Now()); err != nil {
		return err
	}
	_, err := s.pool.Exec(ctx, "select mediafs.set_quota($1, $2, $3, $4)", credential(session), string(drive), maxBytes, maxFiles)
	return translate(ctx, "set a quota", err)
}

// Quotas gives those of all drives to an administrator's login: one that may act as mediafs_owner (ErrPrivilege).
func Quotas(ctx context.Context, url string) (list []blobstore.Quota, err error) {
	err = asOwner(ctx, url, func(conn *pgx.Conn) error {
		list, err = readQuotas(ctx, conn, "mediafs.all_quotas($1)", nil)
		return err
	})
	return list, err
}

// SetQuota is Store.SetQuota for an administrator's login.
func SetQuota(ctx context.Context, url string, drive blobstore.DriveName, maxBytes, maxFiles int64) error {
	return asOwner(ctx, url, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "select mediafs.limit_drive($1, $2, $3)", string(drive), maxBytes, maxFiles)
		return translate(ctx, "set a quota", err)
	})
}

// asOwner does something with a connection that acts as mediafs_owner.
func asOwner(ctx context.Context, url string, do func(*pgx.Conn) error) error {
	conn, err := connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := checkSchema(ctx, conn); err != nil {
		return connectError(err)
	}
	if _, err := conn.Exec(ctx, "set role mediafs_owner"); err != nil {
		return fmt.Errorf("%w: the quotas of all drives need an administrator's login, one that may act as mediafs_owner", ErrPrivilege)
	}
	return do(conn)
}

func readQuotas(ctx context.Context, db querier, of string, arg any) ([]blobstore.Quota, error) {
	rows, err := db.Query(ctx, "select q.name, q.owner, q.max_bytes, q.max_nodes, q.bytes, q.nodes from "+of+" q", arg)
	if err != nil {
		return nil, translate(ctx, "list quotas", err)
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (q blobstore.Quota, err error) {
		err = r.Scan(&q.Drive, &q.Owner, &q.MaxBytes, &q.MaxFiles, &q.UsedBytes, &q.UsedFiles)
		return q, err
	})
	return list, translate(ctx, "list quotas", err)
}
