package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// chunkSize is that of the chunks of the raw database, as in our store.
const chunkSize = 64 << 10

// A rawDatabase is what Postgres can do with the same bytes when no file system is in front of it: the fewest statements that keep
// names, attributes and content, each step's changes as durable as the file system's.
type rawDatabase struct {
	url    string
	caches caches
	conns  []*pgx.Conn // atOnce of them; most steps use the first
}

// rawSchema has the least that a file system would need.
const rawSchema = `
CREATE TABLE nodes (id bigint PRIMARY KEY, parent bigint NOT NULL, name bytea NOT NULL, mode int NOT NULL, size bigint NOT NULL,
	mtime bigint NOT NULL, UNIQUE (parent, name));
CREATE TABLE chunks (node bigint, n int, data bytea NOT NULL, PRIMARY KEY (node, n));
ALTER TABLE chunks ALTER data SET STORAGE EXTERNAL`

// The ids of the raw database: a folder's, and that of the first file in it.
const (
	rawVideo    = 1
	rawPhotos   = 1_000_000
	rawSingly   = 2_000_000
	rawTogether = 3_000_000
	rawSynced   = 4_000_000
)

func (r *rawDatabase) fresh(ctx context.Context, _ int) error {
	if err := r.connect(ctx); err != nil {
		return err
	}
	_, err := r.conns[0].Exec(ctx, rawSchema)
	return err
}

func (r *rawDatabase) connect(ctx context.Context) error {
	for len(r.conns) < atOnce {
		conn, err := pgx.Connect(ctx, r.url)
		if err != nil {
			return err
		}
		r.conns = append(r.conns, conn)
	}
	return nil
}

func (r *rawDatabase) disconnect(ctx context.Context) error {
	for _, conn := range r.conns {
		if err := conn.Close(ctx); err != nil {
			return err
		}
	}
	r.conns = nil
	return nil
}

// forget drops the kernel's caches; what Postgres keeps in its shared buffers stays, as it does behind a mount.
func (r *rawDatabase) forget(ctx context.Context) error {
	if err := r.disconnect(ctx); err != nil {
		return err
	}
	if err := r.caches.drop(); err != nil {
		return err
	}
	return r.connect(ctx)
}

func (r *rawDatabase) do(ctx context.Context, s *step, d *data) (int, bool, error) {
	if s.raw == nil {
		return 0, false, nil
	}
	amount, err := s.raw(r, ctx, d)
	return amount, true, err
}

func (r *rawDatabase) clear(ctx context.Context) error {
	_, err := r.conns[0].Exec(ctx, "DROP TABLE nodes, chunks")
	return err
}

func (r *rawDatabase) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	return r.disconnect(ctx)
}

const insertNode = `INSERT INTO nodes VALUES ($1, $2, $3, 33188, $4, 0)`

func (r *rawDatabase) copyInVideo(ctx context.Context, d *data) (int, error) {
	return len(d.video) / megabyte, r.copyIn(ctx, rawVideo, 0, videoFile, d.video)
}

func (r *rawDatabase) copyInPhotos(ctx context.Context, d *data) (int, error) {
	for i, photo := range d.photos {
		if err := r.copyIn(ctx, rawPhotos+1+int64(i), rawPhotos, fileName(photoPrefix, i), photo); err != nil {
			return 0, err
		}
	}
	return megabytes(d.photos), nil
}

// copyIn stores one file by COPY, in one transaction.
func (r *rawDatabase) copyIn(ctx context.Context, id, parent int64, name string, content []byte) error {
	return pgx.BeginFunc(ctx, r.conns[0], func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, insertNode, id, parent, []byte(name), len(content)); err != nil {
			return err
		}
		chunks := (len(content) + chunkSize - 1) / chunkSize
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"chunks"}, []string{"node", "n", "data"}, pgx.CopyFromSlice(chunks, func(n int) ([]any, error) {
			return []any{id, int32(n), chunk(content, n)}, nil
		}))
		return err
	})
}

func chunk(content []byte, n int) []byte {
	return content[n*chunkSize : min((n+1)*chunkSize, len(content))]
}

func (r *rawDatabase) createSingly(ctx context.Context, d *data) (int, error) {
	return r.createSmall(ctx, d, rawSingly, 1)
}

func (r *rawDatabase) createTogether(ctx context.Context, d *data) (int, error) {
	return r.createSmall(ctx, d, rawTogether, atOnce)
}

func (r *rawDatabase) createSynced(ctx context.Context, d *data) (int, error) {
	return r.createSmall(ctx, d, rawSynced, 1)
}

// createSmall stores each small file by one statement that waits for the disk.
func (r *rawDatabase) createSmall(ctx context.Context, d *data, parent int64, clients int) (int, error) {
	const query = `WITH node AS (INSERT INTO nodes VALUES ($1, $2, $3, 33188, $4, 0) RETURNING id) INSERT INTO chunks SELECT id, 0, $5 FROM node`
	return len(d.small), r.share(ctx, clients, len(d.small), func(ctx context.Context, conn *pgx.Conn, i int) error {
		_, err := conn.Exec(ctx, query, parent+1+int64(i), parent, []byte(fileName(filePrefix, i)), len(d.small[i]), d.small[i])
		return err
	})
}

// share has clients, each with a connection of its own, do n pieces of work.
func (r *rawDatabase) share(ctx context.Context, clients, n int, do func(ctx context.Context, conn *pgx.Conn, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for c := range clients {
		group.Go(func() error {
			for i := c; i < n; i += clients {
				if err := do(ctx, r.conns[c], i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// walk lists the folders, with what is known of each file.
func (r *rawDatabase) walk(ctx context.Context, _ *data) (entries int, err error) {
	for _, parent := range []int64{0, rawPhotos, rawSingly, rawTogether, rawSynced} {
		rows, err := r.conns[0].Query(ctx, "SELECT id, name, mode, size, mtime FROM nodes WHERE parent = $1", parent)
		if err != nil {
			return 0, err
		}
		var id, size, mtime int64
		var mode int32
		var name []byte
		tag, err := pgx.ForEachRow(rows, []any{&id, &name, &mode, &size, &mtime}, func() error { return nil })
		if err != nil {
			return 0, err
		}
		entries += int(tag.RowsAffected())
	}
	return entries, nil
}

// readVideo reads it on two connections, a half each.
func (r *rawDatabase) readVideo(ctx context.Context, d *data) (int, error) {
	chunks := len(d.video) / chunkSize
	err := r.share(ctx, 2, 2, func(ctx context.Context, conn *pgx.Conn, half int) error {
		return readChunks(ctx, conn, rawVideo, half*chunks/2, (half+1)*chunks/2, d.video)
	})
	return len(d.video) / megabyte, err
}

func (r *rawDatabase) readPhotos(ctx context.Context, d *data) (int, error) {
	for i, photo := range d.photos {
		if err := readChunks(ctx, r.conns[0], rawPhotos+1+int64(i), 0, (len(photo)+chunkSize-1)/chunkSize, photo); err != nil {
			return 0, err
		}
	}
	return megabytes(d.photos), nil
}

// readChunks reads the chunks [from, to) of a file and checks them.
func readChunks(ctx context.Context, conn *pgx.Conn, id int64, from, to int, want []byte) error {
	rows, err := conn.Query(ctx, "SELECT n, data FROM chunks WHERE node = $1 AND n >= $2 AND n < $3 ORDER BY n", id, from, to)
	if err != nil {
		return err
	}
	defer rows.Close()
	next := from
	for rows.Next() {
		// The chunk stays in the connection's buffer: what is measured is Postgres and not a copy.
		content := rows.RawValues()[1]
		if !looksLike(content, chunk(want, next)) {
			return fmt.Errorf("chunk %d of file %d holds other bytes than were stored", next, id)
		}
		next++
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if next != to {
		return fmt.Errorf("file %d ends at chunk %d, want %d", id, next, to)
	}
	return nil
}

func (r *rawDatabase) readSmall(ctx context.Context, d *data) (int, error) {
	const query = `SELECT id, size, data FROM nodes JOIN chunks ON node = id WHERE parent = $1 AND name = $2`
	for i, want := range d.small {
		var id, size int64
		var content []byte
		if err := r.conns[0].QueryRow(ctx, query, rawSingly, []byte(fileName(filePrefix, i))).Scan(&id, &size, &content); err != nil {
			return 0, err
		}
		if !looksLike(content, want) {
			return 0, fmt.Errorf("small file %d holds other bytes than were stored", i)
		}
	}
	return len(d.small), nil
}

func (r *rawDatabase) readRandomly(ctx context.Context, d *data) (int, error) {
	const query = `SELECT substring(data FROM $3 FOR 4096) FROM chunks WHERE node = $1 AND n = $2`
	for _, off := range d.reads {
		var content []byte
		if err := r.conns[0].QueryRow(ctx, query, rawVideo, off/chunkSize, off%chunkSize+1).Scan(&content); err != nil {
			return 0, err
		}
		if !looksLike(content, d.video[off:off+blockSize]) {
			return 0, fmt.Errorf("the video holds other bytes at %d than were stored", off)
		}
	}
	return len(d.reads), nil
}

// writeRandomly stores whole chunks, since Postgres can't change a part of a value, in one transaction.
func (r *rawDatabase) writeRandomly(ctx context.Context, d *data) (int, error) {
	content := make([]byte, chunkSize)
	err := pgx.BeginFunc(ctx, r.conns[0], func(tx pgx.Tx) error {
		for i, off := range d.writes {
			n := off / chunkSize
			copy(content, chunk(d.video, int(n)))
			copy(content[off%chunkSize:], d.blocks[i])
			if _, err := tx.Exec(ctx, "UPDATE chunks SET data = $3 WHERE node = $1 AND n = $2", rawVideo, n, content); err != nil {
				return err
			}
		}
		return nil
	})
	return len(d.writes), err
}

func (r *rawDatabase) rename(ctx context.Context, d *data) (int, error) {
	const query = "UPDATE nodes SET name = $3 WHERE parent = $1 AND name = $2"
	for i := range d.small {
		if _, err := r.conns[0].Exec(ctx, query, rawSingly, []byte(fileName(filePrefix, i)), []byte(fileName(newPrefix, i))); err != nil {
			return 0, err
		}
	}
	return len(d.small), nil
}

func (r *rawDatabase) removeAll(ctx context.Context, d *data) (int, error) {
	const query = `WITH node AS (DELETE FROM nodes WHERE parent = $1 AND name = $2 RETURNING id) DELETE FROM chunks USING node WHERE chunks.node = node.id`
	for i := range d.small {
		if _, err := r.conns[0].Exec(ctx, query, rawTogether, []byte(fileName(filePrefix, i))); err != nil {
			return 0, err
		}
	}
	return len(d.small), nil
}
