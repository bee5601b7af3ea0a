package pgstore

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore"
	"mediafs/blobstore/describe"
)

// What the content of files says is found in the background, one file after the other, once it has been quiet for a moment: closing a file waits for
// none of it. Which files are to be described the database knows (mediafs.nodes.described), so nothing is forgotten when a mount dies, and what an application
// stores by SQL is described too. A mount describes at once what it has stored itself, and what nobody has described after a while.
// Each question to the database has a deadline of its own, so that a file of any size is read to its end.
const (
	describeGrace = 10 * time.Second // how long what others have stored is left to them
	describeBatch = 64               // files that are asked for at a time
	describeOwn   = 4096             // files that are remembered as stored here
	describePart  = 16               // chunks that are read at a time
)

// Tests change these.
var (
	describeQuiet = 100 * time.Millisecond // how long no file was stored before files are described
	describeMost  = 5 * time.Second        // how long that is waited for
	describeEvery = 5 * time.Second        // how often what others have left is looked for
)

// describing is what the mount knows of files to be described.
type describing struct {
	soon chan struct{} // says that there are some in own

	mu  sync.Mutex // guards the rest
	own map[blobstore.Ino]struct{}
}

// describeSoon has a file described that was stored here. Of more than are remembered the others are found after a while.
func (d *Drive) describeSoon(ino blobstore.Ino) {
	if d.guest {
		return
	}
	d.describing.mu.Lock()
	if d.describing.own == nil {
		d.describing.own = make(map[blobstore.Ino]struct{})
	}
	if len(d.describing.own) < describeOwn {
		d.describing.own[ino] = struct{}{}
	}
	d.describing.mu.Unlock()
	select {
	case d.describing.soon <- struct{}{}:
	default:
	}
}

// takeOwn takes some of the files that were stored here.
func (d *Drive) takeOwn() []int64 {
	d.describing.mu.Lock()
	defer d.describing.mu.Unlock()
	var inos []int64
	for ino := range d.describing.own {
		if len(inos) == describeBatch {
			break
		}
		inos = append(inos, int64(ino))
		delete(d.describing.own, ino)
	}
	return inos
}

// describeFiles is the drive's background that describes files.
func (d *Drive) describeFiles() {
	ticker := time.NewTicker(describeEvery)
	defer ticker.Stop()
	for {
		select {
		case <-d.life.Done():
			return
		case <-d.describing.soon:
			d.waitForQuiet()
			for inos := d.takeOwn(); len(inos) > 0 && d.life.Err() == nil; inos = d.takeOwn() {
				d.describedAll(d.describeOwnFiles(inos))
			}
		case <-ticker.C:
			d.describedAll(d.describeLeft())
		}
	}
}

// describedAll reports why files were not described. What was not is found again after a while.
func (d *Drive) describedAll(err error) {
	if err != nil && d.life.Err() == nil && !isSessionEnd(err) {
		d.log.Warn("could not describe files; trying again later", "error", err)
	}
}

// waitForQuiet returns when no file has been stored for a moment.
func (d *Drive) waitForQuiet() {
	end := time.Now().Add(describeMost)
	for time.Now().Before(end) {
		select {
		case <-d.life.Done():
			return
		case <-d.describing.soon:
		case <-time.After(describeQuiet):
			return
		}
	}
}

// A subject is a file that is to be described.
type subject struct {
	ino, blob, size, created, ctime int64
	head                            []byte // the content, if that is one chunk
}

const selectSubjects = `select n.ino, n.blob, n.size, n.created_ns, n.ctime_ns, case when n.size between 1 and $2 then
		(select c.data from mediafs.chunks c where c.drive_id = $1 and c.blob = n.blob and c.idx = 0) end
	from mediafs.nodes n where n.drive_id = $1 and not n.described and n.mode & 61440 = 32768 and n.nlink > 0 `

func (d *Drive) subjects(condition string, args ...any) (list []subject, err error) {
	ctx, cancel := context.WithTimeout(d.life, attemptLimit)
	defer cancel()
	err = d.run(ctx, "describe", reading, statement{
		sql:  selectSubjects + condition,
		args: append([]any{d.id, d.chunk}, args...),
		each: func(r pgx.Rows) error {
			var s subject
			if err := r.Scan(&s.ino, &s.blob, &s.size, &s.created, &s.ctime, &s.head); err != nil {
				return err
			}
			list = append(list, s)
			return nil
		},
	})
	return list, err
}

// describeOwnFiles describes files that were stored here.
func (d *Drive) describeOwnFiles(inos []int64) error {
	list, err := d.subjects("and n.ino = any ($3)", inos)
	if err != nil {
		return err
	}
	return d.describeAll(list)
}

// describeLeft describes what has been waiting for a while, the oldest first. It goes on from time to time, so a file that can't be described now keeps none of
// the others from being.
func (d *Drive) describeLeft() error {
	before := time.Now().Add(-describeGrace).UnixNano()
	var created, ino int64 = -1 << 63, 0
	for {
		list, err := d.subjects("and n.ctime_ns < $3 and (n.created_ns, n.ino) > ($4, $5) order by n.created_ns, n.ino limit $6", before, created, ino, describeBatch)
		if err != nil || len(list) == 0 {
			return err
		}
		last := list[len(list)-1]
		created, ino = last.created, last.ino
		if err := d.describeAll(list); err != nil {
			return err
		}
	}
}

// describeAll describes files and stores what they say in one round trip. Those that are being written here come again when they are stored, and those that
// change meanwhile are not taken for described.
func (d *Drive) describeAll(list []subject) error {
	var inos, blobs, ctimes []int64
	var kinds []string
	var sums [][]byte
	var widths, heights []*int32
	var takens []*int64
	for _, s := range list {
		if d.peek(blobstore.Ino(s.ino)).isPending() {
			continue
		}
		found, err := describe.Read(d.life, &chunkReader{drive: d, subject: s}, s.size)
		if err != nil {
			return err
		}
		inos, blobs, ctimes = append(inos, s.ino), append(blobs, s.blob), append(ctimes, s.ctime)
		kinds, sums = append(kinds, found.Type), append(sums, found.SHA256)
		var width, height *int32
		if found.Width > 0 && found.Height > 0 {
			w, h := int32(min(found.Width, 1<<31-1)), int32(min(found.Height, 1<<31-1))
			width, height = &w, &h
		}
		var taken *int64
		if !found.Taken.IsZero() {
			ns := found.Taken.UnixNano()
			taken = &ns
		}
		widths, heights, takens = append(widths, width), append(heights, height), append(takens, taken)
	}
	if len(inos) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(d.life, attemptLimit)
	defer cancel()
	return d.run(ctx, "describe", repeating, statement{
		sql:  "select mediafs.describe($1, $2, $3, $4, $5, $6, $7, $8, $9)",
		args: []any{d.id, inos, blobs, ctimes, kinds, sums, widths, heights, takens},
	})
}

// A chunkReader reads the content of a file as the database has it, some chunks at a time, as long as the drive lives. It is for one goroutine.
type chunkReader struct {
	drive   *Drive
	subject subject
	part    []byte
	at      int64 // where part begins
}

// ReadAt implements io.ReaderAt.
func (r *chunkReader) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off+int64(n) < r.subject.size {
		at := off + int64(n)
		if at < r.at || at >= r.at+int64(len(r.part)) {
			if err := r.read(at); err != nil {
				return n, err
			}
		}
		n += copy(p[n:], r.part[at-r.at:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// read reads the part that a byte is in. What is missing is zero.
func (r *chunkReader) read(at int64) error {
	chunk := r.drive.chunk
	first := at / chunk / describePart * describePart
	r.at = first * chunk
	length := min(r.subject.size-r.at, describePart*chunk)
	if int64(cap(r.part)) < length {
		r.part = make([]byte, length)
	}
	r.part = r.part[:length]
	clear(r.part)
	if r.subject.head != nil {
		copy(r.part, r.subject.head)
		return nil
	}
	ctx, cancel := context.WithTimeout(r.drive.life, attemptLimit)
	defer cancel()
	return r.drive.run(ctx, "describe", reading, statement{
		sql:  "select c.idx, c.data from mediafs.chunks c where c.drive_id = $1 and c.blob = $2 and c.idx between $3 and $4",
		args: []any{r.drive.id, r.subject.blob, int32(first), int32((r.at + length - 1) / chunk)},
		each: func(rows pgx.Rows) error {
			var idx int32
			var data []byte
			if err := rows.Scan(&idx, &data); err != nil {
				return err
			}
			copy(r.part[(int64(idx)-first)*chunk:], data)
			return nil
		},
	})
}
