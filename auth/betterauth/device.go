package betterauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"mediafs/auth"
)

const (
	clientID  = "mediafs"
	grantType = "urn:ietf:params:oauth:grant-type:device_code" // RFC 8628, section 3.4

	defaultInterval = 5 * time.Second // between two questions: RFC 8628, section 3.2
	slowDown        = 5 * time.Second // what "slow_down" adds to it: section 3.5
	minInterval     = time.Second     // whatever the application says
	maxWait         = 24 * time.Hour  // a number of seconds beyond this is none
)

// How a sign-in through the browser ends without a session.
var (
	ErrDenied      = errors.New("the sign-in was denied in the browser")
	ErrCodeExpired = errors.New("the code has expired before it was approved")
)

// A SignIn waits for its user to approve it in a browser: the device flow of OAuth (RFC 8628), by the plugin
// deviceAuthorization.
type SignIn struct {
	UserCode string // what the user enters
	Address  string // where
	Complete string // the address with the code in it; "" if there is none
	Lifetime time.Duration

	application *Application
	deviceCode  string
	interval    time.Duration
}

// StartSignIn asks the application for a code.
func (a *Application) StartSignIn(ctx context.Context) (*SignIn, error) {
	r, err := a.ask(ctx, http.MethodPost, "/device/code", auth.Token{}, map[string]string{"client_id": clientID})
	switch {
	case err != nil:
	case r.status == http.StatusBadRequest:
		err = r.refused()
	case r.status != http.StatusOK:
		err = r.unexpected()
	}
	var e *unusable
	if errors.As(err, &e) && e.status == http.StatusNotFound {
		err = fmt.Errorf("%w: is that the address of Better Auth, and has it the plugin deviceAuthorization?", err)
	}
	if err != nil {
		return nil, err
	}
	s, err := parseSignIn(r.body)
	if err != nil {
		return nil, r.unusable(err)
	}
	s.application = a
	return s, nil
}

// parseSignIn reads the answer to the question for a code: RFC 8628, section 3.2. What is to be shown is safe to show.
func parseSignIn(body []byte) (*SignIn, error) {
	var a struct {
		DeviceCode string   `json:"device_code"`
		UserCode   string   `json:"user_code"`
		Address    string   `json:"verification_uri"`
		Complete   string   `json:"verification_uri_complete"`
		ExpiresIn  float64  `json:"expires_in"`
		Interval   *float64 `json:"interval"`
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, errMalformed
	}
	s := &SignIn{UserCode: a.UserCode, Address: a.Address, Complete: a.Complete, deviceCode: a.DeviceCode, interval: defaultInterval}
	switch {
	case a.DeviceCode == "" || !visible(a.UserCode) || len(a.UserCode) > 191:
		return nil, malformed("it has no code")
	case !isWebAddress(a.Address) || a.Complete != "" && !isWebAddress(a.Complete):
		return nil, malformed("it has no address where the code is entered")
	case !(0 < a.ExpiresIn && a.ExpiresIn <= maxWait.Seconds()):
		return nil, malformed("it does not say how long the code is good")
	}
	s.Lifetime = time.Duration(a.ExpiresIn * float64(time.Second))
	if a.Interval != nil {
		if !(0 <= *a.Interval && *a.Interval <= maxWait.Seconds()) {
			return nil, malformed("the interval is none")
		}
		s.interval = max(minInterval, time.Duration(*a.Interval*float64(time.Second)))
	}
	return s, nil
}

// visible says whether s has characters and all are letters, digits and signs of ASCII: nothing that a terminal obeys.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}

func isWebAddress(s string) bool {
	u, err := url.Parse(s)
	return err == nil && visible(s) && len(s) <= 2048 && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != ""
}

// Wait asks, as often as the application wants to be asked, whether the user has approved, and returns the token of the
// session then. ErrDenied, ErrCodeExpired, an error that wraps ErrNoAnswer, or the context's cause. An application that is
// away for a while is asked again.
func (s *SignIn) Wait(ctx context.Context) (auth.Token, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.Lifetime, ErrCodeExpired)
	defer cancel()
	interval := s.interval
	for {
		select {
		case <-ctx.Done():
			return auth.Token{}, context.Cause(ctx)
		case <-time.After(interval):
		}
		token, err := s.poll(ctx)
		var e *unusable
		switch {
		case err == nil:
			return token, nil
		case ctx.Err() != nil:
			return auth.Token{}, context.Cause(ctx)
		case errors.Is(err, errPending):
		case errors.Is(err, errSlowDown), errors.As(err, &e) && e.passing:
			interval += slowDown
		default:
			return auth.Token{}, err
		}
	}
}

// Answers to a question for the token that ask for another one: RFC 8628, section 3.5.
var (
	errPending  = errors.New("authorization_pending")
	errSlowDown = errors.New("slow_down")
)

// poll asks once for the token.
func (s *SignIn) poll(ctx context.Context) (auth.Token, error) {
	r, err := s.application.ask(ctx, http.MethodPost, "/device/token", auth.Token{},
		map[string]string{"grant_type": grantType, "device_code": s.deviceCode, "client_id": clientID})
	switch {
	case err != nil:
		return auth.Token{}, err
	case r.status == http.StatusBadRequest:
		return auth.Token{}, r.refused()
	case r.status != http.StatusOK:
		return auth.Token{}, r.unexpected()
	}
	token, err := parseAccessToken(r.body)
	if err != nil {
		return auth.Token{}, r.unusable(err)
	}
	return token, nil
}

// parseAccessToken reads the answer that has the token.
func parseAccessToken(body []byte) (auth.Token, error) {
	var a struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return auth.Token{}, errMalformed
	}
	token, err := ParseToken(a.AccessToken)
	if err != nil {
		return auth.Token{}, malformed("it has no token of a session")
	}
	return token, nil
}

// refused is an error that OAuth has a word for: RFC 6749, section 5.2, and RFC 8628, section 3.5.
func (r *reply) refused() error {
	var a struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(r.body, &a); err != nil || !visible(a.Error) || len(a.Error) > 64 {
		return r.unexpected()
	}
	switch a.Error {
	case "authorization_pending":
		return errPending
	case "slow_down":
		return errSlowDown
	case "expired_token":
		return ErrCodeExpired
	case "access_denied":
		return ErrDenied
	}
	return r.unusable(errors.New(a.Error))
}
