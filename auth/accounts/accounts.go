// Package accounts keeps the users of a store of folders that no web application signs in: one small JSON file beside the
// drives.
//
//	{
//	  "version": 1,
//	  "accounts": [
//	    {"user": "anna", "role": "user", "created": "2026-01-02T15:04:05Z", "token_sha256": "9f86d0…"}
//	  ]
//	}
//
// Of a token only the SHA-256 is kept. The file is replaced as a whole, so a reader sees the list before a change or after it;
// changes from several processes wait for each other at a lock file beside it and none is lost. A file that is not exactly as
// described is refused and left as it is.
package accounts

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"mediafs/auth"
)

// A File is the accounts in a file.
type File struct {
	path string

	mu     sync.Mutex // guards what follows
	read   version    // of the file that list is from
	list   []account  // replaced, never changed
	loaded bool
}

var _ auth.Accounts = (*File)(nil)

// version tells one state of a file from the next. A change by this package makes a new inode, one by an editor a new time.
type version struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

// Open reads the accounts in the file at path. A missing file is an empty list; the first Add makes it.
func Open(path string) (*File, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	f := &File{path: path}
	if _, err := f.current(); err != nil {
		return nil, err
	}
	return f, nil
}

// Close has nothing to let go of.
func (f *File) Close() error { return nil }

// Authenticate finds the account whose token it is. Its session never expires. A change of the file counts at once.
func (f *File) Authenticate(ctx context.Context, token auth.Token) (auth.Session, error) {
	if err := ctx.Err(); err != nil {
		return auth.Session{}, context.Cause(ctx)
	}
	if token.IsZero() {
		return auth.Session{}, auth.ErrInvalid
	}
	list, err := f.current()
	if err != nil {
		return auth.Session{}, err
	}
	hash := token.Hash()
	found := -1
	for i := range list { // all of them, so that the time taken tells nothing
		same := subtle.ConstantTimeCompare(list[i].hash[:], hash[:])
		found = subtle.ConstantTimeSelect(same, i, found)
	}
	if found < 0 {
		return auth.Session{}, auth.ErrInvalid
	}
	return auth.Session{User: list[found].User, Role: list[found].Role, Token: token}, nil
}

// Add makes an account.
func (f *File) Add(ctx context.Context, user auth.UserID, role auth.Role) (auth.Token, error) {
	if err := user.Check(); err != nil {
		return auth.Token{}, fmt.Errorf("user %q: %w", user, err)
	}
	if _, err := auth.ParseRole(string(role)); err != nil {
		return auth.Token{}, err
	}
	token := auth.NewToken()
	err := f.change(ctx, func(list []account) ([]account, error) {
		if index(list, user) >= 0 {
			return nil, fmt.Errorf("user %q: %w", user, auth.ErrUserExists)
		}
		return append(list, account{
			Account: auth.Account{User: user, Role: role, Created: time.Now().UTC().Truncate(time.Second)},
			hash:    token.Hash(),
		}), nil
	})
	if err != nil {
		return auth.Token{}, err
	}
	return token, nil
}

// Renew gives an account a new token.
func (f *File) Renew(ctx context.Context, user auth.UserID) (auth.Token, error) {
	token := auth.NewToken()
	err := f.change(ctx, func(list []account) ([]account, error) {
		i := index(list, user)
		if i < 0 {
			return nil, fmt.Errorf("user %q: %w", user, auth.ErrNoUser)
		}
		list[i].hash = token.Hash()
		return list, nil
	})
	if err != nil {
		return auth.Token{}, err
	}
	return token, nil
}

// Remove forgets an account.
func (f *File) Remove(ctx context.Context, user auth.UserID) error {
	return f.change(ctx, func(list []account) ([]account, error) {
		i := index(list, user)
		if i < 0 {
			return nil, fmt.Errorf("user %q: %w", user, auth.ErrNoUser)
		}
		return slices.Delete(list, i, i+1), nil
	})
}

// List returns the accounts by name.
func (f *File) List(ctx context.Context) ([]auth.Account, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	list, err := f.current()
	if err != nil {
		return nil, err
	}
	accounts := make([]auth.Account, len(list))
	for i := range list {
		accounts[i] = list[i].Account
	}
	return accounts, nil
}

// current returns the list as the file has it now, reading the file only if it is another than at the last time.
func (f *File) current() ([]account, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := stat(f.path)
	if errors.Is(err, os.ErrNotExist) {
		f.list, f.read, f.loaded = nil, version{}, false
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	if f.loaded && now == f.read {
		return f.list, nil
	}
	list, err := readFile(f.path)
	if err != nil {
		f.loaded = false
		return nil, err
	}
	// Were the file changed between stat and read, its version would differ at the next call, which reads it again.
	f.list, f.read, f.loaded = list, now, true
	return list, nil
}

// change replaces the list with what edit makes of it, or leaves it if edit gives an error. edit owns what it is passed.
func (f *File) change(ctx context.Context, edit func([]account) ([]account, error)) error {
	folder := filepath.Dir(f.path)
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("accounts: %w", err)
	}
	unlock, err := lock(ctx, f.path+".lock")
	if err != nil {
		return fmt.Errorf("accounts: %w", err)
	}
	defer unlock()

	list, err := readFile(f.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if list, err = edit(list); err != nil {
		return err
	}
	slices.SortFunc(list, byName)
	data, err := encode(list)
	if err != nil {
		return fmt.Errorf("accounts: %s: %w", f.path, err)
	}
	if err := replaceFile(f.path, data); err != nil {
		return fmt.Errorf("accounts: %w", err)
	}
	return nil
}

func index(list []account, user auth.UserID) int {
	return slices.IndexFunc(list, func(a account) bool { return a.User == user })
}
