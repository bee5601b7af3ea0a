package betterauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mediafs/auth"
)

// serve is an application that answers every question the same way.
func serve(t *testing.T, handler http.HandlerFunc) *Application {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	a, err := NewApplication(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func answerWith(status int, kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// rawToken is the token that the tests ask about.
func rawToken(t testing.TB) auth.Token {
	t.Helper()
	token, err := auth.ParseToken(raw)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// sessionBody is what Better Auth answers for the token raw. more goes into the user.
func sessionBody(expires time.Time, more string) string {
	return fmt.Sprintf(`{"session":{"id":"s1","token":%q,"userId":"anna","expiresAt":%q,"impersonatedBy":null},"user":{"id":"anna","email":"a@example.org"%s}}`,
		raw, expires.UTC().Format("2006-01-02T15:04:05.000Z"), more)
}

func TestAnApplicationIsAskedAtItsAddressAndNowhereElse(t *testing.T) {
	for address, want := range map[string]string{
		"https://app.example.org":               "https://app.example.org/api/auth",
		"https://app.example.org/":              "https://app.example.org/api/auth",
		"https://app.example.org:8443":          "https://app.example.org:8443/api/auth",
		" https://app.example.org/auth/\n":      "https://app.example.org/auth",
		"https://app.example.org/my%20app/auth": "https://app.example.org/my%20app/auth",
		"http://localhost:3000":                 "http://localhost:3000/api/auth",
		"http://app.localhost/x":                "http://app.localhost/x",
		"http://127.0.0.1:3000":                 "http://127.0.0.1:3000/api/auth",
		"http://[::1]:3000":                     "http://[::1]:3000/api/auth",
	} {
		if a, err := NewApplication(address); err != nil || a.String() != want {
			t.Errorf("%q: got %v, %v, want %s", address, a, err, want)
		}
	}
	for address, why := range map[string]string{
		"":                                   "https://",
		"app.example.org":                    "https://",
		"localhost:3000":                     "https://",
		"/srv/media":                         "https://",
		"ftp://app.example.org":              "https://",
		"https:app.example.org":              "https://",
		"https://":                           "no host",
		"http://app.example.org":             "in the clear",
		"http://localhost.example.org":       "in the clear",
		"http://127.0.0.1.example.org":       "in the clear",
		"http://10.0.0.1":                    "in the clear",
		"https://anna:hunter2@example.org":   "password",
		"https://app.example.org/?a=hunter2": "'?'",
		"https://app.example.org/#hunter2":   "'#'",
		"https://anna:hunter2@%zz/":          "can't be read",
	} {
		a, err := NewApplication(address)
		if a != nil || !errors.Is(err, ErrAddress) || !strings.Contains(err.Error(), why) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: got %v, %v, want ErrAddress with %q", address, a, err, why)
		}
	}
}

func TestASessionIsAskedForWithoutChangingIt(t *testing.T) {
	expires := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	var asked *http.Request
	a := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.Clone(context.Background())
		answerWith(http.StatusOK, "application/json; charset=utf-8", sessionBody(expires, `,"role":"editor, admin"`))(w, r)
	})
	got, err := a.Authenticate(t.Context(), rawToken(t))
	if err != nil || got.User != "anna" || got.Role != auth.RoleAdmin || got.Token != rawToken(t) || !got.Expires.Equal(expires) {
		t.Errorf("got %+v, %v", got, err)
	}
	if asked.Method != http.MethodGet || asked.URL.RequestURI() != "/api/auth/get-session?disableRefresh=true&disableCookieCache=true" ||
		asked.Header.Get("Authorization") != "Bearer "+raw || asked.Header.Get("Cookie") != "" {
		t.Errorf("got %s %s %v", asked.Method, asked.URL, asked.Header)
	}
}

func TestWhatAnAnswerSaysOfASession(t *testing.T) {
	now := time.Now()
	soon, past := now.Add(time.Hour), now.Add(-time.Hour)
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
	good := sessionBody(soon, "")
	for what, c := range map[string]struct {
		body string
		role auth.Role
		err  error
	}{
		"a user":                          {good, auth.RoleUser, nil},
		"a user without roles":            {sessionBody(soon, `,"role":null,"banned":null,"banExpires":null`), auth.RoleUser, nil},
		"an admin":                        {sessionBody(soon, `,"role":"admin"`), auth.RoleAdmin, nil},
		"another role with admin in it":   {sessionBody(soon, `,"role":"nonadmin,admins"`), auth.RoleUser, nil},
		"no session":                      {" null\n", "", auth.ErrInvalid},
		"an expired session":              {sessionBody(past, ""), "", auth.ErrExpired},
		"a banned user":                   {sessionBody(soon, `,"banned":true`), "", auth.ErrBanned},
		"a user banned for a while":       {sessionBody(soon, `,"banned":true,"banExpires":"`+at(soon)+`"`), "", auth.ErrBanned},
		"a user whose ban is over":        {sessionBody(soon, `,"banned":true,"banExpires":"`+at(past)+`"`), auth.RoleUser, nil},
		"a user who is no element":        {strings.ReplaceAll(good, `"anna"`, `"../anna"`), "", auth.ErrUserID},
		"another token":                   {strings.Replace(good, raw, strings.ToLower(raw), 1), "", errMalformed},
		"no token":                        {strings.Replace(good, raw, "", 1), "", errMalformed},
		"the session of somebody else":    {strings.Replace(good, `"userId":"anna"`, `"userId":"ben"`, 1), "", errMalformed},
		"the session of nobody":           {strings.ReplaceAll(good, `"anna"`, `""`), "", errMalformed},
		"a session without an end":        {strings.Replace(good, `"expiresAt"`, `"updatedAt"`, 1), "", errMalformed},
		"a session that ends in year one": {sessionBody(time.Time{}, ""), "", errMalformed},
		"an end that is a number":         {strings.Replace(good, `"expiresAt":"`, `"expiresAt":1,"x":"`, 1), "", errMalformed},
		"a ban that is a word":            {sessionBody(soon, `,"banned":"no"`), "", errMalformed},
		"no user":                         {`{"session":{"token":"` + raw + `"}}`, "", errMalformed},
		"nothing":                         {"", "", errMalformed},
		"an empty object":                 {"{}", "", errMalformed},
		"a list":                          {"[]", "", errMalformed},
		"false":                           {"false", "", errMalformed},
		"cut short":                       {good[:len(good)-1], "", errMalformed},
		"followed by more":                {good + "null", "", errMalformed},
		"deep":                            {strings.Repeat("[", 100_000), "", errMalformed},
	} {
		got, err := parseSession([]byte(c.body), rawToken(t), now)
		if !errors.Is(err, c.err) || got.Role != c.role || err != nil && (got != auth.Session{}) {
			t.Errorf("%s: got %+v, %v, want role %q, %v", what, got, err, c.role, c.err)
		}
	}
}

func TestAnAnswerThatIsNoneSaysWhereAndWhyAndNothingOfTheSession(t *testing.T) {
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the token went to another address") })
	for what, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"a page": {answerWith(http.StatusOK, "text/html", "<html>"), "not JSON: is that the address of Better Auth?"},
		"no type": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = nil
			_, _ = io.WriteString(w, "null")
		}, "not JSON"},
		"nothing":              {answerWith(http.StatusOK, "application/json", ""), "not what Better Auth answers"},
		"not found":            {answerWith(http.StatusNotFound, "text/plain", "hunter2"), "404 Not Found"},
		"an error":             {answerWith(http.StatusInternalServerError, "application/json", "null"), "500 Internal Server Error"},
		"not allowed":          {answerWith(http.StatusUnauthorized, "application/json", "null"), "401 Unauthorized"},
		"no content":           {answerWith(http.StatusNoContent, "application/json", ""), "204 No Content"},
		"a redirect":           {http.RedirectHandler(elsewhere.String()+"/get-session", http.StatusTemporaryRedirect).ServeHTTP, "307 Temporary Redirect, which is not followed"},
		"a redirect with null": {answerWith(http.StatusFound, "application/json", "null"), "302 Found"},
		"a huge answer":        {answerWith(http.StatusOK, "application/json", strings.Repeat(" ", maxAnswer)+"null"), "longer than 1048576 bytes"},
		"a huge header":        {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, "header"},
		"a connection cut":     {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
		"an answer cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "9")
			_, _ = io.WriteString(w, "null")
			panic(http.ErrAbortHandler)
		}, "EOF"},
		"a token that is quoted": {answerWith(http.StatusOK, "application/json", `{"session": `+raw), "not what Better Auth answers"},
	} {
		a := serve(t, c.handler)
		_, err := a.Authenticate(t.Context(), rawToken(t))
		if !errors.Is(err, ErrNoAnswer) {
			t.Errorf("%s: got %v, want %v", what, err, ErrNoAnswer)
			continue
		}
		for _, word := range []string{"could not be checked", a.String() + "/get-session: ", c.want} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: got %v, want %q in it", what, err, word)
			}
		}
		for _, known := range []error{auth.ErrInvalid, auth.ErrExpired, auth.ErrRevoked, auth.ErrBanned} {
			if errors.Is(err, known) {
				t.Errorf("%s: got %v, which says that the session has ended", what, err)
			}
		}
		if strings.Contains(err.Error(), raw) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error repeats what it must not: %v", what, err)
		}
	}
}

func TestAnApplicationThatIsAwayIsNamed(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	a, err := NewApplication(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	if _, err := a.Authenticate(t.Context(), rawToken(t)); !errors.Is(err, ErrNoAnswer) ||
		!strings.Contains(err.Error(), a.String()) || !strings.Contains(err.Error(), "connection refused") || strings.Count(err.Error(), "http://") != 1 {
		t.Errorf("got %v", err)
	}
}

func TestATokenOfAnotherKindIsSentToNobody(t *testing.T) {
	a := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("it was sent") })
	for _, token := range []auth.Token{{}, auth.NewToken()} {
		if _, err := a.Authenticate(t.Context(), token); !errors.Is(err, auth.ErrInvalid) {
			t.Errorf("got %v, want %v", err, auth.ErrInvalid)
		}
		if err := a.SignOut(t.Context(), token); !errors.Is(err, auth.ErrInvalid) {
			t.Errorf("sign out: got %v, want %v", err, auth.ErrInvalid)
		}
	}
}

func TestAClockThatIsWrongIsTold(t *testing.T) {
	for ahead, want := range map[time.Duration]string{
		0:                "",
		4 * time.Minute:  "",
		-4 * time.Minute: "",
		time.Hour:        "clock is 1h0m",
		-time.Hour:       "clock is 1h0m",
	} {
		// The application's clock, and with it the end of the session, is behind by what ours is ahead.
		theirs := time.Now().Add(-ahead)
		a := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", theirs.UTC().Format(http.TimeFormat))
			answerWith(http.StatusOK, "application/json", sessionBody(theirs.Add(30*time.Minute), ""))(w, r)
		})
		_, err := a.Authenticate(t.Context(), rawToken(t))
		if want == "" {
			if err != nil {
				t.Errorf("%v ahead: got %v", ahead, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "behind") != (ahead < 0) || errors.Is(err, auth.ErrExpired) {
			t.Errorf("%v ahead: got %v, want %q", ahead, err, want)
		}
	}
}

// transport is an application without a network, for tests in which time is not real.
type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

func without(t *testing.T, network transport) *Application {
	t.Helper()
	a, err := NewApplication("https://app.example.org")
	if err != nil {
		t.Fatal(err)
	}
	a.client.Transport = network
	return a
}

// A silent body never ends before its reader gives up.
type silent struct{ ctx context.Context }

func (s silent) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

func TestAnApplicationThatIsSlowIsWaitedForTenSeconds(t *testing.T) {
	for what, network := range map[string]transport{
		"no answer": func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		},
		"an answer that does not end": func(r *http.Request) (*http.Response, error) {
			header := http.Header{"Content-Type": {"application/json"}}
			return &http.Response{StatusCode: http.StatusOK, Header: header, Body: io.NopCloser(silent{r.Context()})}, nil
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := without(t, network)
			start := time.Now()
			_, err := a.Authenticate(t.Context(), rawToken(t))
			if took := time.Since(start); took != 10*time.Second {
				t.Errorf("%s: took %v", what, took)
			}
			if !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "not within 10s") {
				t.Errorf("%s: got %v", what, err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			why := errors.New("the mount ends")
			cancel(why)
			if _, err := a.Authenticate(ctx, rawToken(t)); !errors.Is(err, why) {
				t.Errorf("%s: got %v, want %v", what, err, why)
			}
		})
	}
}

func TestSigningOutTellsTheApplication(t *testing.T) {
	var asked, body string
	a := serve(t, func(w http.ResponseWriter, r *http.Request) {
		sent, _ := io.ReadAll(r.Body)
		asked, body = r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization")+" "+r.Header.Get("Content-Type"), string(sent)
		answerWith(http.StatusOK, "application/json", `{"success":true}`)(w, r)
	})
	if err := a.SignOut(t.Context(), rawToken(t)); err != nil {
		t.Fatal(err)
	}
	if want := "POST /api/auth/sign-out Bearer " + raw + " application/json"; asked != want || body != "{}" {
		t.Errorf("got %s %s, want %s", asked, body, want)
	}
	a = serve(t, answerWith(http.StatusForbidden, "application/json", "{}"))
	if err := a.SignOut(t.Context(), rawToken(t)); !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "/sign-out: ") {
		t.Errorf("got %v", err)
	}
}

func FuzzParseSession(f *testing.F) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Add([]byte("null"))
	f.Add([]byte(sessionBody(now.Add(time.Hour), `,"role":"admin,user","banned":false,"banExpires":null`)))
	f.Add([]byte(sessionBody(now.Add(-time.Hour), "")))
	f.Add([]byte(sessionBody(now.Add(time.Hour), `,"banned":true,"banExpires":"2026-01-02T03:04:06Z"`)))
	f.Add([]byte(`{"session":null,"user":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		token := rawToken(t)
		session, err := parseSession(body, token, now)
		if err != nil {
			if session != (auth.Session{}) {
				t.Errorf("got %+v with %v", session, err)
			}
			known := false
			for _, sentinel := range []error{auth.ErrInvalid, auth.ErrExpired, auth.ErrBanned, auth.ErrUserID, errMalformed} {
				known = known || errors.Is(err, sentinel)
			}
			if !known || strings.Contains(err.Error(), raw) {
				t.Errorf("got %v", err)
			}
			return
		}
		if session.User.Check() != nil || session.Token != token || session.Expires.IsZero() || session.Check(now) != nil {
			t.Errorf("got %+v", session)
		}
		if session.Role != auth.RoleUser && session.Role != auth.RoleAdmin {
			t.Errorf("got the role %q", session.Role)
		}
	})
}
