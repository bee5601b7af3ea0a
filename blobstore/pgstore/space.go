package pgstore

import (
	"context"
	"time"

	"mediafs/blobstore"
)

// A drive without a quota has room for one file of the largest size. How much disk the database server really has left, no
// client can ask.
const (
	driveBytes = int64(blobstore.MaxFileSize + 1)
	driveNodes = int64(1) << 32
)

// usageAnswers is how long Usage waits for the database before it answers with what it last heard.
const usageAnswers = 300 * time.Millisecond

// Usage tells how full the drive is: as it is now if the database answers at once, else as last heard. Of a drive with a quota it is never older than
// what was made here, so that who is told that it is full sees it full; new files that the database has yet to hear of count.
func (d *Drive) Usage(ctx context.Context) (blobstore.Usage, error) {
	if last := d.quota.last.Load(); time.Since(last.asked) > time.Second || d.quota.hasMoved(last) {
		soon, cancel := context.WithTimeout(ctx, usageAnswers)
		defer cancel()
		if err := d.askQuota(soon); err != nil {
			d.log.Debug("the usage is as last heard", "error", err)
		}
	}
	a := d.quota.last.Load()
	nodes := a.nodes + d.quota.nodes.underWay()
	u := blobstore.Usage{TotalBytes: driveBytes, TotalFiles: driveNodes}
	if a.maxBytes > 0 {
		u.TotalBytes = a.maxBytes
	}
	if a.maxNodes > 0 {
		u.TotalFiles = a.maxNodes
	}
	u.FreeBytes, u.FreeFiles = max(u.TotalBytes-a.bytes, 0), max(u.TotalFiles-nodes, 0)
	return u, nil
}
