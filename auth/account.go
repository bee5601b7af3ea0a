package auth

import (
	"context"
	"errors"
	"time"
)

// What can be wrong with the name of an account.
var (
	ErrUserExists = errors.New("the user exists already")
	ErrNoUser     = errors.New("there is no such user")
)

// An Account is a user known without any web application.
type Account struct {
	User    UserID
	Role    Role
	Created time.Time
}

// Accounts are the users of a store that no application signs in. An account has one token at a time; only its hash is kept.
type Accounts interface {
	Authenticator

	// Add makes a user and returns their token. ErrUserID for a name that can't be used, ErrUserExists.
	Add(ctx context.Context, user UserID, role Role) (Token, error)
	// Renew gives a user a new token; the one before is revoked. ErrNoUser.
	Renew(ctx context.Context, user UserID) (Token, error)
	// Remove revokes the token and forgets the user, whose drive stays as it is. ErrNoUser.
	Remove(ctx context.Context, user UserID) error
	// List returns all accounts, by name.
	List(ctx context.Context) ([]Account, error)

	Close() error
}
