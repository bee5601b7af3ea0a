package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
	"mediafs/blobstore/pgstore/pgtest"
)

// notOfAnOperation are the round trips (pgtest.RoundTrip.Name) that no operation waits for, or only the first on a connection: making a
// connection and preparing a statement on it, asking one that was idle whether it lives, asking for other mounts, taking 4,096 numbers, and what the drive does in
// the background.
var notOfAnOperation = []string{
	"do", "select", "set", "prepare", "--", "update drives",
	"select hold", "select mounts usage drives", "select record", "select removable", "select collect", "select usage drives", "update nodes",
}

// What each operation of a drive costs, whatever goes on in the background: the rows are the numbers to change when it costs less. A mount that is the sole one
// of its drive pays for less.
func TestWhatAnOperationCosts(t *testing.T) {
	t.Run("alone", func(t *testing.T) { costs(t, true) })
	t.Run("one of two mounts", func(t *testing.T) { costs(t, false) })
}

func costs(t *testing.T, alone bool) {
	pgstore.MakeWithin(t, time.Hour)
	pgstore.DescribeLater(t)
	url := newStore(t)
	session := signIn(t, url, "alice")
	if !alone {
		attach(t, url, session, pgstore.Options{})
	}
	tap, address := pgtest.NewTap(t, url)
	d := attach(t, address, session, pgstore.Options{})
	if alone {
		d.HoldSole()
	}
	ctx := t.Context()
	const big = 4 << 20

	note, noteIno := create(t, d, "note")
	video, videoIno := create(t, d, "video")
	write(t, video, noise(big, 1), 0)
	list, err := d.Make(ctx, blobstore.RootIno, "list", blobstore.NewNode{Mode: unix.S_IFDIR | 0o755})
	ok(t, err)
	for i := range 1000 {
		_, err := d.Make(ctx, list.Ino, fmt.Sprint(i), blobstore.NewNode{Mode: unix.S_IFREG | 0o644})
		ok(t, err)
	}
	ok(t, video.Flush(ctx))
	ok(t, video.Close())
	inOrder, err := d.Open(ctx, videoIno, blobstore.OpenRead)
	ok(t, err)
	var copied, read4K blobstore.File

	for _, row := range []struct {
		operation string
		trips     int   // what it costs one of two mounts
		alone     int   // and a mount that is alone
		bytes     int64 // both ways, at most; 0: not looked at
		do        func(ctx context.Context) error
	}{
		{"write", 0, 0, 0, func(ctx context.Context) error { _, err := note.WriteAt(ctx, noise(4096, 1), 0); return err }},
		{"close of a small new file", 1, 1, 4096 + 2048, note.Flush},
		{"close of what is stored", 0, 0, 0, func(context.Context) error { return note.Close() }},
		{"lookup", 1, 0, 0, func(ctx context.Context) error { _, err := d.Lookup(ctx, blobstore.RootIno, "note"); return err }},
		{"getattr", 1, 0, 0, func(ctx context.Context) error { _, err := d.Attr(ctx, noteIno); return err }},
		{"mkdir", 1, 1, 0, func(ctx context.Context) error {
			_, err := d.Make(ctx, blobstore.RootIno, "dir", blobstore.NewNode{Mode: unix.S_IFDIR | 0o755})
			return err
		}},
		// The kernel asks for all three.
		{"getattr of a folder, lookup of a free name, and create", 3, 2, 0, func(ctx context.Context) error {
			if _, err := d.Attr(ctx, blobstore.RootIno); err != nil {
				return err
			}
			if _, err := d.Lookup(ctx, blobstore.RootIno, "copy"); !errors.Is(err, blobstore.ErrNotExist) {
				return err
			}
			var err error
			copied, _, _, err = d.Create(ctx, blobstore.RootIno, "copy", blobstore.NewNode{Mode: 0o644}, writable)
			return err
		}},
		{"fsync of what was just made", 1, 1, 0, func(ctx context.Context) error { return copied.Sync(ctx) }},
		{"symlink", 1, 1, 0, func(ctx context.Context) error {
			_, err := d.Make(ctx, blobstore.RootIno, "symlink", blobstore.NewNode{Mode: unix.S_IFLNK | 0o777, Target: "note"})
			return err
		}},
		{"link", 1, 1, 0, func(ctx context.Context) error { _, err := d.Link(ctx, noteIno, blobstore.RootIno, "link"); return err }},
		{"rename", 1, 1, 0, func(ctx context.Context) error {
			return d.Rename(ctx, blobstore.Rename{Parent: blobstore.RootIno, Name: "link", NewParent: blobstore.RootIno, NewName: "other"})
		}},
		{"unlink", 1, 1, 0, func(ctx context.Context) error { return d.Unlink(ctx, blobstore.RootIno, "other") }},
		{"rmdir", 1, 1, 0, func(ctx context.Context) error { return d.Rmdir(ctx, blobstore.RootIno, "dir") }},
		{"setattr", 1, 1, 0, func(ctx context.Context) error {
			_, err := d.SetAttr(ctx, noteIno, blobstore.AttrChange{Set: blobstore.SetSize, Size: 10})
			return err
		}},
		{"open of a large file", 1, 1, 2048, func(ctx context.Context) error {
			var err error
			read4K, err = d.Open(ctx, videoIno, blobstore.OpenRead)
			return err
		}},
		{"random read of 4 KiB", 1, 1, 4096 + 2048, func(ctx context.Context) error {
			_, err := read4K.ReadAt(ctx, make([]byte, 4096), 3<<20+4096)
			return err
		}},
		{"copy_file_range", 1, 1, 4096, func(ctx context.Context) error { _, err := d.CopyRange(ctx, read4K, 0, copied, 0, big); return err }},
		{"sequential read of 4 MiB", big >> 20, big >> 20, 0, func(ctx context.Context) error {
			p := make([]byte, 128<<10)
			for off := int64(0); off < big; off += int64(len(p)) {
				if _, err := inOrder.ReadAt(ctx, p, off); err != nil {
					return err
				}
			}
			return inOrder.Close()
		}},
		// The first page is short, for most folders are.
		{"listing 1,000 entries", 2, 2, 0, func(ctx context.Context) error {
			l, err := d.OpenDir(ctx, list.Ino)
			if err != nil {
				return err
			}
			return l.Read(ctx, 0, true, func(*blobstore.Entry) bool { return true })
		}},
	} {
		var trips []pgtest.RoundTrip
		var names []string
		var bytes int64
		for _, trip := range tap.During(func() { ok(t, row.do(ctx)) }) {
			if slices.Contains(notOfAnOperation, trip.Name()) {
				continue
			}
			trips = append(trips, trip)
			names = append(names, trip.Name())
			bytes += trip.Sent + trip.Received
		}
		want := row.trips
		if alone {
			want = row.alone
		}
		if len(trips) != want {
			t.Errorf("%s: %d round trips, want %d: %q", row.operation, len(trips), want, names)
		}
		if row.bytes > 0 && bytes > row.bytes {
			t.Errorf("%s: %d bytes, want %d at most", row.operation, bytes, row.bytes)
		}
	}
	ok(t, copied.Close())
	ok(t, read4K.Close())
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
