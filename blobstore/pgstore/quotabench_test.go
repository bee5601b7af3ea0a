package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
	"mediafs/blobstore/pgstore/pgtest"
)

// BenchmarkQuota is what a quota costs that is not reached: new files of 4 KiB, one after the other, and writing on in a file.
func BenchmarkQuota(b *testing.B) {
	ctx := context.Background()
	url := pgtest.NewCluster(b).URL("postgres")
	d := benchDriveAt(b, url, 64<<10)
	listing, err := d.OpenDir(ctx, blobstore.RootIno)
	if err == nil {
		err = errors.Join(listing.Read(ctx, 0, true, func(*blobstore.Entry) bool { return true }), listing.Close())
	}
	if err != nil {
		b.Fatal(err)
	}
	small, large := noise(4096, 1), noise(1<<20, 2)
	made := 0
	for _, c := range []struct {
		name  string
		bytes int64
	}{{"without", 0}, {"with", 1 << 50}, {"without again", 0}, {"with again", 1 << 50}} {
		if err := pgstore.SetQuota(ctx, url, "alice", c.bytes, c.bytes); err != nil {
			b.Fatal(err)
		}
		b.Run(c.name+"/new file", func(b *testing.B) {
			for b.Loop() {
				made++
				f, _ := benchFile(b, d, fmt.Sprint(made))
				_, err := f.WriteAt(ctx, small, 0)
				if err = errors.Join(err, f.Flush(ctx), f.Close()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+"/write", func(b *testing.B) {
			made++
			f, _ := benchFile(b, d, fmt.Sprint(made))
			b.SetBytes(int64(len(large)))
			for i := int64(0); b.Loop(); i++ {
				if _, err := f.WriteAt(ctx, large, i%256<<20); err != nil {
					b.Fatal(err)
				}
			}
			if err := errors.Join(f.Flush(ctx), f.Close()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkQuotas is the table of 10,000 drives.
func BenchmarkQuotas(b *testing.B) {
	ctx := context.Background()
	url := pgtest.NewCluster(b).URL("postgres")
	benchDriveAt(b, url, 64<<10)
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, sql := range []string{`insert into mediafs.drives (owner, chunk_size) select 'user' || i, 65536 from generate_series(1, 10000) i;
		insert into mediafs.usage (drive_id, slot) select d.drive_id, s from mediafs.drives d, generate_series(0, 7) s where d.owner is not null on conflict do nothing;
		`, "vacuum analyze mediafs.usage, mediafs.drives"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if list, err := pgstore.Quotas(ctx, url); err != nil || len(list) != 10_002 {
			b.Fatal(len(list), err)
		}
	}
}
