package pgstore_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
)

// Copies of ranges that begin and end anywhere, in files with holes and short chunks, between two files and within one, leave
// the bytes that copying in memory leaves, no chunk that is empty or past the end of its file, and the sizes that are there.
func TestCopiesOfAnyRangeAreExactAndCounted(t *testing.T) {
	const chunk = 16 << 10
	url := newStore(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{ChunkSize: chunk})
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	random := rand.New(rand.NewPCG(8, 1))
	anywhere := func(limit int) int { // at the edges of chunks as often as not
		if random.IntN(2) == 0 {
			return min(max(random.IntN(limit/chunk+1)*chunk+random.IntN(3)-1, 0), limit)
		}
		return random.IntN(limit + 1)
	}

	var files [2]blobstore.File
	var want [2][]byte
	for i, name := range []string{"a", "b"} {
		files[i], _ = create(t, d, name)
		want[i] = make([]byte, 12*chunk)
		for range 4 { // between them are holes
			data, off := noise(1+random.IntN(2*chunk), random.Uint64()), anywhere(10*chunk)
			write(t, files[i], data, int64(off))
			copy(want[i][off:], data)
		}
		write(t, files[i], []byte{1}, int64(len(want[i])))
		want[i] = append(want[i], 1)
	}
	for step := range 200 {
		from, to := random.IntN(2), random.IntN(2)
		n := 1 + anywhere(3*chunk)
		fromOff, toOff := anywhere(len(want[from])-1), anywhere(14*chunk)
		n = min(n, len(want[from])-fromOff)
		if from == to && fromOff < toOff+n && toOff < fromOff+n {
			continue
		}
		got, err := d.CopyRange(t.Context(), files[from], int64(fromOff), files[to], int64(toOff), int64(n))
		if err != nil || got != int64(n) {
			t.Fatalf("step %d: copy %d bytes from %d to %d: %d, %v", step, n, fromOff, toOff, got, err)
		}
		copied := bytes.Clone(want[from][fromOff : fromOff+n])
		if grow := toOff + n - len(want[to]); grow > 0 {
			want[to] = append(want[to], make([]byte, grow)...)
		}
		copy(want[to][toOff:], copied)
		if got := read(t, files[to], len(want[to])+1, 0); !bytes.Equal(got, want[to]) {
			t.Fatalf("step %d: after copying %d bytes from %d of %d to %d of %d, the file is not what it should be",
				step, n, fromOff, from, toOff, to)
		}
		var wrong int
		err = conn.QueryRow(t.Context(), `
			select count(*) from mediafs.nodes n
			left join (select c.blob, sum(octet_length(c.data)) as bytes, min(octet_length(c.data)) as least,
					max(c.idx::bigint * $1 + octet_length(c.data)) as ends
				from mediafs.chunks c group by c.blob) c using (blob)
			where n.mode & 61440 = 32768
				and (n.allocated <> coalesce(c.bytes, 0) or c.least = 0 or c.ends > n.size
					or (select sum(u.bytes) from mediafs.usage u where u.drive_id = n.drive_id)
						<> (select sum(o.allocated) from mediafs.nodes o where o.drive_id = n.drive_id))`, chunk).Scan(&wrong)
		if err != nil || wrong > 0 {
			t.Fatalf("step %d: after copying %d bytes from %d to %d, %d files are not as the tables say, %v", step, n, fromOff, toOff, wrong, err)
		}
	}
}
