// Package auth says who somebody is: users, sessions and the ways to check them.
//
// A session is proof of sign-in. It comes from an Authenticator, which turns a token into a Session or says why not. The web
// application that owns the library signs people in (package betterauth); where there is none, accounts kept with the store
// do (package accounts, or the store's own tables).
package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Why a token is no session.
var (
	ErrInvalid = errors.New("the token is not known: sign in again")    // EKEYREVOKED while mounted
	ErrExpired = errors.New("the session has expired: sign in again")   // EKEYEXPIRED
	ErrRevoked = errors.New("the session was ended: sign in again")     // EKEYREVOKED
	ErrBanned  = errors.New("the user is banned: ask an administrator") // EKEYREVOKED
)

// An Authenticator checks tokens.
type Authenticator interface {
	// Authenticate returns the session that a token proves, or one of ErrInvalid, ErrExpired, ErrRevoked and
	// ErrBanned, wrapped or not. Any other error means that the answer could not be had.
	Authenticate(ctx context.Context, token Token) (Session, error)
}

// A Session is a signed-in user, or a guest. The zero Session is nobody and may do nothing.
type Session struct {
	User    UserID // "" for a guest
	Role    Role
	Token   Token
	Expires time.Time // zero: never
}

// Guest is the session of those who have not signed in. It has neither user nor token, and never ends.
func Guest() Session { return Session{Role: RoleGuest} }

// Check gives ErrInvalid for a session of nobody and ErrExpired for one that has expired by now.
func (s Session) Check(now time.Time) error {
	switch {
	case s.Role == RoleGuest && s == Guest():
		return nil
	case s.User == "" || s.Role != RoleUser && s.Role != RoleAdmin:
		return ErrInvalid
	case !s.Expires.IsZero() && !now.Before(s.Expires):
		return ErrExpired
	}
	return nil
}

// Role is what a user may do beyond their own drive. The zero Role may do nothing.
type Role string

// The roles.
const (
	RoleUser  Role = "user"  // has a drive
	RoleAdmin Role = "admin" // may use every drive
	RoleGuest Role = "guest" // no session: may read the public drive
)

// ParseRole reads a role that a session can have: user or admin.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case RoleUser, RoleAdmin:
		return r, nil
	}
	return "", fmt.Errorf("role %q: there are %q and %q", s, RoleUser, RoleAdmin)
}

// UserID names a user. It is opaque: whatever the application that signs people in calls them.
type UserID string

// MaxUserID is how many bytes a UserID may have.
const MaxUserID = 128

// ErrUserID is a user id that no drive can be named after.
var ErrUserID = errors.New("user id must be 1 to 128 letters, digits or any of _ - . @ + =, and not start with a dot or a dash")

// Check gives ErrUserID unless the id is safe as one element of a path and as a word in a message.
func (u UserID) Check() error {
	if u == "" || len(u) > MaxUserID || u[0] == '.' || u[0] == '-' {
		return ErrUserID
	}
	for i := range len(u) {
		c := u[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		digit := '0' <= c && c <= '9'
		if !letter && !digit && !strings.ContainsRune("_-.@+=", rune(c)) {
			return ErrUserID
		}
	}
	return nil
}

// A Token is the secret that proves a session. It prints as "[token]" whatever the verb, so that no log or error can hold it.
type Token struct{ secret string }

// TokenPrefix starts every token of an account, and no token of Better Auth.
const TokenPrefix = "mfs_"

// NewToken makes a token of 256 random bits.
func NewToken() Token {
	var b [32]byte
	rand.Read(b[:])
	return Token{TokenPrefix + base64.RawURLEncoding.EncodeToString(b[:])}
}

// ParseToken reads a token as a file or the environment holds it: spaces around it do not count. ErrInvalid if nothing is
// left, or if it has control characters or spaces inside, or more than 4096 bytes.
func ParseToken(s string) (Token, error) {
	s = strings.TrimSpace(s)
	if s == "" || len(s) > 4096 {
		return Token{}, ErrInvalid
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return Token{}, ErrInvalid
		}
	}
	return Token{s}, nil
}

// Reveal returns the secret itself, for the one place that sends it or shows it to its owner.
func (t Token) Reveal() string { return t.secret }

// IsZero says whether there is no token.
func (t Token) IsZero() bool { return t.secret == "" }

// Hash is the SHA-256 of the secret: what is stored of it. Tokens have 256 bits of their own, so no salt is needed.
func (t Token) Hash() [sha256.Size]byte { return sha256.Sum256([]byte(t.secret)) }

// Format writes "[token]".
func (t Token) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[token]")) }

// LogValue is "[token]".
func (t Token) LogValue() slog.Value { return slog.StringValue("[token]") }

// MarshalText gives "[token]".
func (t Token) MarshalText() ([]byte, error) { return []byte("[token]"), nil }
