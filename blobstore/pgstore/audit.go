package pgstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"mediafs/auth"
	"mediafs/blobstore"
)

// register has the database note who opened the drive, while the session is good: that is whom the log names from then on.
func (d *Drive) register(ctx context.Context) error {
	return d.run(ctx, "register", attaching, statement{
		sql:  "select mediafs.attach($1, $2, $3, $4)",
		args: []any{d.id, d.mount, d.key[:], d.store.host},
	})
}

func (d *Drive) startRecording() {
	d.recorder = blobstore.NewRecorder(d.log, d.record)
	d.recordNow(blobstore.ActionMount)
}

// endRecording stores what is recorded. It gives a database that is away little time: the user's data is safe by now, or lost.
func (d *Drive) endRecording(ctx context.Context) (answered bool) {
	d.recordNow(blobstore.ActionUnmount)
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := d.recorder.Close(ctx); err != nil {
		d.log.Warn("what was done last is not in the audit log", "error", err)
		return false
	}
	return true
}

func (d *Drive) recordNow(action blobstore.Action) {
	d.Record(blobstore.Event{Time: time.Now(), Action: action, Count: 1, Result: blobstore.ResultOK})
}

// Record implements blobstore.Audit.
func (d *Drive) Record(event blobstore.Event) { d.recorder.Record(event) }

// record stores a batch in one round trip. It waits for the disk, for nobody waits for it.
func (d *Drive) record(ctx context.Context, batch blobstore.Batch) error {
	n := len(batch.Events)
	at, ino, bytes, uid := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	action, result := make([]string, n), make([]string, n)
	path, newPath := make([][]byte, n), make([][]byte, n)
	count := make([]int32, n)
	for i := range batch.Events {
		e := &batch.Events[i]
		at[i], ino[i], bytes[i], uid[i] = e.Time.UnixNano(), int64(e.Ino), e.Bytes, int64(e.UID)
		action[i], result[i] = string(e.Action), e.Result
		path[i], newPath[i] = []byte(e.Path), []byte(e.NewPath)
		count[i] = int32(min(e.Count, math.MaxInt32))
	}
	add := func() error {
		return d.run(ctx, "record", durably, statement{
			sql:  "select mediafs.record($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
			args: []any{d.id, d.mount, d.key[:], batch.First, at, action, ino, path, newPath, bytes, count, uid, result},
		})
	}
	err := add()
	if errors.Is(err, blobstore.ErrNotExist) { // it said nothing for so long that it was forgotten
		if err = d.register(ctx); err == nil {
			err = add()
		}
	}
	return err
}

// auditPage is how many records are read at a time.
const auditPage = 1000

// auditColumns are what auditReader.scan reads.
const auditColumns = "l.at_ns, l.drive_id, l.mount_id, l.seq, coalesce(d.owner, 'public'), l.user_id, l.host, l.action, l.ino, l.path, l.new_path, l.bytes, l.count, l.uid, l.result"

// AuditLog implements blobstore.Store. The database checks the token with every page.
func (s *Store) AuditLog(ctx context.Context, session auth.Session, query blobstore.AuditQuery, take func(*blobstore.AuditRecord) bool) error {
	if err := session.Check(time.Now()); err != nil {
		return fmt.Errorf("pgstore: audit log: %w", err)
	}
	if session.Role == auth.RoleGuest {
		return fmt.Errorf("pgstore: audit log: %w", blobstore.ErrAccess)
	}
	return readAudit(ctx, s.pool, `select `+auditColumns+`
		from mediafs.audit_log($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) p, lateral (select (p.o_row).*) l, lateral (select p.o_drive owner) d`,
		session.Token.Reveal(), query, take)
}

// AuditLog reads the log of all drives with an administrator's login: one that may act as mediafs_owner (ErrPrivilege). The errors of
// Open apply. take is called as by blobstore.Store.AuditLog.
func AuditLog(ctx context.Context, url string, query blobstore.AuditQuery, take func(*blobstore.AuditRecord) bool) error {
	conn, err := connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := checkSchema(ctx, conn); err != nil {
		return connectError(err)
	}
	if _, err := conn.Exec(ctx, "set role mediafs_owner"); err != nil {
		return fmt.Errorf("%w: the log of all drives needs an administrator's login, one that may act as mediafs_owner", ErrPrivilege)
	}
	return readAudit(ctx, conn, `select `+auditColumns+`
		from mediafs.audit_page(nullif($1::integer, 0), $2, $3, $4, $5, $6, $7, $8, $9, $10) l join mediafs.drives d using (drive_id)
		order by l.at_ns, l.drive_id, l.mount_id, l.seq`, 0, query, take)
}

// querier is a connection or a pool of them.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// readAudit reads page after page with a statement whose first parameter is who.
func readAudit(ctx context.Context, db querier, sql string, who any, query blobstore.AuditQuery, take func(*blobstore.AuditRecord) bool) error {
	var user *string
	var path, below []byte
	if query.User != "" {
		user = (*string)(&query.User)
	}
	if query.Path != "" {
		path, below = []byte(query.Path), []byte(query.Path+"/")
	}
	if query.Path == "/" {
		below = []byte{} // whatever has a path is in the root
	}
	after := auditKey{at: math.MinInt64}
	if !query.Since.IsZero() {
		after.at = query.Since.UnixNano()
	}
	for more := true; more; {
		rows, err := db.Query(ctx, sql, who, user, path, below, query.Denied, after.at, after.drive, after.mount, after.seq, auditPage)
		if err != nil {
			return translate(ctx, "audit log", err)
		}
		n := 0
		for more && rows.Next() {
			var r blobstore.AuditRecord
			if after, err = scanAudit(rows, &r); err != nil {
				rows.Close()
				return translate(ctx, "audit log", err)
			}
			n++
			more = take(&r)
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return translate(ctx, "audit log", err)
		}
		more = more && n == auditPage
	}
	return nil
}

// auditKey is where a record stands in the log. The zero drive and mount are before all others.
type auditKey struct {
	at    int64
	drive int32
	mount [16]byte
	seq   int64
}

// scanAudit reads auditColumns.
func scanAudit(rows pgx.Rows, r *blobstore.AuditRecord) (key auditKey, err error) {
	var owner, user, action string
	var ino, uid int64
	var path, newPath []byte
	var count int32
	err = rows.Scan(&key.at, &key.drive, &key.mount, &key.seq, &owner, &user, &r.Host, &action, &ino, &path, &newPath, &r.Bytes, &count, &uid, &r.Result)
	r.Time, r.Drive, r.User, r.Action = time.Unix(0, key.at), blobstore.DriveName(owner), auth.UserID(user), blobstore.Action(action)
	r.Ino, r.UID, r.Count = blobstore.Ino(ino), uint32(uid), int(count)
	r.Path, r.NewPath = string(path), string(newPath)
	m := key.mount
	r.Mount = fmt.Sprintf("%x-%x-%x-%x-%x", m[:4], m[4:6], m[6:8], m[8:10], m[10:])
	return key, err
}
