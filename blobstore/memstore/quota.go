package memstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"mediafs/auth"
	"mediafs/blobstore"
)

var _ blobstore.Quotas = (*Store)(nil)

// Quotas implements blobstore.Quotas.
func (s *Store) Quotas(ctx context.Context, session auth.Session) ([]blobstore.Quota, error) {
	if err := check(ctx, session); err != nil {
		return nil, fmt.Errorf("list quotas: %w", err)
	}
	if session.Role == auth.RoleGuest {
		return nil, fmt.Errorf("list quotas: %w", blobstore.ErrAccess)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []blobstore.Quota
	for _, d := range s.drives {
		if session.Role == auth.RoleAdmin || d.name == blobstore.DriveName(session.User) {
			list = append(list, d.told())
		}
	}
	slices.SortFunc(list, func(a, b blobstore.Quota) int { return cmp.Compare(a.Drive, b.Drive) })
	return list, nil
}

// SetQuota implements blobstore.Quotas.
func (s *Store) SetQuota(ctx context.Context, session auth.Session, name blobstore.DriveName, maxBytes, maxFiles int64) error {
	err := check(ctx, session)
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.find(name)
	switch {
	case err != nil:
	case session.Role != auth.RoleAdmin:
		err = blobstore.ErrAccess
	case d == nil:
		err = blobstore.ErrNotExist
	case maxBytes < blobstore.KeepLimit || maxFiles < blobstore.KeepLimit:
		err = blobstore.ErrInvalid
	default:
		d.mu.Lock()
		defer d.mu.Unlock()
		if maxBytes != blobstore.KeepLimit {
			d.maxBytes = maxBytes
		}
		if maxFiles != blobstore.KeepLimit {
			d.maxFiles = maxFiles
		}
		return nil
	}
	return fmt.Errorf("set the quota of %q: %w", name, err)
}

func (d *drive) told() blobstore.Quota {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := blobstore.Quota{Drive: d.name, Owner: auth.UserID(d.name), MaxBytes: d.maxBytes, MaxFiles: d.maxFiles, UsedBytes: d.usedBytes(), UsedFiles: d.usedFiles()}
	if d.name == blobstore.PublicDrive {
		q.Owner = ""
	}
	return q
}

func (d *drive) usedFiles() int64 { return int64(len(d.nodes) - 1) }

// usedBytes is what files hold.
func (d *drive) usedBytes() (n int64) {
	for _, node := range d.nodes {
		n += node.content.allocated()
	}
	return n
}

// room is how many of n bytes to be written at off there is room for. ErrQuota: for none of them.
func (d *drive) room(c *content, off, n int64) (int64, error) {
	if d.maxBytes == 0 {
		return n, nil
	}
	left := d.maxBytes - d.usedBytes()
	for at := off; at < off+n; at = (at/pageSize + 1) * pageSize {
		if c.pages[at/pageSize] != nil {
			continue
		}
		if left -= pageSize; left < 0 {
			if at == off {
				return 0, blobstore.ErrQuota
			}
			return at - off, nil
		}
	}
	return n, nil
}
