package integration

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A pretender is a web application that answers about the sessions of Better Auth as it is told to.
type pretender struct {
	*httptest.Server
	asked chan struct{} // a signal for each question, if somebody waits for it

	mu     sync.Mutex // guards answer; held while it is taken and the question signalled
	answer http.HandlerFunc
}

const pretendersToken = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF"

func newPretender(t *testing.T) *pretender {
	t.Helper()
	p := &pretender{asked: make(chan struct{})}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		answer := p.answer
		select {
		case p.asked <- struct{}{}:
		default:
		}
		p.mu.Unlock()
		if r.URL.Path != "/api/auth/get-session" || r.Header.Get("Authorization") != "Bearer "+pretendersToken {
			t.Errorf("asked %s %s", r.Method, r.URL)
		}
		answer(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *pretender) answers(answer http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

// awaits waits until the application was asked again, n times.
func (p *pretender) awaits(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-p.asked:
		case <-time.After(sessionNoticed):
			t.Fatalf("the application was not asked for %v", sessionNoticed)
		}
	}
}

// othersSession is an answer about another token.
const othersSession = `{"session":{"token":"x","userId":"bob","expiresAt":"2099-01-01T00:00:00Z"},"user":{"id":"bob"}}`

// offBy answers well, by a clock that is wrong.
func offBy(wrong time.Duration) http.HandlerFunc {
	return signedInUntil(time.Now().Add(24*time.Hour), func() time.Time { return time.Now().Add(wrong) })
}

// signedInUntil answers that the session is carol's, and of what the application's clock says.
func signedInUntil(expires time.Time, clock func() time.Time) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Date", clock().UTC().Format(http.TimeFormat))
		_, _ = fmt.Fprintf(w, `{"session":{"token":%q,"userId":"carol","expiresAt":%q},"user":{"id":"carol"}}`,
			pretendersToken, expires.UTC().Format(time.RFC3339Nano))
	}
}

func answering(status int, kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Location", "https://elsewhere.example.org/")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// noAnswers are the ways in which an application gives none that says anything of a session, and what the error names.
var noAnswers = map[string]struct {
	answer http.HandlerFunc
	word   string
}{
	"a page":                       {answering(http.StatusOK, "text/html", "<html>signed in"), "not JSON"},
	"a redirect":                   {answering(http.StatusFound, "application/json", "null"), "not followed"},
	"an error":                     {answering(http.StatusInternalServerError, "application/json", "null"), "500 Internal Server Error"},
	"an error of a proxy":          {answering(http.StatusBadGateway, "text/html", "<html>"), "502 Bad Gateway"},
	"an answer cut short":          {answering(http.StatusOK, "application/json", `{"session":`), "not what Better Auth answers"},
	"another's session":            {answering(http.StatusOK, "application/json", othersSession), "another token"},
	"a clock an hour ahead":        {offBy(time.Hour), "1h0m0s behind"},
	"a clock that is an hour late": {offBy(-time.Hour), "1h0m0s ahead"},
	"silence":                      {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "not within"},
	"a line that is cut":           {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
}

func TestAnApplicationWithoutAUsableAnswerMountsNothing(t *testing.T) {
	t.Parallel()
	s := newStore(t, folder, person{})
	p := newPretender(t)
	token := s.saveToken(t, "carol", pretendersToken)
	point := s.mountpoint(t)
	mount := func(options ...string) result {
		t.Helper()
		args := append([]string{"mount", "--store", s.address, "--auth", p.URL, "--token-file", token, "--timeout", "1s"}, options...)
		return s.mediafs(t, append(args, point)...)
	}
	s.changesNothing(t, func() {
		for what, no := range noAnswers {
			p.answers(no.answer)
			r := mount()
			complains(t, r, codeApplication, p.URL)
			if !strings.Contains(r.stderr, no.word) && what != "silence" { // which --timeout ends, or the client
				t.Errorf("%s: the error does not name %q: %v", what, no.word, r)
			}
			if strings.Contains(r.stderr, pretendersToken) || strings.Contains(r.stderr, "<html>") {
				t.Errorf("%s: the error repeats what it should not: %v", what, r)
			}
		}
		// Its word that there is no such session is one.
		p.answers(answering(http.StatusOK, "application/json", "null"))
		complains(t, mount(), codeToken, "not known")
		p.answers(signedInUntil(time.Now().Add(-time.Second), time.Now))
		complains(t, mount(), codeToken, "expired")
		p.Close()
		complains(t, mount(), codeApplication, p.URL, "connection refused")
	})
}

// While a drive is mounted, what is no answer changes nothing, until the session's own time is over. Then nothing is answered any
// more, and all is again when the application says so. (How long the last answer holds without an end of the session is a matter
// of cmd/mediafs/watch_test.go.)
func TestTheLastGoodAnswerHoldsUntilTheSessionsOwnEnd(t *testing.T) {
	t.Parallel()
	s := newStore(t, folder, person{})
	p := newPretender(t)
	p.answers(signedInUntil(time.Now().Add(time.Hour), time.Now))
	m := s.mount(t, user{"carol", s.saveToken(t, "carol", pretendersToken)}, "--auth", p.URL)
	bob := s.mount(t, s.addUser(t, "bob"))
	works := func(what string) {
		t.Helper()
		writeFile(t, m.path("file"), what)
		if got := readFile(t, m.path("file")); got != what {
			t.Errorf("%s: read %q", what, got)
		}
	}
	works("mounted")
	for _, what := range []string{"a page", "an error", "a clock an hour ahead", "silence"} {
		p.answers(noAnswers[what].answer)
		p.awaits(t, 1)
		works(what)
	}
	end := time.Now().Add(5 * time.Second)
	p.answers(signedInUntil(end, time.Now))
	p.awaits(t, 1)
	p.answers(noAnswers["an error"].answer)
	open, err := os.OpenFile(m.path("file"), os.O_RDWR, 0)
	check(t, err)
	defer open.Close()
	refused := func(do func() error) error {
		var err error
		for limit := time.Now().Add(sessionNoticed); time.Now().Before(limit); {
			if err = do(); errors.Is(err, unix.EKEYEXPIRED) {
				break
			}
		}
		return err
	}
	stat := func() error { return unix.Stat(m.path("none"), &unix.Stat_t{}) }
	if err := refused(stat); !errors.Is(err, unix.EKEYEXPIRED) || time.Now().Before(end) {
		t.Errorf("got %v %v before the session's end, want EKEYEXPIRED after it", err, time.Until(end))
	}
	attempts(t, []attempt{
		{"open", func() error { _, err := os.ReadFile(m.path("file")); return err }, unix.EKEYEXPIRED},
		{"list", func() error { _, err := os.ReadDir(m.point); return err }, unix.EKEYEXPIRED},
		{"create", func() error { return os.WriteFile(m.path("new"), nil, 0o600) }, unix.EKEYEXPIRED},
		{"sync", open.Sync, unix.EKEYEXPIRED},
	})
	writeFile(t, bob.path("file"), "the other's goes on")
	p.answers(signedInUntil(time.Now().Add(time.Hour), time.Now))
	var back error
	for limit := time.Now().Add(sessionNoticed); time.Now().Before(limit); {
		if back = stat(); errors.Is(back, unix.ENOENT) {
			break
		}
	}
	if !errors.Is(back, unix.ENOENT) {
		t.Errorf("the session is back, and a name that is not there gives %v", back)
	}
	if got := readFile(t, m.path("file")); got != "silence" {
		t.Errorf("read %q", got)
	}
	shows(t, "the log", m.stderr.String(), []string{pretendersToken})
	if n := strings.Count(m.stderr.String(), "the session has ended"); n != 1 {
		t.Errorf("the end of the session is logged %d times:\n%s", n, m.stderr)
	}
}
