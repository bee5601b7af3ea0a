package pgstore

import (
	"context"
	"errors"
	"sync"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore"
)

// New files that are closed at the same time are stored in one transaction: a commit, and what the database does once in each call, are then
// shared. Nobody waits for others to come: what is asked for while a transaction is under way goes into the next.
const (
	makersMost = 2  // transactions under way at a time
	makeMost   = 32 // files in one
)

// makers stores new files.
type makers struct {
	mu    sync.Mutex // guards the rest
	queue []*makeRequest
	busy  int
}

// A makeRequest is one new file to be stored. Whoever made it waits for the answer, however long that takes: until then its data is in use.
type makeRequest struct {
	ctx    context.Context
	t      transfer
	answer chan error // has room
	row    row
}

// putNew is put for a file that is yet to be made.
func (d *Drive) putNew(ctx context.Context, t transfer) (row, error) {
	r := &makeRequest{ctx: ctx, t: t, answer: make(chan error, 1)}
	d.makers.mu.Lock()
	d.makers.queue = append(d.makers.queue, r)
	if d.makers.busy < makersMost {
		d.makers.busy++
		d.tasks.Go(d.makeQueued)
	}
	d.makers.mu.Unlock()
	if err := <-r.answer; err != nil {
		return row{}, err
	}
	d.known.touched(t.making.parent, t.making.ns)
	return r.row, nil
}

// makeQueued stores what is asked for until there is nothing.
func (d *Drive) makeQueued() {
	for {
		batch := d.makers.take(batchBytes)
		if len(batch) == 0 {
			return
		}
		err := d.makeFiles(batch)
		if err != nil && len(batch) > 1 && !unreachable(err) {
			for _, r := range batch { // it is of one of them
				r.answer <- d.makeFiles([]*makeRequest{r})
			}
			continue
		}
		for _, r := range batch {
			r.answer <- err
		}
	}
}

// take takes what goes into the next transaction off the queue: nothing once, for each who takes, when the queue is empty.
func (m *makers) take(most int) []*makeRequest {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, bytes := 0, 0
	for n < len(m.queue) && n < makeMost && (n == 0 || bytes < most) {
		for _, data := range m.queue[n].t.data {
			bytes += len(data)
		}
		n++
	}
	batch := m.queue[:n:n]
	m.queue = m.queue[n:]
	if n == 0 {
		m.busy--
		m.queue = nil
	}
	return batch
}

// makeFiles is one transaction. It ends when the first of those who wait has no more time.
func (d *Drive) makeFiles(batch []*makeRequest) error {
	ctx, end := context.WithCancelCause(context.WithoutCancel(batch[0].ctx))
	defer end(nil)
	ctx, stop := context.WithTimeout(ctx, attemptLimit)
	defer stop()
	rows := make(map[blobstore.Ino]*makeRequest, len(batch))
	var forget []func() bool
	defer func() {
		for _, stop := range forget {
			stop()
		}
	}()
	for _, r := range batch {
		rows[r.t.ino] = r
		forget = append(forget, context.AfterFunc(r.ctx, func() { end(context.Cause(r.ctx)) }))
	}
	n, losses := 0, d.losses.Load()
	s := d.makeOne(&batch[0].t)
	if len(batch) > 1 {
		s = d.makeSeveral(batch)
	}
	s.each = func(rs pgx.Rows) error {
		one := row{losses: losses}
		if err := one.scan(rs); err != nil {
			return err
		}
		d.atimes.over(&one.attr)
		rows[one.attr.Ino].row = one
		n++
		return nil
	}
	err := d.run(ctx, "make", durably, s)
	if err == nil && n < len(batch) {
		err = errors.New("pgstore: make: the database has made fewer files than it was told to")
	}
	return err
}

// makeOne is the statement that makes one file.
func (d *Drive) makeOne(t *transfer) statement {
	a := &t.made
	return statement{
		sql: "select " + attrColumns + " from mediafs.make_file($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) n",
		args: []any{
			d.id, int64(t.making.parent), []byte(t.making.name), int64(t.ino), int32(a.Mode), int64(a.UID), int64(a.GID),
			t.idx, pieces(t.data), t.size, t.making.ns, a.AtimeNs, a.MtimeNs, a.CtimeNs,
		},
	}
}

// makeSeveral is the statement that makes several; for one it would take the database longer.
func (d *Drive) makeSeveral(batch []*makeRequest) statement {
	var parents, inos, uids, gids, sizes, made, atimes, mtimes, ctimes, blobs []int64
	var names, data [][]byte
	var modes, idx []int32
	for _, r := range batch {
		t, a := &r.t, &r.t.made
		parents, names = append(parents, int64(t.making.parent)), append(names, []byte(t.making.name))
		inos, modes, uids, gids = append(inos, int64(t.ino)), append(modes, int32(a.Mode)), append(uids, int64(a.UID)), append(gids, int64(a.GID))
		sizes, made = append(sizes, t.size), append(made, t.making.ns)
		atimes, mtimes, ctimes = append(atimes, a.AtimeNs), append(mtimes, a.MtimeNs), append(ctimes, a.CtimeNs)
		for i := range t.idx {
			blobs, idx, data = append(blobs, int64(t.ino)), append(idx, t.idx[i]), append(data, t.data[i])
		}
	}
	return statement{
		sql:  "select " + attrColumns + " from mediafs.make_files($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) n",
		args: []any{d.id, parents, names, inos, modes, uids, gids, sizes, made, atimes, mtimes, ctimes, blobs, idx, pieces(data)},
	}
}
