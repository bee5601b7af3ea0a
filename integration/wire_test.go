package integration

import (
	"errors"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// A wire is what connects the program with its database. It can be cut and it can hang, and it counts what goes through.
type wire struct {
	dir      string       // of its socket
	server   string       // the server's socket
	bytes    atomic.Int64 // that went through, both ways
	carriers sync.WaitGroup
	held     sync.WaitGroup // what is held back, until it is delivered

	mu       sync.Mutex // guards the rest
	listener net.Listener
	ends     map[net.Conn]bool // both ends of each connection
	hanging  chan struct{}     // closed when what is held back may come through; nil: nothing is held back any more
	late     chan struct{}     // the same of what stays held back though the wire is mended
}

// socketName is what Postgres calls its socket at its usual port.
const socketName = ".s.PGSQL.5432"

// newWire lays a wire to the database at an address, and returns it with the address of its other end.
func newWire(t *testing.T, database string) (*wire, string) {
	t.Helper()
	u, err := url.Parse(database)
	check(t, err)
	parameters := u.Query()
	w := &wire{dir: tempDir(t), server: filepath.Join(parameters.Get("host"), socketName), ends: make(map[net.Conn]bool)}
	check(t, w.listen())
	t.Cleanup(func() {
		w.cut()
		w.carriers.Wait()
	})
	parameters.Set("host", w.dir)
	u.RawQuery = strings.ReplaceAll(parameters.Encode(), "+", "%20")
	return w, u.String()
}

// throughWire is the store as it is reached over a wire.
func (s *store) throughWire(t *testing.T) (*store, *wire) {
	t.Helper()
	other := *s
	w, address := newWire(t, s.database)
	other.address = address
	return &other, w
}

func (w *wire) listen() error {
	l, err := net.Listen("unix", filepath.Join(w.dir, socketName))
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.listener = l
	w.mu.Unlock()
	w.carriers.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			w.carriers.Go(func() { w.connect(client) })
		}
	})
	return nil
}

// connect carries what goes through one connection, both ways, until it ends.
func (w *wire) connect(client net.Conn) {
	defer client.Close()
	w.passes()()
	server, err := net.Dial("unix", w.server)
	if err != nil {
		return // no server is there either
	}
	defer server.Close()
	w.mu.Lock()
	if w.listener == nil {
		w.mu.Unlock()
		return // it was cut meanwhile
	}
	w.ends[client], w.ends[server] = true, true
	w.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { w.carry(server, client) })
	both.Go(func() { w.carry(client, server) })
	both.Wait()
	w.mu.Lock()
	delete(w.ends, client)
	delete(w.ends, server)
	w.mu.Unlock()
}

// carry carries bytes one way. What has been taken from one end comes out at the other, though late, also if who sent it has gone.
func (w *wire) carry(to, from net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		passed := w.passes()
		w.bytes.Add(int64(n))
		_, errWrite := to.Write(buffer[:n])
		passed()
		if errWrite != nil || err != nil {
			break
		}
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the other end may be gone
	}
}

// passes waits until something may come through. passed is to be called when it has.
func (w *wire) passes() (passed func()) {
	w.mu.Lock()
	hanging := w.hanging
	if hanging == nil {
		w.mu.Unlock()
		return func() {}
	}
	w.held.Add(1)
	w.mu.Unlock()
	<-hanging
	return w.held.Done
}

// cut ends all connections, and lets nobody make one until it is mended. What is on the way is lost.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listener != nil {
		_ = w.listener.Close()
		w.listener = nil
	}
	for end := range w.ends {
		_ = end.Close()
	}
	for _, held := range []*chan struct{}{&w.hanging, &w.late} {
		if *held != nil {
			close(*held)
			*held = nil
		}
	}
}

// hang has nothing come through any more. What is on the way comes when it is mended.
func (w *wire) hang() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hanging = make(chan struct{})
}

// mendLate is mend for a wire that hangs, but what is on the way stays there until it is delivered.
func (w *wire) mendLate() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hanging, w.late = nil, w.hanging
}

// deliver has that come through, and returns when it has.
func (w *wire) deliver() {
	w.mu.Lock()
	close(w.late)
	w.late = nil
	w.mu.Unlock()
	w.held.Wait()
}

// mend ends what cut or hang began.
func (w *wire) mend() error {
	w.mu.Lock()
	if w.hanging != nil {
		close(w.hanging)
		w.hanging = nil
		w.mu.Unlock()
		return nil
	}
	listens := w.listener != nil
	w.mu.Unlock()
	if listens {
		return errors.New("the wire is whole")
	}
	return w.listen()
}
