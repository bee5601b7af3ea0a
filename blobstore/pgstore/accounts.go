package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"mediafs/auth"
	"mediafs/blobstore"
)

// accounts are those in mediafs.accounts, seen by an administrator's login.
type accounts struct {
	*Store // authenticates
	conn   *pgx.Conn
}

var _ auth.Accounts = (*accounts)(nil)

// OpenAccounts connects with an administrator's login: one that may act as mediafs_owner (ErrPrivilege). The errors of Open apply.
func OpenAccounts(ctx context.Context, url string) (auth.Accounts, error) {
	store, err := Open(ctx, url, Options{Connections: 1})
	if err != nil {
		return nil, err
	}
	conn, err := connect(ctx, url)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	a := &accounts{Store: store, conn: conn}
	if _, err := conn.Exec(ctx, "set role mediafs_owner"); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: accounts need an administrator's login, one that may act as mediafs_owner", ErrPrivilege), a.Close())
	}
	return a, nil
}

func (a *accounts) Add(ctx context.Context, user auth.UserID, role auth.Role) (auth.Token, error) {
	if err := user.Check(); err != nil || user == auth.UserID(blobstore.PublicDrive) {
		return auth.Token{}, auth.ErrUserID
	}
	if _, err := auth.ParseRole(string(role)); err != nil {
		return auth.Token{}, err
	}
	token := auth.NewToken()
	hash := token.Hash()
	_, err := a.conn.Exec(ctx, "insert into mediafs.accounts (user_id, role, token_hash) values ($1, $2, $3)", string(user), string(role), hash[:])
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "23505" {
		return auth.Token{}, auth.ErrUserExists
	}
	if err != nil {
		return auth.Token{}, connectError(err)
	}
	return token, nil
}

func (a *accounts) Renew(ctx context.Context, user auth.UserID) (auth.Token, error) {
	token := auth.NewToken()
	hash := token.Hash()
	tag, err := a.conn.Exec(ctx, "update mediafs.accounts set token_hash = $2 where user_id = $1", string(user), hash[:])
	return token, oneUser(tag, err)
}

func (a *accounts) Remove(ctx context.Context, user auth.UserID) error {
	tag, err := a.conn.Exec(ctx, "delete from mediafs.accounts where user_id = $1", string(user))
	return oneUser(tag, err)
}

func oneUser(tag pgconn.CommandTag, err error) error {
	if err != nil {
		return connectError(err)
	}
	if tag.RowsAffected() == 0 {
		return auth.ErrNoUser
	}
	return nil
}

func (a *accounts) List(ctx context.Context) ([]auth.Account, error) {
	rows, err := a.conn.Query(ctx, "select user_id, role, created_at from mediafs.accounts order by user_id collate \"C\"")
	if err != nil {
		return nil, connectError(err)
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (auth.Account, error) {
		var account auth.Account
		err := r.Scan(&account.User, &account.Role, &account.Created)
		return account, err
	})
	if err != nil {
		return nil, connectError(err)
	}
	return list, nil
}

func (a *accounts) Close() error {
	return errors.Join(a.conn.Close(context.Background()), a.Store.Close())
}
