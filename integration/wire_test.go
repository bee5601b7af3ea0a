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
	dir      string // of its socket
	server   string // the server's socket
	toServer atomic.Int64
	toClient atomic.Int64
	carriers sync.WaitGroup

	mu       sync.Mutex // guards the rest
	listener net.Listener
	ends     map[net.Conn]bool // both ends of each connection
	hanging  chan struct{}     // closed when it hangs no more; nil: it does not
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
	w.passes()
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
	both.Go(func() { w.carry(server, client, &w.toServer) })
	both.Go(func() { w.carry(client, server, &w.toClient) })
	both.Wait()
	w.mu.Lock()
	delete(w.ends, client)
	delete(w.ends, server)
	w.mu.Unlock()
}

// carry carries bytes one way. What has been taken from one end comes out at the other, though late, also if who sent it has gone.
func (w *wire) carry(to, from net.Conn, count *atomic.Int64) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		w.passes()
		count.Add(int64(n))
		if _, errWrite := to.Write(buffer[:n]); errWrite != nil || err != nil {
			break
		}
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the other end may be gone
	}
}

// passes waits until the wire does not hang.
func (w *wire) passes() {
	w.mu.Lock()
	hanging := w.hanging
	w.mu.Unlock()
	if hanging != nil {
		<-hanging
	}
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
	if w.hanging != nil {
		close(w.hanging)
		w.hanging = nil
	}
}

// hang has nothing come through any more. What is on the way comes when it is mended.
func (w *wire) hang() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hanging = make(chan struct{})
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
