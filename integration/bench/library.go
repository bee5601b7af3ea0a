package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore/pgstore/pgtest"
)

// A library is a target that is a drive of mediafs. Each run has a new store, so that nothing is left to collect of the run before.
type library struct {
	program string // the built mediafs
	work    string
	place   place
	options []string // of mediafs mount
	caches  caches

	mount  *mount // that of this run; nil between runs
	url    string // of the database that this run's store is in; "" for a folder
	remove func(context.Context) error
}

// A place finds room for a store: its address, and how to take it away when nobody uses it any more.
type place func(ctx context.Context, dir string) (address string, remove func(context.Context) error, err error)

// inFolder is a place for a store of folders.
func inFolder(_ context.Context, dir string) (string, func(context.Context) error, error) {
	return "file://" + filepath.Join(dir, "store"), func(context.Context) error { return nil }, nil
}

// inCluster gives each store a database of its own.
func inCluster(cluster *pgtest.Cluster) place {
	return func(ctx context.Context, dir string) (string, func(context.Context) error, error) {
		name := strings.ReplaceAll(filepath.Base(dir), "-", "_")
		remove := func(ctx context.Context) error {
			return statement(ctx, cluster.URL("postgres"), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
		}
		return cluster.URL(name), remove, statement(ctx, cluster.URL("postgres"), "CREATE DATABASE "+name)
	}
}

func statement(ctx context.Context, url, sql string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// open makes a store in a folder of its own, and says where.
func (l *library) open(ctx context.Context) (s *store, err error) {
	dir, err := os.MkdirTemp(l.work, "store-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	address, remove, err := l.place(ctx, dir)
	if l.url = ""; strings.HasPrefix(address, "postgres:") {
		l.url = address
	}
	l.remove = func(ctx context.Context) error { return errors.Join(remove(ctx), os.RemoveAll(dir)) }
	if err != nil {
		return nil, err
	}
	return newStore(ctx, l.program, address, dir, l.caches)
}

func (l *library) fresh(ctx context.Context, run int) error {
	s, err := l.open(ctx)
	if err != nil {
		return err
	}
	if l.mount, err = s.drive(ctx, "alice", l.options...); err != nil {
		return err
	}
	return l.mount.fresh(ctx, run)
}

// settle waits until the background has described all files, and has taken away the content of those that were removed. In a folder nobody can
// tell when the first is.
func (l *library) settle(ctx context.Context) error {
	if l.url == "" {
		return nil
	}
	conn, err := pgx.Connect(ctx, l.url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	for more := true; more; {
		err := conn.QueryRow(ctx, `SELECT exists (SELECT FROM mediafs.nodes WHERE NOT described AND nlink > 0 AND mode & 61440 = 32768)
			OR exists (SELECT FROM mediafs.removed), pg_sleep(0.1)::text`).Scan(&more, nil)
		if err != nil {
			return fmt.Errorf("waiting for files to be described and removed: %w", err)
		}
	}
	return nil
}

func (l *library) forget(ctx context.Context) error { return l.mount.forget(ctx) }

func (l *library) do(ctx context.Context, s *step, d *data) (int, bool, error) {
	return l.mount.do(ctx, s, d)
}

func (l *library) clear(ctx context.Context) (err error) {
	if l.mount != nil {
		err = l.mount.unmount()
		l.mount = nil
	}
	if err == nil && l.remove != nil {
		err = l.remove(ctx)
		l.remove, l.url = nil, ""
	}
	return err
}

func (l *library) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := l.clear(ctx); err != nil {
		return fmt.Errorf("closing a drive: %w", err)
	}
	return nil
}
