package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// metricsVariable stands in for --metrics.
const metricsVariable = "MEDIAFS_METRICS"

const (
	metricsPath = "/metrics"

	scrapers       = 16               // connections at once; more are closed: they may not take the descriptors that the mount needs
	scrapeDeadline = 10 * time.Second // to send a request, and to take its answer
	scrapeEnd      = time.Second      // for those under way when the mount ends
)

// A metricsAddress is where the figures of a mount can be read. The zero one is nowhere.
type metricsAddress struct {
	Network string // tcp or unix
	Address string
}

func (a metricsAddress) String() string {
	if a.Network == "unix" {
		return "unix:" + a.Address
	}
	return a.Address
}

// parseMetricsAddress reads an address that this machine alone can reach: whoever reaches it can read, for nobody signs in.
func parseMetricsAddress(text string) (metricsAddress, error) {
	const way = "use 127.0.0.1:PORT, [::1]:PORT or unix:PATH"
	bad := func(why string) (metricsAddress, error) {
		return metricsAddress{}, fmt.Errorf("%q: %s: %s", text, why, way)
	}
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if path == "" {
			return bad("the path is missing")
		}
		path, err := filepath.Abs(path)
		if err != nil {
			return bad(err.Error())
		}
		if len(path) > maxSocket {
			return bad("the path is too long for a socket")
		}
		return metricsAddress{"unix", path}, nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return bad("the port is missing, or it is no address")
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return bad(fmt.Sprintf("the port is not a number from 0 to %d", math.MaxUint16))
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case host == "":
		return bad("without a host it could be read from other machines, by anybody")
	case err != nil:
		return bad("the host is no loopback address of this machine")
	case !ip.Unmap().IsLoopback():
		return bad("it could be read from other machines, by anybody")
	}
	return metricsAddress{"tcp", net.JoinHostPort(ip.Unmap().WithZone("").String(), port)}, nil
}

// metricsAddressOf is that of a command line.
func metricsAddressOf(c *cli.Context) (metricsAddress, error) {
	text, from := os.Getenv(metricsVariable), metricsVariable
	if c.IsSet("metrics") {
		text, from = c.String("metrics"), "--metrics"
	} else if text == "" {
		return metricsAddress{}, nil
	}
	address, err := parseMetricsAddress(text)
	if err != nil {
		return address, usageFailure(c, fmt.Errorf("%s: %w", from, err))
	}
	return address, nil
}

// A metricsServer tells Prometheus how a mount is. Nobody waits for it but who asks it. A nil one tells nothing.
type metricsServer struct {
	listener net.Listener
	server   *http.Server
	served   sync.WaitGroup
}

// listenMetrics takes an address, so that it is known to be free before anything is mounted. Who asks waits until serve is called.
func listenMetrics(at metricsAddress) (*metricsServer, error) {
	if at == (metricsAddress{}) {
		return nil, nil
	}
	failed := func(err error) error {
		f := &failure{code: exitFailed, what: "metrics at " + at.String(), why: err}
		if errors.Is(err, unix.EADDRINUSE) {
			f.way = "choose another port, or 0 for one that is free"
			if at.Network == "unix" {
				f.way = "choose another path"
			}
		}
		return f
	}
	if at.Network == "unix" {
		if err := removeDeadSocket(at.Address); err != nil {
			return nil, failed(err)
		}
	}
	listener, err := net.Listen(at.Network, at.Address)
	if err == nil && at.Network == "unix" {
		if err = os.Chmod(at.Address, 0o600); err != nil {
			err = errors.Join(err, listener.Close())
		}
	}
	if err != nil {
		var errno unix.Errno
		if errors.As(err, &errno) {
			err = errno // the rest says again where it was
		}
		return nil, failed(err)
	}
	return &metricsServer{listener: listener}, nil
}

// removeDeadSocket takes away the socket of a mount that was killed.
func removeDeadSocket(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return ignoreMissing(err)
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%w, by something that is no socket", unix.EADDRINUSE)
	}
	conn, err := net.DialTimeout("unix", path, scrapeEnd)
	switch {
	case err == nil:
		_ = conn.Close() // it has shown that somebody answers
		return unix.EADDRINUSE
	case errors.Is(err, unix.ECONNREFUSED):
		return ignoreMissing(os.Remove(path))
	}
	return err
}

// address is where it can be asked; "" for nowhere.
func (s *metricsServer) address() string {
	switch {
	case s == nil:
		return ""
	case s.listener.Addr().Network() == "unix":
		return "unix:" + s.listener.Addr().String()
	}
	return "http://" + s.listener.Addr().String() + metricsPath
}

// serve answers until close.
func (s *metricsServer) serve(mount prometheus.Collector, logger *slog.Logger) {
	if s == nil {
		return
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(mount, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	problems := slog.NewLogLogger(logger.Handler(), slog.LevelWarn)
	mux := http.NewServeMux()
	// Compressing costs more than a loopback address saves.
	mux.Handle("GET "+metricsPath, promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorLog: problems, DisableCompression: true}))
	var open atomic.Int64
	s.server = &http.Server{
		Handler:        mux,
		ReadTimeout:    scrapeDeadline,
		WriteTimeout:   scrapeDeadline,
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       problems,
		ConnState: func(c net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				if open.Add(1) > scrapers {
					_ = c.Close()
				}
			case http.StateClosed:
				open.Add(-1)
			}
		},
	}
	s.served.Go(func() {
		if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("metrics can't be read any more", "error", err)
		}
	})
	logger.Info("metrics can be read", "address", s.address())
}

// close ends the answers and gives the address back.
func (s *metricsServer) close() {
	if s == nil {
		return
	}
	if s.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), scrapeEnd)
		defer cancel()
		if s.server.Shutdown(ctx) != nil {
			_ = s.server.Close() // of who does not take the answer
		}
	}
	_ = s.listener.Close() // the server has, if there was one
	s.served.Wait()
}
