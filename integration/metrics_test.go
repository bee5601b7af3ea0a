package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sys/unix"
)

// A mountFigures is what scripts may rely on of the figures in mediafs status --json.
type mountFigures struct {
	Mountpoint string `json:"mountpoint"`
	Metrics    string `json:"metrics"` // where Prometheus asks
	Errors     uint64 `json:"errors"`
	Operations map[string]struct {
		Count   uint64  `json:"count"`
		Seconds float64 `json:"seconds"`
	} `json:"operations"`
	ErrorsByErrno  map[string]uint64 `json:"errors_by_errno"`
	AnswersByErrno map[string]uint64 `json:"answers_by_errno"`
	BytesRead      float64           `json:"bytes_read"`
	BytesWritten   float64           `json:"bytes_written"`
	BytesCopied    float64           `json:"bytes_copied"`
	Database       *struct {
		RoundTrips  float64 `json:"round_trips"`
		KnownHits   float64 `json:"known_hits"`
		KnownMisses float64 `json:"known_misses"`
	} `json:"database"`
}

func (m *mount) figures(t testing.TB) mountFigures {
	t.Helper()
	var list []mountFigures
	check(t, json.Unmarshal([]byte(m.s.mediafs(t, "status", "--json").ok(t)), &list))
	i := slices.IndexFunc(list, func(f mountFigures) bool { return f.Mountpoint == m.point })
	if i < 0 {
		t.Fatalf("status does not show %s", m.point)
	}
	return list[i]
}

// get asks an address as status and the log name it, for a path in place of that of the metrics.
func get(address, path string) (code int, body string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true}
	host, isHTTP := strings.CutSuffix(address, "/metrics")
	if !isHTTP {
		host = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(address, "unix:"))
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, host+path, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), err
}

// series are what Prometheus reads: a value for each name and its labels, written name{label="value",...}. A histogram is name_count
// and name_sum.
type series map[string]float64

// scrape reads the metrics at an address as Prometheus does.
func scrape(t testing.TB, address string) series {
	t.Helper()
	code, body, err := get(address, "/metrics")
	check(t, err)
	if code != http.StatusOK {
		t.Fatalf("%s answers %d: %s", address, code, body)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	check(t, err)
	all := series{}
	for name, family := range families {
		for _, metric := range family.GetMetric() {
			var labels []string
			for _, label := range metric.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", label.GetName(), label.GetValue()))
			}
			of := ""
			if len(labels) > 0 {
				of = "{" + strings.Join(labels, ",") + "}"
			}
			switch family.GetType() {
			case dto.MetricType_COUNTER:
				all[name+of] = metric.GetCounter().GetValue()
			case dto.MetricType_GAUGE:
				all[name+of] = metric.GetGauge().GetValue()
			case dto.MetricType_HISTOGRAM:
				all[name+"_count"+of] = float64(metric.GetHistogram().GetSampleCount())
				all[name+"_sum"+of] = metric.GetHistogram().GetSampleSum()
			}
		}
	}
	return all
}

func operationsOf(kind string) string {
	return fmt.Sprintf("mediafs_operation_duration_seconds_count{operation=%q}", kind)
}

// grown fails the test unless the values have grown by so much.
func (s series) grown(t testing.TB, before series, want map[string]float64) {
	t.Helper()
	for name, n := range want {
		value, ok := s[name]
		if got := value - before[name]; !ok || got != n {
			t.Errorf("%s: has grown by %v (it is there: %v), want %v", name, got, ok, n)
		}
	}
}

// What Prometheus is told, and status says in figures and in words, is what was done.
func TestMetricsAreWhatWasDone(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice, "--metrics", "127.0.0.1:0")
		address := m.figures(t).Metrics
		if !strings.HasPrefix(address, "http://127.0.0.1:") || strings.Contains(address, ":0/") || !strings.Contains(m.stderr.String(), address) {
			t.Fatalf("status says that metrics are at %q, and the log\n%s", address, m.stderr)
		}
		before := scrape(t, address)
		const size = 300_001
		for _, name := range []string{"a", "b", "c"} {
			check(t, os.Mkdir(m.path(name), 0o755))
			writeFile(t, m.path(name, "file"), strings.Repeat("x", size))
		}
		check(t, os.Rename(m.path("a", "file"), m.path("b", "moved")))
		check(t, os.Remove(m.path("b", "file")))
		check(t, unix.Rmdir(m.path("a")))
		check(t, os.Symlink("b", m.path("link")))
		for i := range 4 {
			if err := stat(m.path("b", fmt.Sprint("missing", i))); !errors.Is(err, unix.ENOENT) {
				t.Error(err)
			}
		}
		open, err := os.Create(m.path("open"))
		check(t, err)
		written := 0.0
		if s.kind == postgres { // folders keep nothing back
			waitUntil(t, "something is pending", func() bool {
				n, err := open.WriteAt([]byte("pending"), 0)
				check(t, err)
				written += float64(n)
				return scrape(t, address)["mediafs_pending_bytes"] > 0
			})
		}
		after := scrape(t, address)
		after.grown(t, before, map[string]float64{
			operationsOf("mkdir"): 3, operationsOf("create"): 4, operationsOf("rename"): 1, operationsOf("unlink"): 1, operationsOf("rmdir"): 1,
			operationsOf("symlink"): 1, operationsOf("fallocate"): 0, "mediafs_open_files": 1, "mediafs_written_bytes_total": 3*size + written,
			`mediafs_operation_errors_total{errno="EIO",fault="true"}`: 0,
		})
		// The kernel asks for a name once before it makes it.
		enoent := `mediafs_operation_errors_total{errno="ENOENT",fault="false"}`
		if after[enoent]-before[enoent] < 4 || after[operationsOf("lookup")]-before[operationsOf("lookup")] < 4 {
			t.Errorf("%v names that are not there are counted, of %v lookups, want 4 or more", after[enoent], after[operationsOf("lookup")])
		}
		// Each status has a look at nothing but its socket, so the figures are those of the metrics.
		check(t, open.Close())
		waitUntil(t, "the file is closed and stored", func() bool {
			now := scrape(t, address)
			return now["mediafs_open_files"] == 0 && now["mediafs_pending_bytes"] == 0 && now["mediafs_operations_under_way"] == 0
		})
		m.agrees(t, scrape(t, address), m.figures(t))
		m.unmount(t)
		if _, _, err := get(address, "/metrics"); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("after the mount has ended: got %v, want ECONNREFUSED", err)
		}

		// What is read is counted to the byte, wherever it is read from: with another mount the kernel has nothing of it.
		socket := filepath.Join(s.dir, "metrics.sock")
		m = s.mount(t, alice, "--metrics", "unix:"+socket)
		if got := m.figures(t).Metrics; got != "unix:"+socket {
			t.Errorf("status says that metrics are at %q", got)
		}
		before = scrape(t, "unix:"+socket)
		if got := readFile(t, m.path("b", "moved")); len(got) != size {
			t.Errorf("read %d bytes", len(got))
		}
		scrape(t, "unix:"+socket).grown(t, before, map[string]float64{"mediafs_read_bytes_total": size, "mediafs_written_bytes_total": 0, operationsOf("open"): 1})
		if code, _, err := get("unix:"+socket, "/status"); code != http.StatusNotFound || err != nil {
			t.Errorf("another path: got %d, %v, want 404", code, err)
		}

		// Killed, it leaves its socket behind, in whose place comes that of the next mount.
		m.kill(t)
		m.clear(t)
		m = s.mount(t, alice, "--metrics", "unix:"+socket)
		scrape(t, "unix:"+socket)
		m.unmount(t)
	})
}

// agrees compares the metrics of a mount that does nothing with its figures, and what status says in words.
func (m *mount) agrees(t testing.TB, metrics series, f mountFigures) {
	t.Helper()
	var all uint64
	for kind, o := range f.Operations {
		all += o.Count
		if got := metrics[operationsOf(kind)]; got != float64(o.Count) || o.Count == 0 || o.Seconds <= 0 {
			t.Errorf("%s: metrics say %v, and status %d in %v s", kind, got, o.Count, o.Seconds)
		}
	}
	for name, got := range map[string]float64{
		"mediafs_read_bytes_total": f.BytesRead, "mediafs_written_bytes_total": f.BytesWritten, "mediafs_copied_bytes_total": f.BytesCopied,
		`mediafs_operation_errors_total{errno="ENOENT",fault="false"}`: float64(f.AnswersByErrno["ENOENT"]),
		`mediafs_operation_errors_total{errno="EIO",fault="true"}`:     float64(f.ErrorsByErrno["EIO"]),
	} {
		if want, ok := metrics[name]; !ok || got != want {
			t.Errorf("%s: status says %v, and metrics %v (there: %v)", name, got, want, ok)
		}
	}
	roundTrips, isThere := metrics["mediafs_database_round_trips_total"]
	if isThere != (m.s.kind == postgres) || isThere != (f.Database != nil) {
		t.Errorf("on %s, round trips are told: %v by metrics, %v by status", m.s.kind, isThere, f.Database)
	} else if isThere && (f.Database.RoundTrips < roundTrips || roundTrips < 10 || // some go on in the background
		f.Database.KnownHits+f.Database.KnownMisses < metrics["mediafs_known_hits_total"]+metrics["mediafs_known_misses_total"] || f.Database.KnownHits == 0) {
		t.Errorf("status says %+v of the database, and metrics %v round trips, %v hits, %v misses", *f.Database, roundTrips,
			metrics["mediafs_known_hits_total"], metrics["mediafs_known_misses_total"])
	}
	words := m.s.mediafs(t, "status").ok(t)
	for _, want := range []string{fmt.Sprintf("%s: %s operations (", m.point, withCommas(all)), "no errors; ", " written", f.Metrics} {
		if !strings.Contains(words, want) {
			t.Errorf("status does not say %q:\n%s", want, words)
		}
	}
}

func withCommas(n uint64) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", withCommas(n/1000), n%1000)
}

// What is copied inside a drive is neither read nor written by this program, and has a count of its own.
func TestMetricsTellWhatIsCopiedInsideADrive(t *testing.T) {
	t.Parallel()
	s := newStore(t, postgres, person{})
	m := s.mount(t, s.addUser(t, "alice"), "--metrics", "127.0.0.1:0")
	const size = 3<<20 + 5
	writeFile(t, m.path("file"), strings.Repeat("x", size))
	address := m.figures(t).Metrics
	before := scrape(t, address)
	src, err := os.Open(m.path("file"))
	check(t, err)
	defer src.Close()
	dst, err := os.Create(m.path("copy"))
	check(t, err)
	n, err := unix.CopyFileRange(int(src.Fd()), nil, int(dst.Fd()), nil, size, 0)
	check(t, errors.Join(err, dst.Close()))
	if n != size {
		t.Errorf("%d bytes are copied, want %d", n, size)
	}
	scrape(t, address).grown(t, before, map[string]float64{
		"mediafs_copied_bytes_total": size, "mediafs_read_bytes_total": 0, "mediafs_written_bytes_total": 0, operationsOf("copy_file_range"): 1,
	})
}

// A session that has ended can be seen, and what it refuses is counted; a new token, and it is over.
func TestMetricsTellThatASessionHasEnded(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice, "--metrics", "127.0.0.1:0")
		address := m.figures(t).Metrics
		state := func(active, suspended, remaining float64) bool {
			now := scrape(t, address)
			return now[`mediafs_sessions{state="active"}`] == active && now[`mediafs_sessions{state="suspended"}`] == suspended &&
				now["mediafs_session_remaining_seconds"] == remaining
		}
		if !state(1, 0, math.Inf(1)) {
			t.Errorf("a session that lasts is not seen as that: %v", scrape(t, address))
		}
		renewed := s.mediafs(t, "user", "token", "--store", s.address, "alice").ok(t)
		waitUntil(t, "the session is seen to have ended", func() bool { return state(0, 1, 0) })
		waitUntil(t, "the drive is suspended", func() bool { return errors.Is(stat(m.path("file")), unix.EKEYREVOKED) })
		if n := scrape(t, address)[`mediafs_operation_errors_total{errno="EKEYREVOKED",fault="true"}`]; n < 1 {
			t.Errorf("%v requests were refused because the session has ended", n)
		}
		if words := s.mediafs(t, "status").ok(t); !strings.Contains(words, "(EKEYREVOKED ") {
			t.Errorf("status does not say what the errors were:\n%s", words)
		}
		if f := m.figures(t); f.Errors != f.ErrorsByErrno["EKEYREVOKED"] || f.Errors == 0 {
			t.Errorf("status counts %d errors, by their numbers %v", f.Errors, f.ErrorsByErrno)
		}
		check(t, os.WriteFile(alice.tokenFile, []byte(renewed), 0o600))
		waitUntil(t, "the session is seen to last", func() bool { return state(1, 0, math.Inf(1)) })
	})
}

// While the database says nothing, what waits for it can be seen.
func TestMetricsAnswerWhileTheDatabaseHangs(t *testing.T) {
	t.Parallel()
	s, wire := newStore(t, postgres, person{}).throughWire(t)
	m := s.mount(t, s.addUser(t, "alice"), "--metrics", "127.0.0.1:0", "--timeout", "10m")
	address := m.figures(t).Metrics
	file, err := os.Create(m.path("file"))
	check(t, errors.Join(err, file.Sync()))
	wire.hang()
	mend := sync.OnceValue(wire.mend)
	t.Cleanup(func() { check(t, mend()) }) // so that the mount can end, whatever else has failed
	_, err = file.WriteString("which the database does not take")
	check(t, err)
	stored := make(chan error, 1)
	go func() { stored <- errors.Join(file.Sync(), file.Close()) }()
	waitUntil(t, "the fsync is seen to wait", func() bool {
		now := scrape(t, address)
		return now["mediafs_operations_under_way"] > 0 && now["mediafs_pending_bytes"] > 0
	})
	check(t, errors.Join(mend(), <-stored))
	waitUntil(t, "nothing waits any more", func() bool {
		now := scrape(t, address)
		return now["mediafs_operations_under_way"] == 0 && now["mediafs_pending_bytes"] == 0 && now[operationsOf("fsync")] == 2
	})
}

// Each mount counts what is its own, and tells nothing of whom or what it serves but the name of the drive that is mounted alone.
func TestMetricsOfTwoUsersDoNotMix(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice, bob := s.addUser(t, "alice"), s.addUser(t, "b.o-b_@+=")
		his, hers := s.mount(t, bob, "--metrics", "127.0.0.1:0"), s.mount(t, alice, "--metrics", "127.0.0.1:0")
		before, herBefore := scrape(t, his.figures(t).Metrics), scrape(t, hers.figures(t).Metrics)
		const name = "a name that is nobody's business"
		for i := range 5 {
			writeFile(t, hers.path(fmt.Sprint(name, i)), "of alice")
		}
		scrape(t, hers.figures(t).Metrics).grown(t, herBefore, map[string]float64{operationsOf("create"): 5, operationsOf("write"): 5, "mediafs_written_bytes_total": 40})
		scrape(t, his.figures(t).Metrics).grown(t, before, map[string]float64{operationsOf("create"): 0, operationsOf("write"): 0, "mediafs_written_bytes_total": 0})
		for _, c := range []struct {
			m          *mount
			own, other user
		}{{his, bob, alice}, {hers, alice, bob}} {
			_, body, err := get(c.m.figures(t).Metrics, "/metrics")
			check(t, err)
			if info := fmt.Sprintf("mediafs_info{drive=%q,store=", c.own.name); strings.Count(body, c.own.name) != 1 || !strings.Contains(body, info) {
				t.Errorf("the metrics of %s name the drive %d times, want once, as %s", c.own.name, strings.Count(body, c.own.name), info)
			}
			for _, secret := range []string{c.other.name, name, c.own.token(t), c.m.point, s.dir, "postgres://"} {
				if strings.Contains(body, secret) {
					t.Errorf("the metrics of %s hold %q", c.own.name, secret)
				}
			}
		}
	})
}

// With many drives there is no series that there are more of with every drive.
func TestMetricsOfManyDrivesNameNone(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		ada := s.addUser(t, "ada", "--role", "admin")
		path, err := program()
		check(t, err)
		var users []user
		for _, name := range []string{"alice", "bob", "carol"} {
			users = append(users, s.addUser(t, name))
			s.mount(t, users[len(users)-1]).unmount(t) // which makes their drive
		}
		m := s.mount(t, ada, "--metrics", "127.0.0.1:0")
		address := m.figures(t).Metrics
		before := scrape(t, address)
		for _, u := range users {
			writeFile(t, m.path(u.name, "file"), "of the admin")
		}
		after := scrape(t, address)
		after.grown(t, before, map[string]float64{operationsOf("create"): 3, "mediafs_written_bytes_total": 36, `mediafs_sessions{state="active"}`: 0})
		namesNone := func(address string) {
			t.Helper()
			_, body, err := get(address, "/metrics")
			check(t, err)
			for _, u := range append(users, ada) {
				if strings.Contains(body, `"`+u.name) {
					t.Errorf("the metrics name %s", u.name)
				}
			}
		}
		namesNone(address)
		same := func(s series) []string {
			return slices.DeleteFunc(slices.Sorted(maps.Keys(s)), func(name string) bool {
				return !strings.HasPrefix(name, "mediafs_") || strings.Contains(name, `fault="false"`)
			})
		}
		if got, want := same(after), same(before); !slices.Equal(got, want) {
			t.Errorf("with three drives open there are other series:\n%q, and before\n%q", got, want)
		}
		m.unmount(t)

		if os.Geteuid() != 0 {
			return
		}
		lines := fmt.Sprintf("65501 %s\n65502 none.token\n", users[0].tokenFile)
		check(t, os.Chown(users[0].tokenFile, 65501, 65501))
		list := filepath.Join(s.dir, "users")
		writeFile(t, list, lines)
		m = s.mountAs(t, path, s.mountpoint(t), "--all-users", "--users-file", list, "--metrics", "127.0.0.1:0")
		address = m.figures(t).Metrics
		now := scrape(t, address)
		if active, suspended := now[`mediafs_sessions{state="active"}`], now[`mediafs_sessions{state="suspended"}`]; active != 1 || suspended != 1 {
			t.Errorf("%v sessions are active and %v suspended, want 1 and 1", active, suspended)
		}
		namesNone(address)
	})
}

// An address that others can reach, or that is taken, is refused before anything is mounted.
func TestBadMetricsAddressesMountNothing(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice, "--metrics", "127.0.0.1:0")
		taken := strings.TrimSuffix(strings.TrimPrefix(m.figures(t).Metrics, "http://"), "/metrics")
		point := s.mountpoint(t)
		try := func(address string, more ...string) result {
			args := append([]string{"mount", "--store", s.address, "--token-file", alice.tokenFile, "--metrics", address}, more...)
			return s.mediafs(t, append(args, point)...)
		}
		for _, address := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:9900"} {
			complains(t, try(address), codeUsage, "--metrics", address, "other machines", "127.0.0.1:PORT")
		}
		complains(t, try("example.org:9900"), codeUsage, "loopback")
		complains(t, try("127.0.0.1"), codeUsage, "port")
		complains(t, try(taken), 1, taken, "address already in use", "another port")
		complains(t, try(taken, "--daemon"), 1, taken, "address already in use", "another port")
		complains(t, try("unix:"+filepath.Join(s.dir, "missing", "socket")), 1, "no such file or directory")
		if isMounted(t, point) {
			t.Error("something is mounted all the same")
		}
		scrape(t, "http://"+taken+"/metrics") // nothing was taken from the mount that has it

		// What fails after the address is taken gives it back.
		socket := filepath.Join(s.dir, "metrics.sock")
		wrong := s.saveToken(t, "wrong", "mfs_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
		r := s.mediafs(t, "mount", "--store", s.address, "--token-file", wrong, "--metrics", "unix:"+socket, point)
		complains(t, r, codeToken)
		if err := stat(socket); !errors.Is(err, unix.ENOENT) {
			t.Errorf("the socket: got %v, want that it is gone", err)
		}
	})
}

// listening are the TCP ports that a process listens on: proc_pid_net(5), state 0A.
func listening(t testing.TB, pid int) (ports []string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	check(t, err)
	sockets := map[string]bool{}
	for _, entry := range entries {
		if link, err := os.Readlink(filepath.Join(dir, entry.Name())); err == nil {
			sockets[link] = true
		}
	}
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile("/proc/net/" + table)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		check(t, err)
		for line := range bytes.Lines(text) {
			fields := strings.Fields(string(line))
			if len(fields) > 9 && fields[3] == "0A" && sockets["socket:["+fields[9]+"]"] {
				ports = append(ports, fields[1])
			}
		}
	}
	return ports
}

func TestNothingListensUnlessItIsAskedFor(t *testing.T) {
	requireRoot(t)
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		if ports := listening(t, m.cmd.Process.Pid); len(ports) > 0 {
			t.Errorf("the mount listens on %q", ports)
		}
		f := m.figures(t) // which are there all the same
		if f.Metrics != "" || f.Operations["getattr"].Count+f.Operations["lookup"].Count+f.Operations["opendir"].Count == 0 {
			t.Errorf("status says %+v", f)
		}
		m.unmount(t)
		m = s.mount(t, alice, "--metrics", "127.0.0.1:0")
		if ports := listening(t, m.cmd.Process.Pid); len(ports) != 1 || !strings.HasPrefix(ports[0], "0100007F:") {
			t.Errorf("with --metrics it listens on %q, want one port of 127.0.0.1", ports)
		}
	})
}
