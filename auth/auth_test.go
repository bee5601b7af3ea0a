package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestASessionOfNobodyMayDoNothing(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for what, c := range map[string]struct {
		session Session
		want    error
	}{
		"the zero session":         {Session{}, ErrInvalid},
		"without a user":           {Session{Role: RoleAdmin, Token: NewToken()}, ErrInvalid},
		"without a role":           {Session{User: "anna", Token: NewToken()}, ErrInvalid},
		"that never ends":          {Session{User: "anna", Role: RoleUser}, nil},
		"that ends later":          {Session{User: "anna", Role: RoleUser, Expires: now.Add(1)}, nil},
		"that ends now":            {Session{User: "anna", Role: RoleUser, Expires: now}, ErrExpired},
		"that has ended":           {Session{User: "anna", Role: RoleAdmin, Expires: now.Add(-1)}, ErrExpired},
		"of nobody that has ended": {Session{Expires: now.Add(-1)}, ErrInvalid},
	} {
		if got := c.session.Check(now); !errors.Is(got, c.want) {
			t.Errorf("%s: got %v, want %v", what, got, c.want)
		}
	}
}

func TestParseRoleTakesTheRolesOfSessionsAlone(t *testing.T) {
	for _, r := range []Role{RoleUser, RoleAdmin} {
		if got, err := ParseRole(string(r)); err != nil || got != r {
			t.Errorf("%s: got %q, %v", r, got, err)
		}
	}
	for _, s := range []string{"", "guest", "Admin", " user", "root", "user,admin"} {
		if got, err := ParseRole(s); err == nil || got != "" {
			t.Errorf("%q: got %q, %v, want an error", s, got, err)
		}
	}
}

func TestAUserIDIsASafeElementOfAPath(t *testing.T) {
	for _, id := range []UserID{"a", "anna", "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF", "42", "_", "anna.b@example.org", "a+b=c", "a-", "a..", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", UserID(strings.Repeat("x", MaxUserID))} {
		if err := id.Check(); err != nil {
			t.Errorf("%s: got %v", id, err)
		}
	}
	for _, id := range []UserID{"", ".", "..", ".mediafs", "-rf", "a/b", "/", "../anna", `a\b`, "a b", "a\x00", "a\n", "a:b", "a*", "a'", "é", "a\xff", "$(a)", "a%2f", "~", UserID(strings.Repeat("x", MaxUserID+1))} {
		if err := id.Check(); !errors.Is(err, ErrUserID) {
			t.Errorf("%q: got %v, want ErrUserID", id, err)
		}
	}
}

func FuzzUserID(f *testing.F) {
	for _, s := range []string{"anna", "../anna", ".", "a/b", "a\x00b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if UserID(s).Check() != nil {
			return
		}
		if !filepath.IsLocal(s) || filepath.Base(s) != s || filepath.Join("/root", s) != "/root/"+s || strings.ContainsAny(s, " \t\n'\"\\") {
			t.Errorf("%q is taken", s)
		}
	})
}

func TestNewTokensAreLongAndDiffer(t *testing.T) {
	a, b := NewToken(), NewToken()
	if a == b || a.Hash() == b.Hash() {
		t.Error("two tokens are the same")
	}
	if got := a.Reveal(); !strings.HasPrefix(got, TokenPrefix) || len(got) != len(TokenPrefix)+43 { // 256 bits in base64
		t.Errorf("got %q", got)
	}
	if got, err := ParseToken(a.Reveal()); err != nil || got != a {
		t.Errorf("got %q, %v, want %q", got.Reveal(), err, a.Reveal())
	}
	if a.IsZero() || !(Token{}).IsZero() {
		t.Error("the zero token is not told apart")
	}
}

func TestParseTokenTakesOneWord(t *testing.T) {
	for s, want := range map[string]string{"a": "a", " a\n": "a", "\ta.b%3D\r\n": "a.b%3D", strings.Repeat("x", 4096): strings.Repeat("x", 4096)} {
		if got, err := ParseToken(s); err != nil || got.Reveal() != want {
			t.Errorf("%.20q: got %q, %v", s, got.Reveal(), err)
		}
	}
	for _, s := range []string{"", " \n", "a b", "a\nb", "a\x00", "a\x7f", "é", strings.Repeat("x", 4097)} {
		if got, err := ParseToken(s); !errors.Is(err, ErrInvalid) || !got.IsZero() {
			t.Errorf("%.20q: got %q, %v, want ErrInvalid", s, got.Reveal(), err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	for _, s := range []string{"mfs_abc", " a \n", "a b", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if (err != nil) != token.IsZero() {
			t.Fatalf("%q: got %q, %v", s, token.Reveal(), err)
		}
		if err != nil {
			return
		}
		if strings.ContainsAny(token.Reveal(), " \t\r\n\x00") {
			t.Errorf("%q: got %q", s, token.Reveal())
		}
		if again, err := ParseToken(token.Reveal()); err != nil || again != token {
			t.Errorf("%q: got %q, %v the second time", s, again.Reveal(), err)
		}
	})
}

func TestATokenIsNeverPrinted(t *testing.T) {
	token := NewToken()
	session := Session{User: "anna", Role: RoleUser, Token: token}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("signed in", "token", token, "pointer", &token, "session", session)
	}
	encoded, err := json.Marshal(map[string]any{"token": token, "session": session})
	if err != nil {
		t.Fatal(err)
	}
	outputs := map[string]string{
		"log":   log.String(),
		"JSON":  string(encoded),
		"error": fmt.Errorf("sign in with %v: %w", token, ErrInvalid).Error(),
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v"} {
		for what, value := range map[string]any{"token": token, "pointer": &token, "session": session, "list": []Token{token}} {
			outputs[verb+" of a "+what] = fmt.Sprintf(verb, value)
			if verb == "%T %v" {
				outputs[verb+" of a "+what] = fmt.Sprintf(verb, value, value)
			}
		}
	}
	secret := strings.TrimPrefix(token.Reveal(), TokenPrefix)
	for what, got := range outputs {
		if strings.Contains(got, secret) || strings.Contains(got, fmt.Sprintf("%x", secret)) || strings.Contains(got, fmt.Sprintf("%X", secret)) {
			t.Errorf("%s: got %s", what, got)
		}
	}
	if got := fmt.Sprint(token); got != "[token]" {
		t.Errorf("got %q, want [token]", got)
	}
}
