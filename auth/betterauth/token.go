// Package betterauth knows the sessions of a web application that signs people in with Better Auth: how their tokens are
// written, where the application's own tables keep them, and how the application is asked.
//
// There are two ways to check a session. The store that lives in the application's database embeds [Tables.SessionSQL] in its
// own check, so that the answer is the database's. Every other asks the [Application] over HTTP, which also signs people in
// ([Application.StartSignIn]) and out.
package betterauth

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"

	"mediafs/auth"
)

// tokenLen is how many letters and digits a session token has.
const tokenLen = 32

// cookieName ends the name of the session's cookie. What is before it is up to the application: "better-auth." unless
// configured, with "__Secure-" in front on https.
const cookieName = "session_token"

// ParseToken reads the token of a session in any form in which people come by one:
//
//	aB3…                                        the token itself, as the table session has it
//	aB3….c2lnbmF0dXJl…=                         signed: followed by a dot and 44 characters of base64
//	aB3….c2lnbmF0dXJl…%3D                       the same, as a browser shows a cookie's value
//	better-auth.session_token=aB3….c2ln…%3D     the cookie
//	Bearer aB3…                                 the header's value
//
// It returns the token itself. The signature's form is checked but not the signature, which only the application could: a
// token is good if the table has it. Anything else gives auth.ErrInvalid.
func ParseToken(s string) (auth.Token, error) {
	s = strings.TrimSpace(s)
	if scheme, rest, ok := strings.Cut(s, " "); ok && strings.EqualFold(scheme, "bearer") { // RFC 9110, 11.1
		s = strings.TrimLeft(rest, " ")
	}
	if name, value, ok := strings.Cut(s, "="); ok && strings.HasSuffix(name, cookieName) {
		s = value
	}
	if strings.Contains(s, "%") {
		decoded, err := url.PathUnescape(s) // leaves '+' as it is, like decodeURIComponent
		if err != nil {
			return auth.Token{}, fmt.Errorf("not a token of Better Auth: %w", auth.ErrInvalid)
		}
		s = decoded
	}
	if i := strings.LastIndexByte(s, '.'); i >= 0 && isSignature(s[i+1:]) {
		s = s[:i]
	}
	if !isToken(s) {
		return auth.Token{}, fmt.Errorf("not a token of Better Auth: %w", auth.ErrInvalid)
	}
	return auth.ParseToken(s)
}

// isSignature says whether s is the padded base64 of an HMAC-SHA256.
func isSignature(s string) bool {
	if strings.ContainsAny(s, "\r\n") { // which the decoder skips
		return false
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	return err == nil && len(b) == 32
}

func isToken(s string) bool {
	if len(s) != tokenLen {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9') {
			return false
		}
	}
	return true
}
