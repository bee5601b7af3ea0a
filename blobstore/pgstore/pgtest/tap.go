package pgtest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A Tap is a way to a database that counts the round trips of whoever goes over it. It reads the protocol of Postgres: a round trip
// is what a client sends up to a Sync or a simple Query, which it then waits for, and all that the server answers up to
// ReadyForQuery. Making a connection is none.
type Tap struct {
	server   string // the server's socket
	listener net.Listener
	carriers sync.WaitGroup

	mu    sync.Mutex // guards the rest
	trips []*RoundTrip
	ends  []net.Conn // of connections, both ends
}

// A RoundTrip is one request and its answer.
type RoundTrip struct {
	Statements []string // what it has the server do, in order; none if it only prepares statements
	Sent       int64    // bytes
	Received   int64    // bytes, once the answer is complete
}

// NewTap makes a way to the database at an address, and returns it with the address of its other end. It ends with the test, or
// after whoever was connected before the test ended.
func NewTap(t testing.TB, database string) (*Tap, string) {
	t.Helper()
	u, err := url.Parse(database)
	must(t, err)
	parameters := u.Query()
	const socket = ".s.PGSQL.5432"
	dir, err := os.MkdirTemp("", "tap-") // t.TempDir may be too long for a socket
	must(t, err)
	must(t, os.Chmod(dir, 0o755)) // for other users, too
	w := &Tap{server: filepath.Join(parameters.Get("host"), socket)}
	w.listener, err = net.Listen("unix", filepath.Join(dir, socket))
	must(t, err)
	must(t, os.Chmod(filepath.Join(dir, socket), 0o777))
	w.carriers.Go(w.accept)
	t.Cleanup(func() {
		_ = w.listener.Close() // which takes the socket away
		w.mu.Lock()
		for _, end := range w.ends {
			_ = end.Close() // it may have ended before
		}
		w.mu.Unlock()
		w.carriers.Wait()
		must(t, os.RemoveAll(dir))
	})
	parameters.Set("host", dir)
	return w, databaseURL(strings.TrimPrefix(u.Path, "/"), parameters)
}

// During returns the round trips that begin while something is done, those of other goroutines too, in the order they began.
func (w *Tap) During(do func()) []RoundTrip {
	w.mu.Lock()
	before := len(w.trips)
	w.mu.Unlock()
	do()
	w.mu.Lock()
	defer w.mu.Unlock()
	var trips []RoundTrip
	for _, trip := range w.trips[before:] {
		trips = append(trips, *trip)
	}
	return trips
}

func (w *Tap) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", w.server)
		if err != nil {
			_ = client.Close() // as if it had not been accepted
			continue
		}
		w.mu.Lock()
		w.ends = append(w.ends, client, server)
		w.mu.Unlock()
		c := &tapped{tap: w, statements: make(map[string]string)}
		w.carriers.Go(func() { c.carry(server, client, false, c.request) })
		w.carriers.Go(func() { c.carry(client, server, true, c.answer) })
	}
}

// tapped is one connection.
type tapped struct {
	tap *Tap

	// Of the client's side alone.
	statements map[string]string // prepared, by name
	next       RoundTrip         // what the client has sent of it

	waiting []*RoundTrip // whose answers are to come, the oldest first; guarded by tap.mu
}

// carry carries one way, message by message, until either end goes. note sees each before it goes on. The first message of a client has
// no type.
func (c *tapped) carry(to, from net.Conn, typed bool, note func(message []byte)) {
	defer to.Close()
	r, w := bufio.NewReaderSize(from, 64<<10), bufio.NewWriterSize(to, 64<<10)
	var message []byte
	for {
		head := 5 // type and length
		if !typed {
			head = 4
		}
		message = slices.Grow(message[:0], head)[:head]
		if _, err := io.ReadFull(r, message); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint32(message[head-4:])) - 4
		if n < 0 {
			return
		}
		message = slices.Grow(message, n)[:head+n]
		if _, err := io.ReadFull(r, message[head:]); err != nil {
			return
		}
		if typed {
			note(message)
		}
		typed = true
		if _, err := w.Write(message); err != nil {
			return
		}
		if r.Buffered() == 0 {
			if err := w.Flush(); err != nil {
				return
			}
		}
	}
}

// request notes what a client sends.
func (c *tapped) request(message []byte) {
	c.next.Sent += int64(len(message))
	body := message[5:]
	switch message[0] {
	case 'P': // Parse
		name, rest := text(body)
		c.statements[name], _ = text(rest)
	case 'B': // Bind
		_, rest := text(body) // the portal
		name, _ := text(rest)
		c.next.Statements = append(c.next.Statements, c.statements[name])
	case 'Q': // Query
		sql, _ := text(body)
		c.next.Statements = append(c.next.Statements, sql)
		c.begin()
	case 'S': // Sync
		c.begin()
	}
}

// begin is called when the client waits.
func (c *tapped) begin() {
	trip := c.next
	c.next = RoundTrip{}
	c.tap.mu.Lock()
	defer c.tap.mu.Unlock()
	c.tap.trips = append(c.tap.trips, &trip)
	c.waiting = append(c.waiting, &trip)
}

// answer notes what the server sends.
func (c *tapped) answer(message []byte) {
	c.tap.mu.Lock()
	defer c.tap.mu.Unlock()
	if len(c.waiting) == 0 {
		return // the connection is being made
	}
	c.waiting[0].Received += int64(len(message))
	if message[0] == 'Z' { // ReadyForQuery
		c.waiting = c.waiting[1:]
	}
}

// text is a string of a message, and what follows it.
func text(p []byte) (string, []byte) {
	s, rest, _ := bytes.Cut(p, []byte{0})
	return string(s), rest
}

// Name says in short what a round trip does: the first word of its last statement and the tables or functions of the schema mediafs that its
// statements name, other than what says whose transaction it is. One that only prepares statements is "prepare".
func (r *RoundTrip) Name() string {
	if len(r.Statements) == 0 {
		return "prepare"
	}
	var names []string
	for _, sql := range r.Statements {
		if strings.HasPrefix(sql, "select set_config(") {
			continue
		}
		if len(names) == 0 {
			names = append(names, firstWord.FindString(sql))
		}
		for _, m := range object.FindAllStringSubmatch(sql, -1) {
			if !slices.Contains(names, m[1]) {
				names = append(names, m[1])
			}
		}
	}
	return strings.Join(names, " ")
}

var (
	firstWord = regexp.MustCompile(`\S+`)
	object    = regexp.MustCompile(`\bmediafs\.(\w+)`)
)
