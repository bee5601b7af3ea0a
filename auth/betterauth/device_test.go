package betterauth

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const deviceAnswer = `{"device_code":"secret-code","user_code":"ABCD2345","verification_uri":"https://app.example.org/device",
	"verification_uri_complete":"https://app.example.org/device?user_code=ABCD2345","expires_in":60,"interval":5}`

// oauthError is an answer with an error of OAuth.
func oauthError(word string) string { return `{"error":"` + word + `","error_description":"…"}` }

// A step is what an application answers at one question for the token.
type step struct {
	status int
	body   string
	err    error
}

// signIn is an application whose user has been given a code, and when it was asked since.
func signIn(t *testing.T, device string, steps ...step) (*Application, *[]time.Duration) {
	t.Helper()
	var asked []time.Duration
	var start time.Time
	answer := func(status int, body string) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
	return without(t, func(r *http.Request) (*http.Response, error) {
		var got map[string]string
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil || got["client_id"] != "mediafs" || r.Header.Get("Authorization") != "" {
			t.Errorf("%s: got %v, %v", r.URL, got, err)
		}
		if r.URL.Path == "/api/auth/device/code" {
			start = time.Now()
			return answer(http.StatusOK, device)
		}
		if got["device_code"] != "secret-code" || got["grant_type"] != "urn:ietf:params:oauth:grant-type:device_code" {
			t.Errorf("%s: got %v", r.URL, got)
		}
		now := steps[min(len(asked), len(steps)-1)] // the last one again and again
		asked = append(asked, time.Since(start))
		if now.err != nil {
			return nil, now.err
		}
		return answer(now.status, now.body)
	}), &asked
}

func TestASignInObeysTheApplicationAndEndsAsItsUserDecides(t *testing.T) {
	pending := step{status: 400, body: oauthError("authorization_pending")}
	granted := step{status: 200, body: `{"access_token":"` + raw + `","token_type":"Bearer","expires_in":604799,"scope":""}`}
	seconds := func(n ...int) (d []time.Duration) {
		for _, n := range n {
			d = append(d, time.Duration(n)*time.Second)
		}
		return d
	}
	for what, c := range map[string]struct {
		device string
		steps  []step
		asked  []time.Duration // since the code
		err    error
	}{
		"approved at once":          {deviceAnswer, []step{granted}, seconds(5), nil},
		"approved later":            {deviceAnswer, []step{pending, pending, granted}, seconds(5, 10, 15), nil},
		"told to slow down":         {deviceAnswer, []step{pending, {status: 400, body: oauthError("slow_down")}, pending, granted}, seconds(5, 10, 20, 30), nil},
		"without an interval":       {strings.Replace(deviceAnswer, `"interval"`, `"x"`, 1), []step{pending, granted}, seconds(5, 10), nil},
		"with an interval of none":  {strings.Replace(deviceAnswer, `"interval":5`, `"interval":0`, 1), []step{pending, granted}, seconds(1, 2), nil},
		"with another interval":     {strings.Replace(deviceAnswer, `"interval":5`, `"interval":12`, 1), []step{pending, granted}, seconds(12, 24), nil},
		"away for a while":          {deviceAnswer, []step{{err: errors.New("no route")}, {status: 502, body: "{}"}, granted}, seconds(5, 15, 30), nil},
		"denied":                    {deviceAnswer, []step{pending, {status: 400, body: oauthError("access_denied")}}, seconds(5, 10), ErrDenied},
		"expired, says the other":   {deviceAnswer, []step{pending, {status: 400, body: oauthError("expired_token")}}, seconds(5, 10), ErrCodeExpired},
		"expired, and nobody says":  {strings.Replace(deviceAnswer, `"expires_in":60`, `"expires_in":12`, 1), []step{pending}, seconds(5, 10), ErrCodeExpired},
		"an unknown code":           {deviceAnswer, []step{{status: 400, body: oauthError("invalid_grant")}}, seconds(5), ErrNoAnswer},
		"an error that is no word":  {deviceAnswer, []step{{status: 400, body: oauthError(`\u001b[2J`)}}, seconds(5), ErrNoAnswer},
		"a token that is none":      {deviceAnswer, []step{{status: 200, body: `{"access_token":"hunter2"}`}}, seconds(5), ErrNoAnswer},
		"an answer that is none":    {deviceAnswer, []step{{status: 200, body: `null`}}, seconds(5), ErrNoAnswer},
		"a page that is not there":  {deviceAnswer, []step{{status: 404, body: `{}`}}, seconds(5), ErrNoAnswer},
		"away until the code's end": {deviceAnswer, []step{{err: errors.New("no route")}}, seconds(5, 15, 30, 50), ErrCodeExpired},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, asked := signIn(t, c.device, c.steps...)
			s, err := a.StartSignIn(t.Context())
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			token, err := s.Wait(t.Context())
			if !errors.Is(err, c.err) || (err == nil) != (token.Reveal() == raw) {
				t.Errorf("%s: got %q, %v, want %v", what, token.Reveal(), err, c.err)
			}
			if err != nil && (strings.ContainsAny(err.Error(), "\x1b") || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "secret-code")) {
				t.Errorf("%s: got %q", what, err)
			}
			if len(*asked) != len(c.asked) {
				t.Fatalf("%s: asked after %v, want %v", what, *asked, c.asked)
			}
			for i := range c.asked {
				if (*asked)[i] != c.asked[i] {
					t.Errorf("%s: asked after %v, want %v", what, *asked, c.asked)
				}
			}
		})
	}
}

func TestASignInCanBeGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, asked := signIn(t, deviceAnswer, step{status: 400, body: oauthError("authorization_pending")})
		s, err := a.StartSignIn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		why := errors.New("interrupted")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(7*time.Second, func() { cancel(why) })
		start := time.Now()
		if token, err := s.Wait(ctx); !errors.Is(err, why) || !token.IsZero() || time.Since(start) != 7*time.Second || len(*asked) != 1 {
			t.Errorf("got %v after %v and %d questions", err, time.Since(start), len(*asked))
		}
	})
}

func TestACodeThatCantBeUsedIsRefused(t *testing.T) {
	if s, err := parseSignIn([]byte(deviceAnswer)); err != nil || s.UserCode != "ABCD2345" || s.Lifetime != time.Minute || s.Complete == "" {
		t.Fatalf("got %+v, %v", s, err)
	}
	if s, err := parseSignIn([]byte(strings.Replace(deviceAnswer, "verification_uri_complete", "x", 1))); err != nil || s.Complete != "" {
		t.Errorf("without a complete address: got %+v, %v", s, err)
	}
	for what, body := range map[string]string{
		"nothing":                      "",
		"null":                         "null",
		"a page":                       "<html>",
		"no device code":               strings.Replace(deviceAnswer, "secret-code", "", 1),
		"no user code":                 strings.Replace(deviceAnswer, `"user_code":"ABCD2345"`, `"user_code":""`, 1),
		"a user code of a terminal":    strings.Replace(deviceAnswer, `"user_code":"ABCD2345"`, `"user_code":"\u001b[2J"`, 1),
		"a user code of right-to-left": strings.Replace(deviceAnswer, `"user_code":"ABCD2345"`, `"user_code":"\u202eABC"`, 1),
		"a huge user code":             strings.Replace(deviceAnswer, `"user_code":"ABCD2345"`, `"user_code":"`+strings.Repeat("A", 192)+`"`, 1),
		"no address":                   strings.Replace(deviceAnswer, `"verification_uri"`, `"x"`, 1),
		"an address of a script":       strings.Replace(deviceAnswer, "https://app.example.org/device?", "javascript://app/?", 1),
		"an address with a space":      strings.Replace(deviceAnswer, "/device\"", "/device \"", 1),
		"a path":                       strings.Replace(deviceAnswer, `"https://app.example.org/device"`, `"/device"`, 1),
		"no lifetime":                  strings.Replace(deviceAnswer, `"expires_in"`, `"x"`, 1),
		"a negative lifetime":          strings.Replace(deviceAnswer, "60", "-60", 1),
		"an endless lifetime":          strings.Replace(deviceAnswer, "60", "1e300", 1),
		"a negative interval":          strings.Replace(deviceAnswer, `"interval":5`, `"interval":-5`, 1),
		"an endless interval":          strings.Replace(deviceAnswer, `"interval":5`, `"interval":1e300`, 1),
		"an interval that is a word":   strings.Replace(deviceAnswer, `"interval":5`, `"interval":"5"`, 1),
	} {
		if s, err := parseSignIn([]byte(body)); !errors.Is(err, errMalformed) || s != nil {
			t.Errorf("%s: got %+v, %v, want %v", what, s, err, errMalformed)
		}
	}
}

func TestAnApplicationThatGivesNoCodeSaysWhy(t *testing.T) {
	for what, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"without the plugin": {http.NotFound, "404 Not Found: is that the address of Better Auth, and has it the plugin deviceAuthorization?"},
		"an unknown client":  {answerWith(400, "application/json", oauthError("invalid_client")), "invalid_client"},
		"no word":            {answerWith(400, "application/json", `{"error":7}`), "400 Bad Request"},
		"an error":           {answerWith(500, "text/html", "<html>"), "500 Internal Server Error"},
		"a page":             {answerWith(200, "text/html", "<html>"), "not JSON"},
	} {
		a := serve(t, c.handler)
		if s, err := a.StartSignIn(t.Context()); !errors.Is(err, ErrNoAnswer) || s != nil ||
			!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), a.String()+"/device/code: ") {
			t.Errorf("%s: got %v, want %q", what, err, c.want)
		}
	}
}

func FuzzParseSignIn(f *testing.F) {
	f.Add([]byte(deviceAnswer))
	f.Add([]byte(strings.Replace(deviceAnswer, "60", "1e300", 1)))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := parseSignIn(body)
		if err != nil {
			if !errors.Is(err, errMalformed) || s != nil {
				t.Errorf("got %+v, %v", s, err)
			}
			return
		}
		if s.Lifetime < 0 || s.Lifetime > maxWait || s.interval < minInterval || s.interval > maxWait || s.deviceCode == "" {
			t.Errorf("got %+v", s)
		}
		for _, shown := range []string{s.UserCode, s.Address, s.Complete} {
			if shown != "" && !visible(shown) {
				t.Errorf("%q would be shown", shown)
			}
		}
	})
}
