package betterauth

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mediafs/auth"
)

// errMalformed is an answer that no Better Auth gives.
var errMalformed = errors.New("it is not what Better Auth answers")

func malformed(what string) error { return fmt.Errorf("%w: %s", errMalformed, what) }

// sessionAnswer is what GET /get-session answers, as far as it counts. The last three come with the plugin admin.
type sessionAnswer struct {
	Session *struct {
		Token     string    `json:"token"`
		UserID    string    `json:"userId"`
		ExpiresAt time.Time `json:"expiresAt"`
	} `json:"session"`
	User *struct {
		ID         string     `json:"id"`
		Role       *string    `json:"role"`
		Banned     *bool      `json:"banned"`
		BanExpires *time.Time `json:"banExpires"`
	} `json:"user"`
}

// parseSession reads the answer for a token. null is how Better Auth says that it does not know the token. Errors: those of
// package auth, and errMalformed.
func parseSession(body []byte, token auth.Token, now time.Time) (auth.Session, error) {
	if bytes.Equal(bytes.TrimSpace(body), []byte("null")) {
		return auth.Session{}, auth.ErrInvalid
	}
	var a sessionAnswer
	if err := json.Unmarshal(body, &a); err != nil {
		return auth.Session{}, errMalformed // what the decoder says could repeat parts of the answer
	}
	switch {
	case a.Session == nil || a.User == nil:
		return auth.Session{}, malformed("session or user is missing")
	case subtle.ConstantTimeCompare([]byte(a.Session.Token), []byte(token.Reveal())) != 1:
		return auth.Session{}, malformed("it is about another token")
	case a.User.ID == "" || a.User.ID != a.Session.UserID:
		return auth.Session{}, malformed("it is not clear whose session it is")
	case a.Session.ExpiresAt.IsZero():
		return auth.Session{}, malformed("the session has no end")
	}
	session := auth.Session{User: auth.UserID(a.User.ID), Role: auth.RoleUser, Token: token, Expires: a.Session.ExpiresAt}
	if a.User.Role != nil && slices.Contains(strings.Split(strings.ReplaceAll(*a.User.Role, " ", ""), ","), "admin") {
		session.Role = auth.RoleAdmin
	}
	if a.User.Banned != nil && *a.User.Banned && (a.User.BanExpires == nil || now.Before(*a.User.BanExpires)) {
		return auth.Session{}, auth.ErrBanned
	}
	if err := session.User.Check(); err != nil {
		return auth.Session{}, err
	}
	if err := session.Check(now); err != nil {
		return auth.Session{}, err
	}
	return session, nil
}
