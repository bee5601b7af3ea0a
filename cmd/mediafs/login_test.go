package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mediafs/auth/betterauth"
)

// application is a web application that answers as Better Auth does. It knows one session, of anna.
type application struct {
	*httptest.Server
	token string

	mu     sync.Mutex // guards what follows
	grant  string     // the answer to a question for the token
	status int        // of that answer
	ended  bool       // whether the session was signed out
	asked  []string   // method and path of what was asked
}

func newApplication(t *testing.T) *application {
	t.Helper()
	a := &application{token: betterAuthToken, status: http.StatusOK}
	a.grant = fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer","expires_in":604800,"scope":""}`, a.token)
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.asked = append(a.asked, r.Method+" "+r.URL.Path)
		w.Header().Set("Content-Type", "application/json")
		known := r.Header.Get("Authorization") == "Bearer "+a.token && !a.ended
		switch r.URL.Path {
		case "/api/auth/get-session":
			body := "null"
			if known {
				body = fmt.Sprintf(`{"session":{"token":%q,"userId":"anna","expiresAt":%q},"user":{"id":"anna","role":"user"}}`,
					a.token, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
			}
			_, _ = io.WriteString(w, body)
		case "/api/auth/sign-out":
			a.ended = a.ended || known
			_, _ = io.WriteString(w, `{"success":true}`)
		case "/api/auth/device/code":
			_, _ = fmt.Fprintf(w, `{"device_code":"secret-code","user_code":"ABCD2345","verification_uri":"%[1]s/device","verification_uri_complete":"%[1]s/device?user_code=ABCD2345","expires_in":60,"interval":1}`, a.URL)
		case "/api/auth/device/token":
			w.WriteHeader(a.status)
			_, _ = io.WriteString(w, a.grant)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(a.Close)
	return a
}

// answer sets what is answered to the next questions for a token.
func (a *application) answer(status int, grant string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status, a.grant = status, grant
}

// questions returns what was asked since the last call.
func (a *application) questions() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer func() { a.asked = nil }()
	return strings.Join(a.asked, ", ")
}

// signedIn saves a login to an application.
func signedIn(t *testing.T, address string) (path string) {
	t.Helper()
	path, err := prepareLogin()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, `{"application": %q, "token": %q}`, address, betterAuthToken), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoginSavesASessionForItsUserAloneAndLogoutEndsIt(t *testing.T) {
	isolate(t)
	a := newApplication(t)
	got := mediafs(t, "login", a.URL)
	if got.code != exitOK || got.stderr != "" {
		t.Fatalf("got %+v", got)
	}
	for _, word := range []string{"ABCD2345", a.URL + "/device?user_code=ABCD2345", "signed in as anna until "} {
		if !strings.Contains(got.stdout, word) {
			t.Errorf("got %q, want %q in it", got.stdout, word)
		}
	}
	path := filepath.Join(os.Getenv("XDG_CONFIG_HOME"), "mediafs", "login.json")
	for path, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700 | os.ModeDir} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("got %v, %v, want mode %v", info, err, want)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("got %v, %v in the folder, want one file", entries, err)
	}

	who := mediafs(t, "whoami")
	if who.code != exitOK || who.stderr != "" {
		t.Errorf("got %+v", who)
	}
	for _, line := range []string{"user         anna\n", "role         user\n", "expires      ", "application  " + a.URL + "/api/auth\n"} {
		if !strings.Contains(who.stdout, line) {
			t.Errorf("got %q, want %q in it", who.stdout, line)
		}
	}

	out := mediafs(t, "logout")
	if out.code != exitOK || out.stdout != "signed out of "+a.URL+"/api/auth\n" || !a.ended {
		t.Errorf("got %+v, ended: %v", out, a.ended)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	wantError(t, mediafs(t, "logout"), exitToken, "nobody is signed in", "mediafs login")
	wantError(t, mediafs(t, "whoami"), exitToken, "nobody is signed in", "mediafs login")
	for _, got := range []outcome{got, who, out} {
		if strings.Contains(got.stdout+got.stderr, a.token) || strings.Contains(got.stdout+got.stderr, "secret-code") {
			t.Errorf("got %+v: it shows a secret", got)
		}
	}
}

func TestALoginThatIsNotGrantedSavesNothingAndSaysWhy(t *testing.T) {
	isolate(t)
	a := newApplication(t)
	path := signedIn(t, a.URL)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for body, want := range map[string]struct {
		code exitCode
		word string
	}{
		`{"error":"access_denied"}`: {exitSignIn, "denied in the browser"},
		`{"error":"expired_token"}`: {exitSignIn, "has expired before it was approved: run `mediafs login` again"},
		`{"error":"invalid_grant"}`: {exitApplication, "invalid_grant"},
		`<html>`:                    {exitApplication, "400 Bad Request"},
	} {
		a.answer(http.StatusBadRequest, body)
		got := mediafs(t, "login", a.URL)
		if got.code != want.code || !strings.Contains(got.stderr, want.word) || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("%s: got %+v, want code %d and %q", body, got, want.code, want.word)
		}
	}
	a.answer(http.StatusOK, `{"access_token":"`+strings.ToLower(betterAuthToken)+`"}`)
	if got := mediafs(t, "login", a.URL); got.code != exitApplication || !strings.Contains(got.stderr, "plugin bearer") {
		t.Errorf("a token that the application does not take: got %+v", got)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the login from before became %q, %v", after, err)
	}
}

func TestALoginToAnAddressThatIsNoneIsOneLineAndExitCode12(t *testing.T) {
	isolate(t)
	away := newApplication(t)
	away.Close()
	for address, word := range map[string]string{
		"app.example.org":                  "https://",
		"http://app.example.org":           "in the clear",
		"https://anna:hunter2@example.org": "password",
		away.URL:                           "connection refused: try again, or correct the address",
		newApplication(t).URL + "/nothing": "404 Not Found",
	} {
		got := mediafs(t, "login", address)
		wantError(t, got, exitApplication, word)
		if strings.Contains(got.stderr, "hunter2") {
			t.Errorf("got %q", got.stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(os.Getenv("XDG_CONFIG_HOME"), "mediafs", "login.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was saved: %v", err)
	}
}

func TestAFolderThatNothingCanBeSavedInIsToldBeforeAnybodySignsIn(t *testing.T) {
	isolate(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_CONFIG_HOME", file)
	a := newApplication(t)
	wantError(t, mediafs(t, "login", a.URL), exitFailed, file)
	if got := a.questions(); got != "" {
		t.Errorf("the application was asked: %s", got)
	}
	wantError(t, mediafs(t, "whoami"), exitToken, "nobody is signed in")

	for _, name := range []string{"XDG_CONFIG_HOME", "HOME"} {
		t.Setenv(name, "")
	}
	wantError(t, mediafs(t, "login", a.URL), exitFailed, "set HOME or XDG_CONFIG_HOME")
	wantError(t, mediafs(t, "whoami"), exitToken, "nobody is signed in")
	wantError(t, mediafs(t, "mount", "--store", t.TempDir(), t.TempDir()), exitToken, "token: none is given")
}

func TestLogoutRemovesTheLoginThoughTheApplicationIsAway(t *testing.T) {
	isolate(t)
	a := newApplication(t)
	path := signedIn(t, a.URL)
	a.Close()
	wantError(t, mediafs(t, "whoami"), exitApplication, "could not be checked", a.URL)
	if _, err := os.Stat(path); err != nil {
		t.Errorf("who asks changes nothing: %v", err)
	}
	wantError(t, mediafs(t, "logout"), exitApplication, "is removed, but the session was not ended", a.URL, "connection refused")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}

	if err := os.WriteFile(path, []byte(`{"token":"hunter2"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	got := mediafs(t, "whoami")
	wantError(t, got, exitToken, path, "is damaged", "mediafs login")
	if strings.Contains(got.stderr, "hunter2") {
		t.Errorf("got %q", got.stderr)
	}
	wantError(t, mediafs(t, "logout"), exitFailed, "damaged and is removed")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestWhoamiSaysThatASessionHasEndedAndWarnsOfAFileThatOthersRead(t *testing.T) {
	isolate(t)
	a := newApplication(t)
	path := signedIn(t, a.URL)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := mediafs(t, "whoami"); got.code != exitOK || !strings.Contains(got.stderr, "chmod 600 "+path) {
		t.Errorf("got %+v", got)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	a.ended = true
	wantError(t, mediafs(t, "whoami"), exitToken, a.URL, "the token is not known: sign in again")
}

// What a mount asks is told by its answer: it comes before anything is mounted.
func TestAMountUsesTheSavedLoginWhenItIsGivenNoOtherToken(t *testing.T) {
	isolate(t)
	store, mountpoint := newStore(t), t.TempDir()
	anna := newUser(t, store, "anna")
	a, other := newApplication(t), newApplication(t)
	a.ended = true
	signedIn(t, a.URL)
	mount := func(args ...string) outcome {
		return mediafs(t, append(append([]string{"mount", "--store", store}, args...), mountpoint)...)
	}
	const asked = "GET /api/auth/get-session"

	wantError(t, mount(), exitToken, "the token is not known")
	if got := a.questions(); got != asked {
		t.Errorf("the saved application: got %q, want %q", got, asked)
	}
	wantError(t, mount("--auth", a.URL), exitToken, "the token is not known")
	if got := a.questions(); got != asked {
		t.Errorf("named too: got %q, want %q", got, asked)
	}
	wantError(t, mount("--auth", other.URL), exitToken, "saved sign-in", other.URL, "mediafs login")
	t.Setenv(authVariable, other.URL)
	wantError(t, mount(), exitToken, "saved sign-in", other.URL)
	if got := other.questions() + a.questions(); got != "" {
		t.Errorf("a token went to an application that did not give it: %s", got)
	}
	// The account's token is the store's to check, and no application gets it.
	t.Setenv(authVariable, "")
	wantError(t, mount("--token-file", anna, "--auth", other.URL), exitToken, "account of the store", "leave out --auth")
	if got := other.questions() + a.questions(); got != "" {
		t.Errorf("the token of an account went to an application: %s", got)
	}
	t.Setenv(tokenVariable, betterAuthToken)
	other.ended = true
	wantError(t, mount("--auth", other.URL), exitToken, "the token is not known")
	if got := other.questions(); got != asked {
		t.Errorf("a token of the environment: got %q, want %q", got, asked)
	}
}

func TestAnApplicationThatCantBeAskedIsExitCode12AndMakesNoDrive(t *testing.T) {
	isolate(t)
	store, mountpoint := newStore(t), t.TempDir()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(betterAuthToken), 0o600); err != nil {
		t.Fatal(err)
	}
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }))
	defer page.Close()
	moved := httptest.NewServer(http.RedirectHandler(page.URL, http.StatusFound))
	defer moved.Close()
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
	defer broken.Close()
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	late := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		_, _ = fmt.Fprintf(w, `{"session":{"token":%q,"userId":"anna","expiresAt":%q},"user":{"id":"anna"}}`, betterAuthToken, time.Now().Add(time.Hour).Format(time.RFC3339))
	}))
	defer late.Close()
	for what, c := range map[string]struct{ address, word string }{
		"no address": {"app.example.org", "https://"},
		"a page":     {page.URL, "not JSON"},
		"a redirect": {moved.URL, "302 Found, which is not followed"},
		"an error":   {broken.URL, "500 Internal Server Error"},
		"nothing":    {away.URL, "connection refused"},
		"a clock":    {late.URL, "clock is 1h0m0s ahead of"},
	} {
		got := mediafs(t, "mount", "--store", store, "--token-file", file, "--auth", c.address, mountpoint)
		wantError(t, got, exitApplication, c.word)
		if strings.Contains(got.stderr, betterAuthToken) {
			t.Errorf("%s: got %q", what, got.stderr)
		}
		t.Setenv(authVariable, c.address)
		wantError(t, mediafs(t, "mount", "--store", store, "--token-file", file, mountpoint), exitApplication, c.word)
		t.Setenv(authVariable, "")
	}
	if _, err := os.Stat(filepath.Join(store, "anna")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a drive was made: %v", err)
	}
	got := mediafs(t, "mount", "--store", "postgres://localhost/x", "--token-file", file, "--auth", page.URL, mountpoint)
	wantError(t, got, exitUsage, "--auth", "for stores of folders")
}

func TestALoginIsReplacedWhole(t *testing.T) {
	isolate(t)
	path := signedIn(t, "https://app.example.org")
	a, err := betterauth.NewApplication("https://other.example.org/auth")
	if err != nil {
		t.Fatal(err)
	}
	token, err := betterauth.ParseToken(strings.ToUpper(betterAuthToken))
	if err != nil {
		t.Fatal(err)
	}
	if err := saveLogin(path, login{a, token}); err != nil {
		t.Fatal(err)
	}
	got, warning, err := readLogin()
	if err != nil || warning != "" || got.application.String() != "https://other.example.org/auth" || got.token != token {
		t.Errorf("got %v, %q, %v", got, warning, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("got %v, %v in the folder, want one file", entries, err)
	}
}

func TestASignalEndsALogin(t *testing.T) {
	isolate(t)
	a := newApplication(t)
	a.answer(http.StatusBadRequest, `{"error":"authorization_pending"}`)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "login", a.URL)
	cmd.Env = append(os.Environ(), "MEDIAFS_TEST_PROGRAM=1", "GORACE=atexit_sleep_ms=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && !strings.Contains(lines.Text(), "user_code=") { // it waits from then on
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	_, _ = io.Copy(io.Discard, stdout)
	_ = cmd.Wait() // the code tells
	got := outcome{code: exitCode(cmd.ProcessState.ExitCode()), stderr: stderr.String()}
	if got.code != exitSignIn || !strings.Contains(got.stderr, "interrupted: nobody is signed in") || strings.Count(got.stderr, "\n") != 1 {
		t.Errorf("got %+v", got)
	}
	if _, _, err := readLogin(); !errors.Is(err, errNotSignedIn) {
		t.Errorf("got %v, want %v", err, errNotSignedIn)
	}
}

func FuzzParseLogin(f *testing.F) {
	f.Add([]byte(`{"application": "https://app.example.org/api/auth", "token": "` + betterAuthToken + `"}`))
	f.Add([]byte(`{"application": "http://localhost", "token": "` + betterAuthToken + `"} `))
	f.Add([]byte(`{"application": "https://app.example.org", "token": "x", "more": 1}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := parseLogin(data)
		if err != nil {
			if !errors.Is(err, errDamagedLogin) || l != (login{}) {
				t.Errorf("got %v, %v", l, err)
			}
			return
		}
		path := filepath.Join(t.TempDir(), "login.json")
		if err := saveLogin(path, l); err != nil {
			t.Fatal(err)
		}
		saved, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseLogin(saved)
		if err != nil || again.token != l.token || again.application.String() != l.application.String() {
			t.Errorf("got %v, %v, want %v", again, err, l)
		}
	})
}
