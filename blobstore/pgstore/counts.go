package pgstore

import (
	"context"
	"net"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"mediafs/blobstore"
)

// counts are what a store counts.
type counts struct {
	roundTrips   atomic.Uint64
	hits, misses atomic.Uint64 // of known, and of makings
}

var _ blobstore.Counter = (*Store)(nil)

// Counts implements blobstore.Counter.
func (s *Store) Counts() blobstore.Counts {
	return blobstore.Counts{RoundTrips: s.counts.roundTrips.Load(), Hits: s.counts.hits.Load(), Misses: s.counts.misses.Load()}
}

// countRoundTrips counts the round trips of connections that are made from now on. Whatever asks, it is the connection that knows how often it
// had to wait for an answer.
func countRoundTrips(config *pgx.ConnConfig, trips *atomic.Uint64) {
	config.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, c net.Conn) (net.Conn, error) {
		return &countedConn{Conn: c, trips: trips}, nil
	}
}

// A countedConn counts that something was sent and then something came back. The driver reads while it writes, if writing takes long.
type countedConn struct {
	net.Conn
	trips *atomic.Uint64
	sent  atomic.Bool // and nothing came back yet
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.sent.Store(true)
	return c.Conn.Write(p)
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.sent.Swap(false) {
		c.trips.Add(1)
	}
	return n, err
}
