package main

import (
	"context"
	"math/rand/v2"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"golang.org/x/sys/unix"

	"mediafs/blobstore/pgstore/pgtest"
)

// rawChunk is the length of the rows that the raw database keeps content in: that of a drive's chunks.
const rawChunk = 64 << 10

// raw does with the bare database what comes nearest to each step: the same bytes by COPY and SELECT, without any file system, policy or session.
func (p *plan) raw(ctx context.Context, cluster *pgtest.Cluster, got samples) error {
	connect := func() (*pgx.Conn, error) { return pgx.Connect(ctx, cluster.URL("postgres")) }
	conn, err := connect()
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	exec := func(sql string) error { _, err := conn.Exec(ctx, sql); return err }
	if err := exec(`drop schema if exists raw cascade; create schema raw;
		create table raw.chunks (file bigint, idx integer, data bytea, primary key (file, idx));
		alter table raw.chunks alter column data set storage external;
		create table raw.files (file bigint primary key, name text unique, size bigint, mtime bigint)`); err != nil {
		return err
	}
	defer exec("drop schema raw cascade")
	seed := rand.Uint64()
	w := &work{random: rand.New(rand.NewPCG(seed, 1)), noise: newNoise(seed), scale: p.scale}
	timed := func(step string, amount float64, do func() error) error {
		began := time.Now()
		if err := do(); err != nil {
			return err
		}
		figure := amount / time.Since(began).Seconds()
		got.add(step, "raw", figure)
		progress("       %-32s %-12s %10.0f", step, "raw", figure)
		return nil
	}
	copyIn := func(file int64, n int) error {
		rows := make([][]any, 0, n/rawChunk)
		for i := range n / rawChunk {
			rows = append(rows, []any{file, int32(i), w.data(rawChunk)})
		}
		_, err := conn.CopyFrom(ctx, pgx.Identifier{"raw", "chunks"}, []string{"file", "idx", "data"}, pgx.CopyFromRows(rows))
		return err
	}
	readOut := func(conn *pgx.Conn, file int64, from, to int) (n int, err error) {
		rows, err := conn.Query(ctx, "select data from raw.chunks where file = $1 and idx >= $2 and idx < $3 order by idx", file, from, to)
		if err != nil {
			return 0, err
		}
		defer rows.Close()
		for rows.Next() {
			n += len(rows.RawValues()[0])
		}
		return n, rows.Err()
	}
	small := func(conn *pgx.Conn, file int64, data []byte) error {
		_, err := conn.Exec(ctx, `with f as (insert into raw.files values ($1::bigint, $1::bigint::text, $2, 0)) insert into raw.chunks values ($1::bigint, 0, $3)`, file, len(data), data)
		return err
	}
	cold := func() error {
		unix.Sync()
		return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
	}
	const photo, first, eighth = 1000, 10000, 100000
	do := []struct {
		step   string
		amount float64
		cold   bool
		do     func() error
	}{
		{steps[0].name, float64(w.video()) / megabyte, false, func() error { return copyIn(1, w.video()) }},
		{steps[1].name, float64(w.photos()*photoBytes) / megabyte, false, func() error {
			for i := range w.photos() {
				if err := copyIn(photo+int64(i), photoBytes); err != nil {
					return err
				}
			}
			return nil
		}},
		{steps[2].name, float64(w.small()), false, func() error {
			for i := range w.small() {
				if err := small(conn, first+int64(i), w.data(smallBytes)); err != nil {
					return err
				}
			}
			return nil
		}},
		{steps[3].name, float64(w.small()), false, func() error {
			var makers errgroup.Group
			for k := range 8 {
				makers.Go(func() error {
					conn, err := connect()
					if err != nil {
						return err
					}
					defer conn.Close(context.WithoutCancel(ctx))
					for i := k; i < w.small(); i += 8 {
						if err := small(conn, eighth+int64(i), w.noise[i:i+smallBytes]); err != nil {
							return err
						}
					}
					return nil
				})
			}
			return makers.Wait()
		}},
		{steps[6].name, float64(w.video()) / megabyte, true, func() error { _, err := readOut(conn, 1, 0, w.video()/rawChunk); return err }},
		{steps[7].name, float64(w.photos()*photoBytes) / megabyte, true, func() error {
			for i := range w.photos() {
				if _, err := readOut(conn, photo+int64(i), 0, photoBytes/rawChunk); err != nil {
					return err
				}
			}
			return nil
		}},
		{steps[8].name, float64(w.small()), true, func() error {
			for i := range w.small() {
				if _, err := readOut(conn, first+int64(i), 0, 1); err != nil {
					return err
				}
			}
			return nil
		}},
		{steps[9].name, float64(w.reads()), true, func() error {
			for range w.reads() {
				off := w.random.IntN(w.video() / rawChunk * rawChunk / smallBytes)
				var data []byte
				err := conn.QueryRow(ctx, "select substring(data from $2 for 4096) from raw.chunks where file = 1 and idx = $1",
					off*smallBytes/rawChunk, off*smallBytes%rawChunk+1).Scan(&data)
				if err != nil {
					return err
				}
			}
			return nil
		}},
	}
	for _, d := range do {
		if !p.steps.MatchString(d.step) {
			continue
		}
		if d.cold {
			if err := cold(); err != nil {
				return err
			}
		}
		if err := timed(d.step, d.amount, d.do); err != nil {
			return err
		}
	}
	return nil
}
