package betterauth

import (
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"testing"

	"mediafs/auth"
)

const (
	raw       = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF"
	signature = "k9+/Xq2Lw7Zt5Rn1Yb3Vc8Mh4Jg6Fd0SaPoIuYtReWQ=" // of 32 bytes, with every character that is escaped
)

func TestParseTokenTakesEveryFormOfATokenAndReturnsTheTokenItself(t *testing.T) {
	signed := raw + "." + signature
	escaped := raw + "." + "k9%2B%2FXq2Lw7Zt5Rn1Yb3Vc8Mh4Jg6Fd0SaPoIuYtReWQ%3D"
	for what, s := range map[string]string{
		"raw":                      raw,
		"raw, as a file has it":    "  " + raw + "\r\n",
		"signed":                   signed,
		"escaped":                  escaped,
		"escaped in lower case":    strings.NewReplacer("%2B", "%2b", "%2F", "%2f", "%3D", "%3d").Replace(escaped),
		"bearer, raw":              "Bearer " + raw,
		"bearer, signed":           "bearer  " + signed,
		"bearer, escaped":          "BEARER " + escaped,
		"cookie":                   "better-auth.session_token=" + escaped,
		"cookie, not escaped":      "better-auth.session_token=" + signed,
		"cookie of a secure site":  "__Secure-better-auth.session_token=" + escaped,
		"cookie with other prefix": "appframes.session_token=" + escaped,
	} {
		got, err := ParseToken(s)
		if err != nil || got.Reveal() != raw {
			t.Errorf("%s: got %q, %v, want %q", what, got.Reveal(), err, raw)
		}
	}
}

func TestParseTokenRefusesWhatIsNone(t *testing.T) {
	for what, s := range map[string]string{
		"nothing":                   "",
		"spaces":                    " \n",
		"a short token":             raw[1:],
		"a long token":              raw + "a",
		"a token with a dash":       "-" + raw[1:],
		"letters that are not ours": strings.Repeat("é", 16),
		"a NUL":                     raw[1:] + "\x00",
		"two tokens":                raw + " " + raw,
		"a short signature":         raw + "." + signature[4:],
		"an unpadded signature":     raw + "." + strings.TrimRight(signature, "="),
		"a URL-safe signature":      raw + "." + strings.NewReplacer("+", "-", "/", "_").Replace(signature),
		"loose bits at the end":     raw + "." + strings.Replace(signature, "WQ=", "WR=", 1),
		"a line feed in it":         raw + "." + signature[:20] + "\n" + signature[20:],
		"a signature alone":         "." + signature,
		"two signatures":            raw + "." + signature + "." + signature,
		"a bad escape":              raw + "." + signature + "%zz",
		"an escape cut short":       raw + "%2",
		"escaped twice":             url.PathEscape(url.PathEscape(raw + "." + signature)),
		"another cookie":            "better-auth.session_data=" + raw,
		"a header of cookies":       "theme=dark; better-auth.session_token=" + raw + "; a=b",
		"another scheme":            "Basic " + raw,
		"the scheme alone":          "Bearer ",
		"an account's token":        auth.NewToken().Reveal(),
		"a JWT":                     "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm5hIn0." + base64.RawURLEncoding.EncodeToString(make([]byte, 32)),
	} {
		if got, err := ParseToken(s); !errors.Is(err, auth.ErrInvalid) || !got.IsZero() {
			t.Errorf("%s: got %q, %v, want ErrInvalid", what, got.Reveal(), err)
		} else if s != "" && strings.Contains(err.Error(), raw) {
			t.Errorf("%s: the error has the token: %v", what, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(raw)
	f.Add(raw + "." + signature)
	f.Add("Bearer " + raw + "." + url.QueryEscape(signature))
	f.Add("__Secure-better-auth.session_token=" + raw + "." + url.QueryEscape(signature))
	f.Add(raw + "%")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err != nil {
			if !errors.Is(err, auth.ErrInvalid) || !token.IsZero() {
				t.Fatalf("%q: got %q, %v", s, token.Reveal(), err)
			}
			return
		}
		if !isToken(token.Reveal()) {
			t.Fatalf("%q: %q is no token", s, token.Reveal())
		}
		for _, form := range []string{token.Reveal(), "Bearer " + token.Reveal(), token.Reveal() + "." + signature} {
			if again, err := ParseToken(form); err != nil || again != token {
				t.Errorf("%q: got %q, %v, want %q", form, again.Reveal(), err, token.Reveal())
			}
		}
	})
}
