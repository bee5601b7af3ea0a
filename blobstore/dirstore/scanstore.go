package dirstore

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"slices"

	"mediafs/blobstore"
)

// store stores what was read.
func (s *scan) store() error {
	if len(s.readings) == 0 {
		return nil
	}
	var lost []identity
	err := s.inTransaction(func(tx *sql.Tx) error {
		put, err := newPutter(s.ctx, tx, s.drive)
		if err != nil {
			return err
		}
		defer put.close()
		for _, r := range s.readings {
			is, revision := &r.now, rand.Int64N(1<<62)+1
			result, err := tx.ExecContext(s.ctx, `insert into folders (drive, path, ino, born_ns, mtime_ns, ctime_ns, looked_ns, due_ns, files, revision)
				select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 where ?11 = 0 or exists (select 1 from folders where drive = ?1 and path = ?2)
				on conflict do update set ino = excluded.ino, born_ns = excluded.born_ns, mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns,
					looked_ns = excluded.looked_ns, due_ns = excluded.due_ns, files = excluded.files, revision = excluded.revision where revision = ?11`,
				s.drive, []byte(is.path), is.ino, is.born, is.mtime, is.ctime, is.looked, is.due, is.files, revision, r.folder.revision)
			if err != nil {
				return err
			}
			if n, err := result.RowsAffected(); err != nil {
				return err
			} else if n == 0 {
				s.again = true
				continue
			}
			for i := range r.gone {
				if err := put.remove(&r.gone[i]); err != nil {
					return err
				}
				lost = append(lost, r.gone[i].identity())
			}
			for i := range r.put {
				if err := put.row(&r.put[i]); err != nil {
					return err
				}
			}
			if err := s.storeFolders(tx, r); err != nil {
				return err
			}
		}
		return nil
	})
	s.readings, s.changes, s.lost = s.readings[:0], 0, append(s.lost, lost...)
	return err
}

// storeFolders stores which folders are in one.
func (s *scan) storeFolders(tx *sql.Tx, r *reading) error {
	there := make(map[string]bool, len(r.folders))
	for _, name := range r.folders {
		there[name] = true
		path := join(r.now.path, name)
		if s.folders[path] != nil {
			continue
		}
		_, err := tx.ExecContext(s.ctx, `insert into folders (drive, path, ino, born_ns, mtime_ns, ctime_ns, looked_ns, due_ns, files, revision)
			values (?, ?, 0, 0, 0, 0, 0, 0, 0, 0) on conflict do nothing`, s.drive, []byte(path))
		if err != nil {
			return err
		}
	}
	for _, name := range s.below[r.now.path] {
		if path := join(r.now.path, name); !there[name] {
			if err := s.forgetFolder(tx, path, false); err != nil {
				return err
			}
			delete(s.folders, path)
		}
	}
	return nil
}

// forgetFolder takes away what is known of a folder, and unless keep, that there is one; but not what another program has found there meanwhile.
func (s *scan) forgetFolder(tx *sql.Tx, path string, keep bool) error {
	known := s.folders[path]
	if known == nil {
		return nil
	}
	result, err := tx.ExecContext(s.ctx, "update folders set files = 0, revision = 0 where drive = ? and path = ? and revision = ?", s.drive, []byte(path), known.revision)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		s.again = true
		return err
	}
	rows, err := tx.QueryContext(s.ctx, "delete from assets where drive = ? and folder = ? returning ino, born_ns", s.drive, []byte(path))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var ino, born int64
		if err := rows.Scan(&ino, &born); err != nil {
			return err
		}
		s.lost = append(s.lost, identity{uint64(ino), born})
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	if keep {
		return nil
	}
	_, err = tx.ExecContext(s.ctx, "delete from folders where drive = ? and path = ?", s.drive, []byte(path))
	return err
}

// forgetFacts takes away what is known of the content of files that have no name any more.
func (s *scan) forgetFacts() error {
	if len(s.lost) == 0 {
		return nil
	}
	return s.inTransaction(func(tx *sql.Tx) error {
		for _, id := range s.lost {
			_, err := tx.ExecContext(s.ctx, `delete from facts where drive = ?1 and ino = ?2 and born_ns = ?3
				and not exists (select 1 from assets where drive = ?1 and ino = ?2 and born_ns = ?3)`, s.drive, int64(id.number), id.birth)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// A putter stores rows in a transaction.
type putter struct {
	ctx                context.Context
	drive              string
	put, others, taken *sql.Stmt
}

func newPutter(ctx context.Context, tx *sql.Tx, drive string) (p *putter, err error) {
	p = &putter{ctx: ctx, drive: drive}
	for _, s := range []struct {
		stmt **sql.Stmt
		text string
	}{
		// A file's ctime does not go back: what another program has seen of it later stays.
		{&p.put, `insert into assets (drive, folder, name, ino, born_ns, size, mtime_ns, ctime_ns, nlink, job, type)
			values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, (select type from facts where drive = ?1 and ino = ?4 and born_ns = ?5 and size = ?6 and mtime_ns = ?7))
			on conflict do update set ino = excluded.ino, born_ns = excluded.born_ns, size = excluded.size, mtime_ns = excluded.mtime_ns,
				ctime_ns = excluded.ctime_ns, nlink = excluded.nlink, job = excluded.job, type = excluded.type
			where ctime_ns <= excluded.ctime_ns or ino <> excluded.ino or born_ns <> excluded.born_ns`},
		// What was seen of a file is so under its other names too.
		{&p.others, `update assets set size = ?4, mtime_ns = ?5, ctime_ns = ?6, nlink = ?7, job = ?8,
			type = (select type from facts where drive = ?1 and ino = ?2 and born_ns = ?3 and size = ?4 and mtime_ns = ?5)
			where drive = ?1 and ino = ?2 and born_ns = ?3 and ctime_ns <= ?6`},
		{&p.taken, "delete from assets where drive = ? and folder = ? and name = ? and ino = ? and born_ns = ?"},
	} {
		if *s.stmt, err = tx.PrepareContext(ctx, s.text); err != nil {
			p.close()
			return nil, err
		}
	}
	return p, nil
}

func (p *putter) close() {
	for _, stmt := range []*sql.Stmt{p.put, p.others, p.taken} {
		if stmt != nil {
			_ = stmt.Close()
		}
	}
}

func (p *putter) row(r *row) error {
	_, err := p.put.ExecContext(p.ctx, p.drive, []byte(r.folder), []byte(r.name), r.ino, r.born, r.size, r.mtime, r.ctime, r.nlinks, r.job)
	if err == nil && r.nlinks > 1 {
		err = p.file(r)
	}
	return err
}

// file stores what was seen of a file under all its names that are known.
func (p *putter) file(r *row) error {
	_, err := p.others.ExecContext(p.ctx, p.drive, r.ino, r.born, r.size, r.mtime, r.ctime, r.nlinks, r.job)
	return err
}

// remove takes away the row of a name that is not there any more.
func (p *putter) remove(r *row) error {
	_, err := p.taken.ExecContext(p.ctx, p.drive, []byte(r.folder), []byte(r.name), r.ino, r.born)
	return err
}

// forgetDrives takes away what is known of drives that are not there any more.
func (c *catalog) forgetDrives(ctx context.Context, there []blobstore.DriveName) error {
	return c.use(ctx, func(write, read *sql.DB) error {
		rows, err := read.QueryContext(ctx, `with recursive a(d) as (select min(drive) from folders union all select (select min(drive) from folders where drive > d) from a where d is not null),
			f(d) as (select min(drive) from facts union all select (select min(drive) from facts where drive > d) from f where d is not null)
			select d from a where d is not null union select d from f where d is not null`)
		if err != nil {
			return err
		}
		defer rows.Close()
		var lost []string
		for rows.Next() {
			var drive string
			if err := rows.Scan(&drive); err != nil {
				return err
			}
			if _, ok := slices.BinarySearch(there, blobstore.DriveName(drive)); !ok {
				lost = append(lost, drive)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		for _, drive := range lost {
			for _, table := range []string{"assets", "folders", "facts", "changed", "followed"} {
				if _, err := write.ExecContext(ctx, "delete from "+table+" where drive = ?", drive); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
