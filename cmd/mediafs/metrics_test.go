package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"mediafs/auth"
)

func TestMetricsAddressesAreOfThisMachineAlone(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]metricsAddress{
		"127.0.0.1:9900":           {"tcp", "127.0.0.1:9900"},
		"127.9.8.7:0":              {"tcp", "127.9.8.7:0"},
		"localhost:9900":           {"tcp", "127.0.0.1:9900"},
		"[::1]:9900":               {"tcp", "[::1]:9900"},
		"[::ffff:127.0.0.1]:65535": {"tcp", "127.0.0.1:65535"},
		"unix:/run/x.sock":         {"unix", "/run/x.sock"},
		"unix:x.sock":              {"unix", filepath.Join(here, "x.sock")},
	} {
		if got, err := parseMetricsAddress(text); got != want || err != nil {
			t.Errorf("%s: got %v, %v, want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                          "the port is missing",
		"9900":                      "the port is missing",
		"127.0.0.1":                 "the port is missing",
		"::1":                       "no address",
		":9900":                     "without a host it could be read from other machines",
		"0.0.0.0:9900":              "could be read from other machines, by anybody",
		"[::]:9900":                 "could be read from other machines, by anybody",
		"192.168.1.2:9900":          "could be read from other machines, by anybody",
		"[::ffff:192.168.1.2]:9900": "could be read from other machines, by anybody",
		"[fe80::1%lo]:9900":         "could be read from other machines, by anybody",
		"example.org:9900":          "no loopback address",
		"localhost.example.org:1":   "no loopback address",
		"127.1:9900":                "no loopback address",
		"127.0.0.1:":                "from 0 to 65535",
		"127.0.0.1:-1":              "from 0 to 65535",
		"127.0.0.1:65536":           "from 0 to 65535",
		"127.0.0.1:http":            "from 0 to 65535",
		"http://127.0.0.1:9900":     "the port is missing, or it is no address",
		"unix:":                     "the path is missing",
		"unix:/" + strings.Repeat("x", maxSocket): "too long for a socket",
	} {
		got, err := parseMetricsAddress(text)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "use 127.0.0.1:PORT") {
			t.Errorf("%q: got %v, %v, want an error that says %q and the way out", text, got, err, want)
		}
	}
}

func TestABadMetricsAddressIsAWrongCommandLine(t *testing.T) {
	isolate(t)
	store := newStore(t)
	args := []string{"mount", "--store", store, "--token-file", newUser(t, store, "anna")}
	wantError(t, mediafs(t, append(args, "--metrics", "0.0.0.0:9900", t.TempDir())...), exitUsage, `--metrics: "0.0.0.0:9900"`, "other machines")
	wantError(t, mediafs(t, append(args, "--metrics", "", t.TempDir())...), exitUsage, "--metrics", "the port is missing")
	t.Setenv(metricsVariable, "nowhere:1")
	wantError(t, mediafs(t, append(args, t.TempDir())...), exitUsage, `MEDIAFS_METRICS: "nowhere:1"`, "loopback")
}

func listen(t *testing.T, network, address string) *metricsServer {
	t.Helper()
	s, err := listenMetrics(metricsAddress{network, address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// An address that is taken is noticed before anything is mounted.
func TestAMetricsAddressThatIsTakenIsAnErrorBeforeTheMount(t *testing.T) {
	isolate(t)
	store := newStore(t)
	token := newUser(t, store, "anna")
	other := listen(t, "tcp", "127.0.0.1:0").listener.Addr().String()
	socket := filepath.Join(t.TempDir(), "socket")
	listen(t, "unix", socket)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	mountpoint := t.TempDir()
	for address, words := range map[string][]string{
		other:            {"metrics at " + other + ": address already in use: choose another port"},
		"unix:" + socket: {"metrics at unix:" + socket + ": address already in use: choose another path"},
		"unix:" + file:   {"metrics at unix:" + file, "no socket"},
	} {
		wantError(t, mediafs(t, "mount", "--store", store, "--token-file", token, "--metrics", address, mountpoint), exitFailed, words...)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestAMetricsSocketIsItsOwnersAndTakesThePlaceOfADeadOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	s := listen(t, "unix", path)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", info.Mode(), err)
	}
	if got, want := s.address(), "unix:"+path; got != want {
		t.Errorf("got address %s, want %s", got, want)
	}
	s.close()
	if _, err := os.Lstat(path); !errors.Is(err, unix.ENOENT) {
		t.Errorf("after the end: got %v, want no socket", err)
	}
}

// serveMetrics serves metrics of a counter until the test ends, and returns where.
func serveMetrics(t *testing.T) (s *metricsServer, url string) {
	t.Helper()
	s = listen(t, "tcp", "127.0.0.1:0")
	s.serve(prometheus.NewCounter(prometheus.CounterOpts{Name: "sample_total"}), slog.New(slog.DiscardHandler))
	return s, s.address()
}

func TestMetricsAreAtOnePathAndOnlyRead(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s, url := serveMetrics(t)
	defer s.close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, c := range []struct {
		method, url string
		want        int
	}{
		{http.MethodGet, url, http.StatusOK},
		{http.MethodHead, url, http.StatusOK},
		{http.MethodPost, url, http.StatusMethodNotAllowed},
		{http.MethodGet, url + "/", http.StatusNotFound},
		{http.MethodGet, strings.TrimSuffix(url, metricsPath) + "/", http.StatusNotFound},
		{http.MethodGet, strings.TrimSuffix(url, metricsPath) + "/status", http.StatusNotFound},
		{http.MethodPost, strings.TrimSuffix(url, metricsPath) + "/unmount", http.StatusNotFound},
		{http.MethodGet, strings.TrimSuffix(url, metricsPath) + "/debug/pprof/", http.StatusNotFound},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, c.url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Errorf("%s %s: %v", c.method, c.url, err)
			continue
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != c.want || err != nil {
			t.Errorf("%s %s: got %s, %v, want %d", c.method, c.url, response.Status, err, c.want)
		}
		has := strings.Contains(string(body), "\nsample_total 0\n") && strings.Contains(string(body), "\ngo_goroutines ")
		if has != (c.method == http.MethodGet && c.want == http.StatusOK) {
			t.Errorf("%s %s: got %q", c.method, c.url, body)
		}
	}
}

// Who connects and says nothing, or takes no answer, keeps nobody from ending the mount, and not too many can.
func TestMetricsEndWhoeverIsConnected(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s, _ := serveMetrics(t)
	address := s.listener.Addr().String()
	var dialer net.Dialer
	connect := func() net.Conn {
		t.Helper()
		c, err := dialer.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	ask := func(c net.Conn) error { // whether it is answered
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		if _, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		response, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil {
			_, err = io.Copy(io.Discard, response.Body)
			err = errors.Join(err, response.Body.Close())
		}
		return err
	}
	var taken []net.Conn
	for range scrapers {
		c := connect()
		if err := ask(c); err != nil { // it stays open
			t.Fatal(err)
		}
		taken = append(taken, c)
	}
	if err := ask(connect()); err == nil {
		t.Errorf("more than %d connections are answered", scrapers)
	}
	taken[0].Close()
	limit := time.Now().Add(time.Minute)
	for err := ask(connect()); err != nil; err = ask(connect()) { // the server has not noticed yet
		if time.Now().After(limit) {
			t.Fatal("nobody takes the place of a connection that was closed:", err)
		}
	}
	// One that asks again and takes no answer is under way.
	if _, err := io.WriteString(taken[1], strings.Repeat("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 1000)); err != nil {
		t.Fatal(err)
	}
	s.close()
	if c, err := dialer.DialContext(context.Background(), "tcp", address); err == nil {
		c.Close()
		t.Error("it still listens after its end")
	}
	if err := ask(taken[2]); err == nil {
		t.Error("it still answers after its end")
	}
}

func TestSessionsAreCountedWithoutNames(t *testing.T) {
	in := func(d time.Duration) *seat {
		return newSeat(nil, auth.Session{User: "anna", Expires: time.Now().Add(d)})
	}
	ended := in(time.Hour)
	ended.end(auth.ErrRevoked)
	never := newSeat(nil, auth.Session{User: "ben"})
	for what, c := range map[string]struct {
		seats             []*seat
		active, suspended float64
		remaining         float64 // at most, and little less
	}{
		"never ends":                {[]*seat{never}, 1, 0, math.Inf(1)},
		"ends in an hour":           {[]*seat{in(time.Hour)}, 1, 0, 3600},
		"should have ended":         {[]*seat{in(-time.Minute)}, 1, 0, 0},
		"has ended":                 {[]*seat{ended}, 0, 1, 0},
		"of several, the first end": {[]*seat{never, ended, in(2 * time.Hour), in(time.Hour)}, 3, 1, 3600},
		"nobody":                    {nil, 0, 0, 0},
	} {
		got := map[string]float64{}
		mountMetrics{&attachment{seats: c.seats}}.collectSessions(func(desc *prometheus.Desc, value float64, labels ...string) {
			got[fmt.Sprint(desc.String(), labels)] = value
		})
		value := func(desc *prometheus.Desc, labels ...string) float64 { return got[fmt.Sprint(desc.String(), labels)] }
		active, suspended, remaining := value(metricSessions, "active"), value(metricSessions, "suspended"), value(metricRemaining)
		if active != c.active || suspended != c.suspended || remaining > c.remaining || remaining < c.remaining-60 {
			t.Errorf("%s: got %v active, %v suspended, %v s left, want %v, %v, %v", what, active, suspended, remaining, c.active, c.suspended, c.remaining)
		}
	}
}
