package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
	"mediafs/blobstore/pgstore/pgtest"
)

// openDrives is how many drives of a world are used at a time, as many in a large one as in a small one.
const openDrives = 10

// A world is a database of one size, and what is open of it.
type world struct {
	axis   axis
	size   size
	url    string
	admin  *pgx.Conn
	store  *pgstore.Store
	drives []place
	made   []made // and not removed yet
	moved  int    // how often a file was moved
}

// A place is a drive that is open, and where its numbers begin.
type place struct {
	blobstore.Drive
	first int64 // of the folders; the files' come after them
}

// albums are the folders of a drive, each with size.album files.
func (w *world) albums() int {
	files := w.size.files
	if w.axis.many {
		files /= 2
	}
	return files / w.size.album
}

// manyFiles are those of the one large folder.
func (w *world) manyFiles() int { return w.size.files - w.albums()*w.size.album }

// The numbers of what was filled in: the albums, the large folder, the files of the albums, those of the large folder.
func (w *world) album(p place, i int) blobstore.Ino { return blobstore.Ino(p.first + int64(i)) }
func (w *world) manyFolder(p place) blobstore.Ino   { return blobstore.Ino(p.first + int64(w.albums())) }
func (w *world) file(p place, i int) blobstore.Ino {
	return blobstore.Ino(p.first + int64(w.albums()) + 1 + int64(i))
}

// fileName is what file number i is called; fill says the same in SQL.
func fileName(i int) string { return fmt.Sprintf("IMG_%07d.jpg", i) }

// newWorld makes a database with drives that are empty, and opens some.
func newWorld(ctx context.Context, cluster *pgtest.Cluster, a axis, s size) (w *world, err error) {
	w = &world{axis: a, size: s}
	server, err := pgx.Connect(ctx, cluster.URL("postgres"))
	if err != nil {
		return nil, err
	}
	defer server.Close(context.WithoutCancel(ctx))
	name := fmt.Sprintf("growth_%d", s.n)
	if _, err := server.Exec(ctx, "create database "+name); err != nil {
		return nil, err
	}
	w.url = cluster.URL(name)
	if _, err := pgstore.Init(ctx, w.url); err != nil {
		return nil, err
	}
	if w.admin, err = pgx.Connect(ctx, w.url); err != nil {
		return nil, err
	}
	// What mediafs.open_drive does, for all at once.
	_, err = w.admin.Exec(ctx, fmt.Sprintf(`
		with d as (insert into mediafs.drives (owner, chunk_size) select 'user' || i, %d from generate_series(1, %d) i returning drive_id, owner),
		a as (insert into mediafs.accounts (user_id, role, token_hash, drive_id) select owner, 'user', sha256(('mfs_' || owner)::bytea), drive_id from d),
		u as (insert into mediafs.usage (drive_id, slot) select drive_id, s from d, generate_series(0, 7) s)
		insert into mediafs.nodes (drive_id, ino, parent, mode, nlink, uid, gid, atime_ns, mtime_ns, ctime_ns)
			select drive_id, 1, 1, 16384 + 448, 2, 0, 0, 0, 0, 0 from d`, chunkSize, s.drives))
	if err != nil {
		return nil, errors.Join(err, w.close(ctx))
	}
	if err := w.openStore(ctx); err != nil {
		return nil, errors.Join(err, w.close(ctx))
	}
	return w, nil
}

// fill puts the files into all drives. It is what a mount that copies them in would have left, and the open drives do not notice.
func (w *world) fill(ctx context.Context) error {
	tx, err := w.admin.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	taken := w.albums() + 1 + w.size.files
	// How much is in a chunk.
	bytes := fmt.Sprint(smallBytes)
	if w.size.chunks > 1 {
		bytes = fmt.Sprintf("case when idx %% %d = 0 then %d else %d end", fullEvery, chunkSize, chunkBytes)
	}
	statements := []string{
		fmt.Sprintf(`create temp table filled on commit drop as
			with taken as (update mediafs.drives set next_ino = next_ino + %d where owner is not null returning drive_id, next_ino)
			select drive_id, next_ino - %[1]d as first from taken`, taken),
		fmt.Sprintf(`create temp table folders on commit drop as
			select drive_id, first + i as ino, case when i = %d then 'many' else 'album' || to_char(i, 'FM00000') end as name
			from filled, generate_series(0, %[1]d) i`, w.albums()),
		fmt.Sprintf(`create temp table files on commit drop as
			select drive_id, first + %[1]d + 1 + i as ino, first + least(i / %[2]d, %[1]d) as parent, 'IMG_' || to_char(i, 'FM0000000') || '.jpg' as name
			from filled, generate_series(0, %[3]d - 1) i`, w.albums(), w.size.album, w.size.files),
		`insert into mediafs.nodes (drive_id, ino, parent, mode, nlink, uid, gid, atime_ns, mtime_ns, ctime_ns)
			select drive_id, ino, 1, 16384 + 493, 2, 0, 0, 1, 1, 1 from folders`,
		`insert into mediafs.entries (drive_id, parent, position, ino, name) select drive_id, 1, ino, ino, name::bytea from folders`,
		fmt.Sprintf(`insert into mediafs.nodes (drive_id, ino, blob, size, allocated, mode, nlink, uid, gid, atime_ns, mtime_ns, ctime_ns)
			select drive_id, ino, ino, %d, (select sum(%s) from generate_series(0, %d) idx), 32768 + 420, 1, 0, 0, 2, 1, 1 from files`,
			w.fileBytes(), bytes, w.size.chunks-1),
		`insert into mediafs.entries (drive_id, parent, position, ino, name) select drive_id, parent, ino, ino, name::bytea from files`,
		fmt.Sprintf(`insert into mediafs.chunks (drive_id, blob, idx, data)
			select drive_id, ino, idx, convert_to(left(repeat(md5((ino + idx)::text), n / 32 + 1), n), 'UTF8')
			from files, generate_series(0, %[2]d) idx, lateral (select %[1]s as n) of_chunk`,
			bytes, w.size.chunks-1),
		fmt.Sprintf(`update mediafs.usage u set nodes = %d, bytes = 0 from filled f where u.drive_id = f.drive_id and u.slot = 0`, taken),
	}
	for _, sql := range statements {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%w in %s", err, sql)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	// The server would write all that in the background, while the first sizes are measured.
	_, err = w.admin.Exec(ctx, "checkpoint")
	return err
}

// fileBytes is how large a file is.
func (w *world) fileBytes() int {
	if w.size.chunks == 1 {
		return smallBytes
	}
	return w.size.chunks * chunkSize
}

// openStore opens the store, and some of the drives.
func (w *world) openStore(ctx context.Context) (err error) {
	if w.store, err = pgstore.Open(ctx, w.url, pgstore.Options{Connections: 2}); err != nil {
		return err
	}
	for i := range min(openDrives, w.size.drives) {
		number := 1 + i*(w.size.drives/openDrives)
		drive, err := w.openDrive(ctx, number)
		if err != nil {
			return err
		}
		w.drives = append(w.drives, place{Drive: drive})
	}
	return w.accompany(ctx)
}

// accompany has each open drive be mounted a second time, as far as its mount can tell: what it answers from memory when it is alone would be measured
// instead of the database.
func (w *world) accompany(ctx context.Context) error {
	var numbers []int32
	for _, p := range w.drives {
		numbers = append(numbers, int32(p.ID()))
	}
	_, err := w.admin.Exec(ctx, `insert into mediafs.mounts (drive_id, mount_id, host, seen_at)
		select d, gen_random_uuid(), 'a companion', now() + interval '1 day' from unnest($1::int[]) d`, numbers)
	return err
}

func (w *world) openDrive(ctx context.Context, number int) (blobstore.Drive, error) {
	user := fmt.Sprintf("user%d", number)
	token, err := auth.ParseToken("mfs_" + user)
	if err != nil {
		return nil, err
	}
	return w.store.Open(ctx, auth.Session{User: auth.UserID(user), Role: auth.RoleUser, Token: token})
}

// locate finds where the numbers of the open drives begin.
func (w *world) locate(ctx context.Context) error {
	for i := range w.drives {
		p := &w.drives[i]
		name := "album00000"
		attr, err := p.Lookup(ctx, blobstore.RootIno, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		p.first = int64(attr.Ino)
	}
	return nil
}

// reopen opens the store again, so that its connections have no plans.
func (w *world) reopen(ctx context.Context) error {
	if err := w.closeStore(ctx); err != nil {
		return err
	}
	if err := w.openStore(ctx); err != nil {
		return err
	}
	return w.locate(ctx)
}

func (w *world) closeStore(ctx context.Context) error {
	if w.store == nil {
		return nil
	}
	var errs []error
	for _, p := range w.drives {
		errs = append(errs, p.Close(ctx))
	}
	w.drives = nil
	_, err := w.admin.Exec(ctx, "delete from mediafs.mounts where host = 'a companion'")
	errs = append(errs, err, w.store.Close())
	w.store = nil
	return errors.Join(errs...)
}

// close lets go of the database and takes it away.
func (w *world) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err := w.closeStore(ctx)
	return errors.Join(err, w.admin.Close(ctx))
}

// drive is one of the open drives.
func (w *world) drive(r *rand.Rand) place { return w.drives[r.IntN(len(w.drives))] }
