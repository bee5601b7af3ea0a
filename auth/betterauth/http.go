package betterauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"mediafs/auth"
)

const (
	// basePath is where an application serves Better Auth unless it is configured otherwise.
	basePath = "/api/auth"

	answerTime = 10 * time.Second // for an application to answer in full
	maxAnswer  = 1 << 20          // bytes of an answer
	maxHeaders = 64 << 10         // bytes of its headers

	// maxSkew is how far this machine's clock may be from the application's: what Kerberos allows (RFC 4120, section 8.2).
	maxSkew = 5 * time.Minute
)

// What can be wrong with an application.
var (
	// ErrAddress is an address that no application can be asked at.
	ErrAddress = errors.New("not the address of an application, like https://app.example.org")
	// ErrNoAnswer is an application that did not answer, or not as Better Auth does. It says nothing about any session.
	ErrNoAnswer = errors.New("no usable answer")
)

// An Application is a web application that signs people in with Better Auth, asked over HTTP. It is the way to sessions that
// are in no table the store can read. The application must have the plugin bearer, without its option requireSignature.
type Application struct {
	base   string // what the paths of Better Auth are appended to
	client *http.Client
}

var _ auth.Authenticator = (*Application)(nil)

// NewApplication returns the application at an address: that of its Better Auth (https://app.example.org/api/auth), whose
// usual path may be left out. Nothing is sent yet. The address must begin with https://, unless the host is this machine:
// whoever reads a token on its way has the drive. Otherwise ErrAddress.
func NewApplication(address string) (*Application, error) {
	bad := func(why string) (*Application, error) { return nil, fmt.Errorf("%w: %s", ErrAddress, why) }
	u, err := url.Parse(strings.TrimSpace(address))
	switch {
	case err != nil:
		return bad("it can't be read") // what url.Parse says could show a password
	case u.Scheme != "https" && u.Scheme != "http" || u.Opaque != "":
		return bad("it must begin with https://")
	case u.Hostname() == "":
		return bad("it names no host")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return bad("a token must not cross the network in the clear: it must begin with https://")
	case u.User != nil:
		return bad("a user or a password has no place in it")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return bad("it has a '?' or '#' in it")
	}
	path := strings.TrimRight(u.EscapedPath(), "/")
	if path == "" {
		path = basePath
	}
	return &Application{
		base: u.Scheme + "://" + u.Host + path,
		client: &http.Client{
			// What is asked for at one address is not sent to another.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				Proxy:                  http.ProxyFromEnvironment,
				ForceAttemptHTTP2:      true,
				DisableKeepAlives:      true, // nothing is left running between two questions
				MaxResponseHeaderBytes: maxHeaders,
			},
		},
	}, nil
}

// isLoopback says whether a host is this machine: RFC 6761, section 6.3, for names.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback() || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// String is the address of the application's Better Auth.
func (a *Application) String() string { return a.base }

// Authenticate asks the application whose session it is. The question refreshes nothing. Errors other than those of package
// auth wrap ErrNoAnswer, or say that the two clocks differ; none has the token in it. A token that can't be of Better Auth
// is sent to nobody.
func (a *Application) Authenticate(ctx context.Context, token auth.Token) (auth.Session, error) {
	if !isToken(token.Reveal()) {
		return auth.Session{}, auth.ErrInvalid
	}
	r, err := a.ask(ctx, http.MethodGet, "/get-session?disableRefresh=true&disableCookieCache=true", token, nil)
	if err == nil && r.status != http.StatusOK {
		err = r.unexpected()
	}
	if err != nil {
		return auth.Session{}, fmt.Errorf("the session could not be checked: %w", err)
	}
	now := time.Now()
	session, err := parseSession(r.body, token, now)
	if errors.Is(err, errMalformed) {
		return auth.Session{}, fmt.Errorf("the session could not be checked: %w", r.unusable(err))
	}
	// A wrong clock ends a session early or late, so it is told before what follows from it.
	skew := now.Sub(r.date)
	if (err == nil || errors.Is(err, auth.ErrExpired)) && !r.date.IsZero() && skew.Abs() > maxSkew {
		direction := "ahead of"
		if skew < 0 {
			direction = "behind"
		}
		return auth.Session{}, fmt.Errorf("the session could not be checked: this machine's clock is %v %s that of %s: set it",
			skew.Abs().Round(time.Minute), direction, a.base)
	}
	return session, err
}

// SignOut ends a session. One that has ended already is fine.
func (a *Application) SignOut(ctx context.Context, token auth.Token) error {
	if !isToken(token.Reveal()) {
		return auth.ErrInvalid
	}
	r, err := a.ask(ctx, http.MethodPost, "/sign-out", token, struct{}{})
	if err == nil && r.status != http.StatusOK {
		err = r.unexpected()
	}
	return err
}

// A reply is an answer in JSON.
type reply struct {
	url    string // that was asked, without query
	status int
	date   time.Time // of the application's clock; zero: it does not say
	body   []byte
}

// ask sends a question and reads the answer, within answerTime. Its errors wrap ErrNoAnswer.
func (a *Application) ask(ctx context.Context, method, path string, token auth.Token, question any) (*reply, error) {
	location, _, _ := strings.Cut(a.base+path, "?")
	r := &reply{url: location}
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, fmt.Errorf("not within %v", answerTime))
	defer cancel()
	var body io.Reader = http.NoBody
	if question != nil {
		encoded, err := json.Marshal(question)
		if err != nil {
			return nil, r.unusable(err)
		}
		body = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return nil, r.unusable(ErrAddress)
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "mediafs")
	if question != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if !token.IsZero() {
		request.Header.Set("Authorization", "Bearer "+token.Reveal())
	}
	response, err := a.client.Do(request)
	if err != nil {
		return nil, r.away(ctx, err)
	}
	defer response.Body.Close()
	r.status = response.StatusCode
	if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		r.date = date
	}
	if 300 <= r.status && r.status < 400 {
		return nil, r.unusable(fmt.Errorf("%s, which is not followed: give the address that it leads to", r.statusText()))
	}
	if kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		if r.status != http.StatusOK {
			return nil, r.unexpected()
		}
		return nil, r.unusable(errors.New("it is not JSON: is that the address of Better Auth?"))
	}
	r.body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, r.away(ctx, err)
	case len(r.body) > maxAnswer:
		return nil, r.unusable(fmt.Errorf("it is longer than %d bytes", maxAnswer))
	}
	return r, nil
}

// An unusable answer is why there is none. There may be one soon if passing is set.
type unusable struct {
	url     string
	status  int // of HTTP; 0: none came
	why     error
	passing bool
}

func (e *unusable) Error() string   { return fmt.Sprintf("%s: %v: %v", e.url, ErrNoAnswer, e.why) }
func (e *unusable) Unwrap() []error { return []error{ErrNoAnswer, e.why} }

func (r *reply) unusable(why error) error { return &unusable{url: r.url, status: r.status, why: why} }

// away is an answer that did not come, or not to its end.
func (r *reply) away(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	var wrapped *url.Error // repeats the address
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return &unusable{url: r.url, status: r.status, why: err, passing: true}
}

// unexpected is an answer of a status that should not be.
func (r *reply) unexpected() error {
	passing := r.status >= 500 || r.status == http.StatusTooManyRequests || r.status == http.StatusRequestTimeout
	return &unusable{url: r.url, status: r.status, why: errors.New(r.statusText()), passing: passing}
}

// statusText is the status as this program names it: what the other side wrote beside the number is not repeated.
func (r *reply) statusText() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", r.status, http.StatusText(r.status)))
}
