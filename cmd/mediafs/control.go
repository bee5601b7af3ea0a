package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A mount is spoken to over HTTP on a Unix socket in the runtime folder:
//
//	GET  /status   → 200 and a mountStatus
//	POST /unmount  → 204 when the drive is unmounted and everything stored; else 500 and a controlError
const (
	socketSuffix = ".sock"
	maxSocket    = 107 // bytes of a socket's path: sun_path of unix(7) less the NUL

	statusDeadline = 3 * time.Second // for a mount to say how it is
	maxAnswer      = 1 << 20         // bytes of an answer
)

// mountStatus is what a mount says of itself, and what `status --json` prints.
type mountStatus struct {
	Drive      string `json:"drive"` // or "all drives" of a store, or "all users" of this machine
	Mountpoint string `json:"mountpoint"`
	Store      string `json:"store"` // without password
	sessionStatus
	Users        []userStatus `json:"users,omitempty"` // with "all users"
	ReadOnly     bool         `json:"read_only"`
	OpenFiles    int          `json:"open_files"`
	PendingBytes *int64       `json:"pending_bytes"` // written and not yet stored; null: the store keeps nothing back
	Requests     uint64       `json:"requests"`
	Errors       uint64       `json:"errors"`
	figures
	Metrics string `json:"metrics,omitempty"` // where Prometheus is told the same
	resources
	Notes   []string  `json:"notes"`
	Since   time.Time `json:"since"`
	PID     int       `json:"pid,omitempty"`
	Version string    `json:"version"`
	Log     string    `json:"log,omitempty"` // file; "": stderr
	Problem string    `json:"problem,omitempty"`
}

// sessionStatus is how a session is.
type sessionStatus struct {
	User    string     `json:"user"` // "" for a guest
	Role    string     `json:"role"`
	Expires *time.Time `json:"expires"`         // null: never
	Ended   string     `json:"ended,omitempty"` // how it has ended
}

// userStatus is how a user of this machine is signed in.
type userStatus struct {
	Folder string `json:"folder"`
	sessionStatus
}

// controlError is why a mount did not do as asked.
type controlError struct {
	Error string   `json:"error"`
	Code  exitCode `json:"code"`
}

// A controlServer lets others see and end a mount. Close ends it.
type controlServer struct {
	// Unmount gets a request to unmount. Who receives it sends the outcome, once.
	unmount chan chan<- error

	path   string
	server *http.Server
	served sync.WaitGroup
	gone   chan struct{} // closed when the mount is
	why    error         // what ended with it; set before gone is closed
}

// serveControl answers for a mount in the runtime folder.
func serveControl(folder string, status func() mountStatus, logger *slog.Logger) (*controlServer, error) {
	name := fmt.Sprintf("%d-%08x%s", os.Getpid(), rand.Uint32(), socketSuffix)
	s := &controlServer{
		unmount: make(chan chan<- error),
		path:    filepath.Join(folder, name),
		gone:    make(chan struct{}),
	}
	// Nobody answers a socket between bind and listen, and one that nobody answers is taken away by `status`. So it
	// gets the name that is looked for last.
	early := strings.TrimSuffix(s.path, socketSuffix)
	if len(s.path) > maxSocket {
		return nil, &failure{code: exitFailed, what: "runtime folder " + folder, why: errors.New("its path is too long for a socket"),
			way: "set MEDIAFS_RUNTIME_DIR to a shorter one"}
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: early, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(early, 0o600), os.Rename(early, s.path)); err != nil {
		return nil, errors.Join(err, listener.Close(), ignoreMissing(os.Remove(early)))
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, status()) })
	mux.HandleFunc("POST /unmount", func(w http.ResponseWriter, r *http.Request) {
		if err := s.end(r.Context()); err != nil {
			f := explain("", err, exitFailed)
			answer(w, http.StatusInternalServerError, controlError{Error: oneLine(f.Error()), Code: f.code})
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	s.server = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: statusDeadline,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
	s.served.Go(func() {
		if err := s.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("status and umount can't reach this mount any more", "error", err)
		}
	})
	return s, nil
}

// end has the mount unmounted and returns what came of it.
func (s *controlServer) end(ctx context.Context) error {
	outcome := make(chan error, 1)
	select {
	case s.unmount <- outcome:
	case <-s.gone: // on its way out already
		return s.why
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// Who asked may go away; the mount goes on.
	select {
	case err := <-outcome:
		return err
	case <-s.gone:
		return s.why
	}
}

// close tells those who wait that the mount is gone, with why for what could not be stored, and ends the server.
func (s *controlServer) close(ctx context.Context, why error) error {
	s.why = why
	close(s.gone)
	err := ignoreMissing(os.Remove(s.path))
	err = errors.Join(err, s.server.Shutdown(ctx))
	s.served.Wait()
	return err
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // whoever asked is gone
}

// A mountClient speaks to one mount.
type mountClient struct {
	socket string
	http   *http.Client
}

// errDead is a socket that no process answers any more.
var errDead = errors.New("its process is gone")

func newMountClient(socket string) *mountClient {
	return &mountClient{socket: socket, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}}
}

// do sends a request and returns what was answered.
func (c *mountClient) do(ctx context.Context, method, path string) (*http.Response, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://mediafs"+path, http.NoBody)
	if err != nil {
		return nil, nil, err
	}
	response, err := c.http.Do(request)
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil, nil, errDead
	}
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	return response, body, err
}

// status asks how the mount is.
func (c *mountClient) status(ctx context.Context) (mountStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, statusDeadline)
	defer cancel()
	response, body, err := c.do(ctx, http.MethodGet, "/status")
	if err != nil {
		return mountStatus{}, err
	}
	if response.StatusCode != http.StatusOK {
		return mountStatus{}, fmt.Errorf("it answers %s", response.Status)
	}
	var status mountStatus
	err = json.NewDecoder(bytes.NewReader(body)).Decode(&status)
	return status, err
}

// unmount has the mount drained and unmounted.
func (c *mountClient) unmount(ctx context.Context) error {
	response, body, err := c.do(ctx, http.MethodPost, "/unmount")
	if err != nil {
		return err
	}
	if response.StatusCode == http.StatusNoContent {
		return nil
	}
	var problem controlError
	if err := json.Unmarshal(body, &problem); err != nil || problem.Error == "" {
		return fmt.Errorf("it answers %s", response.Status)
	}
	return &failure{code: problem.Code, why: errors.New(problem.Error)}
}

// mountClients returns a client for each mount in the runtime folder. Some may be dead.
func mountClients(folder string) ([]*mountClient, error) {
	sockets, err := filepath.Glob(filepath.Join(escapeGlob(folder), "*"+socketSuffix))
	if err != nil {
		return nil, err
	}
	clients := make([]*mountClient, len(sockets))
	for i, socket := range sockets {
		clients[i] = newMountClient(socket)
	}
	return clients, nil
}

// findMounts asks all mounts of the runtime folder how they are. What dead ones left behind is taken away; one that does not
// answer has only its process and its problem.
func findMounts(ctx context.Context, folder string) (map[*mountClient]mountStatus, error) {
	clients, err := mountClients(folder)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards found and problems
	found := map[*mountClient]mountStatus{}
	var problems error
	var asked sync.WaitGroup
	for _, client := range clients {
		asked.Go(func() {
			status, err := client.status(ctx)
			if errors.Is(err, errDead) {
				err = ignoreMissing(os.Remove(client.socket))
				mu.Lock()
				defer mu.Unlock()
				problems = errors.Join(problems, err)
				return
			}
			if err != nil {
				status = mountStatus{Problem: oneLine("does not answer: " + err.Error())}
				_, _ = fmt.Sscanf(filepath.Base(client.socket), "%d-", &status.PID)
			}
			mu.Lock()
			defer mu.Unlock()
			found[client] = status
		})
	}
	asked.Wait()
	return found, problems
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// escapeGlob makes a pattern of a path that matches it alone.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}
