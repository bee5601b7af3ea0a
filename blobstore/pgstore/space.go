package pgstore

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore"
)

// A drive without a quota has room for one file of the largest size. How much disk the database server really has left, no
// client can ask.
const (
	driveBytes = int64(blobstore.MaxFileSize + 1)
	driveNodes = int64(1) << 32
)

// usage is what the drive holds, as last heard.
type usage struct {
	mu           sync.Mutex // guards the rest
	bytes, nodes int64
	at           time.Time
}

func (u *usage) refresh(ctx context.Context, d *Drive) error {
	var bytes, nodes int64
	err := d.run(ctx, "usage", reading, statement{
		sql:  "select coalesce(sum(bytes), 0)::bigint, coalesce(sum(nodes), 0)::bigint from mediafs.usage where drive_id = $1",
		args: []any{d.id},
		each: func(r pgx.Rows) error { return r.Scan(&bytes, &nodes) },
	})
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.bytes, u.nodes, u.at = bytes, nodes, time.Now()
	return nil
}

// usageAnswers is how long Usage waits for the database before it answers with what it last heard.
const usageAnswers = 300 * time.Millisecond

// Usage tells how full the drive is: as it is now if the database answers at once, else as last heard.
func (d *Drive) Usage(ctx context.Context) (blobstore.Usage, error) {
	d.usage.mu.Lock()
	old := time.Since(d.usage.at) > time.Second
	d.usage.mu.Unlock()
	if old {
		soon, cancel := context.WithTimeout(ctx, usageAnswers)
		defer cancel()
		if err := d.usage.refresh(soon, d); err != nil {
			d.log.Debug("the usage is as last heard", "error", err)
		}
	}
	d.usage.mu.Lock()
	defer d.usage.mu.Unlock()
	return blobstore.Usage{
		TotalBytes: driveBytes, FreeBytes: max(driveBytes-d.usage.bytes, 0),
		TotalFiles: driveNodes, FreeFiles: max(driveNodes-d.usage.nodes, 0),
	}, nil
}
