package storetest

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
)

var quotaTests = []test{
	{"an admin sets quotas and sees all, a user sees their own", func(w *world) {
		w.openDrive("bob")
		quotas := w.quotas()
		for who, session := range map[string]auth.Session{"a user": w.Session("alice"), "a guest": auth.Guest()} {
			w.gives(quotas.SetQuota(w.ctx, session, "alice", 1, 1), blobstore.ErrAccess, "set a quota as %s", who)
		}
		w.gives(quotas.SetQuota(w.ctx, auth.Session{}, "alice", 1, 1), auth.ErrInvalid, "set a quota as nobody")
		w.gives(quotas.SetQuota(w.ctx, w.Admin(), "nobody", 1, 1), blobstore.ErrNotExist, "set the quota of no drive")
		w.gives(quotas.SetQuota(w.ctx, w.Admin(), "../alice", 1, 1), blobstore.ErrNotExist, "set the quota of no drive")
		w.gives(quotas.SetQuota(w.ctx, w.Admin(), "alice", -2, 1), blobstore.ErrInvalid, "set a quota below 0")
		w.gives(quotas.SetQuota(w.ctx, w.Admin(), "alice", 1, -2), blobstore.ErrInvalid, "set a quota below 0")
		_, err := quotas.Quotas(w.ctx, auth.Guest())
		w.gives(err, blobstore.ErrAccess, "list quotas as a guest")

		w.limit("alice", 5*w.Hole, 20)
		w.ok(quotas.SetQuota(w.ctx, w.Admin(), "alice", 10*w.Hole, blobstore.KeepLimit), "set one limit")
		w.ok(quotas.SetQuota(w.ctx, w.Admin(), "bob", blobstore.KeepLimit, 0), "leave no limit as it is")
		w.limited(10*w.Hole, 20)
		w.mkfile(root, "a", strings.Repeat("a", int(w.Hole)))
		w.mkdir(root, "folder")
		want := blobstore.Quota{Drive: "alice", Owner: "alice", MaxBytes: 10 * w.Hole, MaxFiles: 20, UsedBytes: w.Hole, UsedFiles: 2}
		all, err := quotas.Quotas(w.ctx, w.Admin())
		w.ok(err, "list quotas")
		var names []string
		for _, q := range all {
			if string(q.Drive) != string(w.Admin().User) {
				names = append(names, string(q.Drive))
			}
			if q.Drive == "alice" && q != want {
				w.Errorf("got %+v, want %+v", q, want)
			}
			if q.Drive == blobstore.PublicDrive && q.Owner != "" || q.Drive != "alice" && q.MaxBytes+q.MaxFiles != 0 {
				w.Errorf("got %+v", q)
			}
		}
		if !slices.Equal(names, []string{"alice", "bob", "public"}) {
			w.Errorf("got the quotas of %q", names)
		}
		own, err := quotas.Quotas(w.ctx, w.Session("alice"))
		if err != nil || !slices.Equal(own, []blobstore.Quota{want}) {
			w.Errorf("alice sees %+v, %v", own, err)
		}
		w.limit("alice", 0, 0)
		w.mkfile(root, "much", strings.Repeat("m", int(20*w.Hole)))
	}},
	{"what does not fit is refused when it is written, and what was written is there", func(w *world) {
		w.limit("alice", 4*w.Hole, 0)
		f, ino := w.create(root, "a")
		written := w.fill(f, 0)
		if written != 4*w.Hole {
			w.Errorf("wrote %d bytes before the quota, want %d", written, 4*w.Hole)
		}
		w.ok(f.Flush(w.ctx), "flush")
		w.same(w.content(f), strings.Repeat("x", int(written)), "content")
		w.uses(4*w.Hole, 1)
		u, err := w.drive.Usage(w.ctx)
		w.ok(err, "usage")
		if u.TotalBytes != 4*w.Hole {
			w.Errorf("got usage %+v", u)
		}

		w.write(f, 1, strings.Repeat("y", int(2*w.Hole))) // nothing more
		w.truncate(ino, 100*w.Hole)                       // a hole
		_, err = f.WriteAt(w.ctx, []byte("z"), 50*w.Hole)
		w.gives(err, blobstore.ErrQuota, "write into the hole")
		w.close(f)
		w.same(w.cat(ino)[:4*w.Hole], "x"+strings.Repeat("y", int(2*w.Hole))+strings.Repeat("x", int(2*w.Hole)-1), "content")

		w.truncate(ino, 2*w.Hole)
		w.uses(2*w.Hole, 1)
		b, _ := w.create(root, "b")
		if got := w.fill(b, 0); got != 2*w.Hole {
			w.Errorf("after cutting a half: wrote %d bytes, want %d", got, 2*w.Hole)
		}
		w.close(b)
		w.unlink(root, "a")
		w.uses(2*w.Hole, 1)
		c, _ := w.create(root, "c")
		if got := w.fill(c, 0); got != 2*w.Hole {
			w.Errorf("after removing a half: wrote %d bytes, want %d", got, 2*w.Hole)
		}
		w.close(c)
		w.uses(4*w.Hole, 2)
	}},
	{"no more files are made than fit, and a second name is no file", func(w *world) {
		ino := w.mkfile(root, "a", "")
		w.limit("alice", 0, 3)
		w.mkdir(root, "folder")
		w.symlink(root, "symlink", "a")
		node := w.newNode(unix.S_IFDIR | 0o755)
		full := func() {
			w.Helper()
			_, _, _, err := w.drive.Create(w.ctx, root, "more", w.newNode(unix.S_IFREG|0o644), readWrite)
			w.gives(err, blobstore.ErrQuota, "create")
			_, err = w.drive.Make(w.ctx, root, "more", node)
			w.gives(err, blobstore.ErrQuota, "mkdir")
			link := w.newNode(unix.S_IFLNK | 0o777)
			link.Target = "a"
			_, err = w.drive.Make(w.ctx, root, "more", link)
			w.gives(err, blobstore.ErrQuota, "symlink")
			w.missing(root, "more")
			w.uses(0, 3)
		}
		full()
		w.link(ino, root, "link")
		w.ok(w.rename(root, "symlink", root, "renamed", blobstore.RenameReplace), "rename")
		full()
		w.unlink(root, "link")
		full()
		w.rmdir(root, "folder")
		w.mkfile(root, "b", "")
		full()
		w.ok(w.rename(root, "b", root, "a", blobstore.RenameReplace), "rename over another")
		w.mkfile(root, "c", "")
		full()
		u, err := w.drive.Usage(w.ctx)
		if err != nil || u.TotalFiles != 3 {
			w.Errorf("got usage %+v, %v", u, err)
		}
	}},
	{"a drive that holds more than it may only shrinks", func(w *world) {
		big, other := w.mkfile(root, "big", strings.Repeat("b", int(8*w.Hole))), w.mkfile(root, "other", strings.Repeat("o", int(w.Hole)))
		w.limit("alice", 2*w.Hole, 1)
		f := w.openFile(other)
		_, err := f.WriteAt(w.ctx, []byte("more"), 2*w.Hole)
		w.gives(err, blobstore.ErrQuota, "write")
		w.write(f, 0, "over")
		w.close(f)
		_, _, _, err = w.drive.Create(w.ctx, root, "more", w.newNode(unix.S_IFREG|0o644), readWrite)
		w.gives(err, blobstore.ErrQuota, "create")
		w.truncate(big, 4*w.Hole)
		w.uses(5*w.Hole, 2)
		w.unlink(root, "big")
		w.uses(w.Hole, 1)
		u, err := w.drive.Usage(w.ctx)
		if err != nil || u.FreeFiles != 0 {
			w.Errorf("got usage %+v, %v", u, err)
		}
		w.same(w.cat(other)[:8], "overoooo", "content")
	}},
	{"with a higher limit an open file goes on", func(w *world) {
		w.limit("alice", 2*w.Hole, 0)
		f, ino := w.create(root, "a")
		written := w.fill(f, 0)
		w.limit("alice", 5*w.Hole, 0)
		written += w.fill(f, written)
		w.close(f)
		if written != 5*w.Hole {
			w.Errorf("wrote %d bytes, want %d", written, 5*w.Hole)
		}
		w.same(w.cat(ino), strings.Repeat("x", int(written)), "content")
	}},
	{"one drive's quota is nothing to another", func(w *world) {
		bob := w.on(w.openDrive("bob"))
		w.limit("alice", w.Hole, 1)
		f, _ := w.create(root, "a")
		w.fill(f, 0)
		bob.mkfile(root, "b", strings.Repeat("b", int(5*w.Hole)))
		bob.mkfile(root, "c", "")
		_, err := f.WriteAt(w.ctx, []byte("x"), w.Hole)
		w.gives(err, blobstore.ErrQuota, "write")
		w.close(f)
	}},
	{"quotas and what is used outlive the store", func(w *world) {
		w.limit("alice", 3*w.Hole, 2)
		w.mkfile(root, "a", strings.Repeat("a", int(w.Hole)))
		w.reopen()
		w.limited(3*w.Hole, 2)
		w.uses(w.Hole, 1)
		f, _ := w.create(root, "b")
		if got := w.fill(f, 0); got != 2*w.Hole {
			w.Errorf("wrote %d bytes, want %d", got, 2*w.Hole)
		}
		w.close(f)
	}},
	{"a copy is held to the quota", func(w *world) {
		from := w.openFile(w.mkfile(root, "a", strings.Repeat("a", int(3*w.Hole))))
		w.limit("alice", 5*w.Hole, 0)
		to, _ := w.create(root, "b")
		n, err := w.drive.CopyRange(w.ctx, from, 0, to, 0, 3*w.Hole)
		if err == nil && n > 2*w.Hole || err != nil && !errors.Is(err, blobstore.ErrQuota) && !errors.Is(err, blobstore.ErrNotSupported) {
			w.Errorf("copied %d bytes, %v", n, err)
		}
		_, err = w.drive.CopyRange(w.ctx, from, 0, to, 0, 2*w.Hole)
		if !errors.Is(err, blobstore.ErrNotSupported) {
			w.ok(err, "copy what fits")
			w.uses(5*w.Hole, 2)
		}
		w.close(to)
		w.close(from)
	}},
	{"many who write at the limit write as much as fits, and all that was written is there", func(w *world) {
		const writers = 8
		w.limit("alice", 20*w.Hole, 0)
		var total atomic.Int64
		var wait sync.WaitGroup
		lengths := make([]int64, writers)
		for i := range writers {
			wait.Go(func() {
				f, _, _, err := w.drive.Create(w.ctx, root, string(rune('a'+i)), w.newNode(unix.S_IFREG|0o644), readWrite)
				for err == nil {
					var n int
					n, err = f.WriteAt(w.ctx, []byte(strings.Repeat("x", int(w.Hole))), lengths[i])
					lengths[i] += int64(n)
					if now := total.Add(int64(n)); now > 20*w.Hole {
						w.Errorf("%d bytes are said to be written, and %d fit", now, 20*w.Hole)
						break
					}
				}
				if !errors.Is(err, blobstore.ErrQuota) {
					w.Errorf("writer %d: got %v", i, err)
				}
				if f != nil {
					if err := errors.Join(f.Flush(w.ctx), f.Close()); err != nil {
						w.Errorf("close: %v", err)
					}
				}
			})
		}
		wait.Wait()
		if total.Load() != 20*w.Hole {
			w.Errorf("wrote %d bytes, and %d fit", total.Load(), 20*w.Hole)
		}
		w.uses(20*w.Hole, writers)
		for i, n := range lengths {
			w.same(w.cat(w.lookup(root, string(rune('a'+i))).Ino), strings.Repeat("x", int(n)), "file %d", i)
		}
	}},
	{"many who make files at the limit make as many as fit", func(w *world) {
		const most, makers = 25, 8
		w.limit("alice", 0, most)
		var made atomic.Int64
		var wait sync.WaitGroup
		for i := range makers {
			wait.Go(func() {
				for j := range most {
					name := string([]rune{rune('a' + i), rune('a' + j)})
					var err error
					if (i+j)%2 == 0 {
						_, err = w.drive.Make(w.ctx, root, name, w.newNode(unix.S_IFDIR|0o755))
					} else {
						var f blobstore.File
						if f, _, _, err = w.drive.Create(w.ctx, root, name, w.newNode(unix.S_IFREG|0o644), readWrite); err == nil {
							err = errors.Join(f.Flush(w.ctx), f.Close())
						}
					}
					if err == nil {
						made.Add(1)
					} else if !errors.Is(err, blobstore.ErrQuota) {
						w.Errorf("make: %v", err)
					}
				}
			})
		}
		wait.Wait()
		if made.Load() != most || len(w.names(root)) != most {
			w.Errorf("made %d, and there are %d, want %d", made.Load(), len(w.names(root)), most)
		}
		w.uses(0, most)
	}},
}

func (w *world) quotas() blobstore.Quotas {
	w.Helper()
	q, ok := w.Store.(blobstore.Quotas)
	if !ok {
		w.Fatal("the store knows no quotas")
	}
	return q
}

// limit sets a quota, and if it is that of the world's drive, waits until that knows.
func (w *world) limit(drive blobstore.DriveName, maxBytes, maxFiles int64) {
	w.Helper()
	w.ok(w.quotas().SetQuota(w.ctx, w.Admin(), drive, maxBytes, maxFiles), "set the quota of %s", drive)
	w.limited(maxBytes, maxFiles)
}

// limited waits until the drive shows its limits. Those that are 0 are not looked at.
func (w *world) limited(maxBytes, maxFiles int64) {
	w.Helper()
	w.until("the drive shows its limits", func() bool {
		u, err := w.drive.Usage(w.ctx)
		w.ok(err, "usage")
		return (maxBytes == 0 || u.TotalBytes == maxBytes) && (maxFiles == 0 || u.TotalFiles == maxFiles)
	})
}

// uses waits until alice's drive holds as much. What is removed goes in the background.
func (w *world) uses(bytes, files int64) {
	w.Helper()
	var last blobstore.Quota
	w.until("the drive holds what it should", func() bool {
		own, err := w.quotas().Quotas(w.ctx, w.Session("alice"))
		if err != nil || len(own) != 1 {
			w.Fatalf("got %+v, %v", own, err)
		}
		if own[0] != last {
			w.Logf("holds %d bytes in %d files, to be %d in %d", own[0].UsedBytes, own[0].UsedFiles, bytes, files)
		}
		last = own[0]
		return last.UsedBytes == bytes && last.UsedFiles == files
	})
}

func (w *world) until(what string, is func() bool) {
	w.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("waited in vain until %s", what)
		}
	}
}

// fill writes from an offset on until there is no room, and gives how much.
func (w *world) fill(f blobstore.File, from int64) (written int64) {
	w.Helper()
	for {
		n, err := f.WriteAt(w.ctx, []byte(strings.Repeat("x", int(w.Hole)*3/2)), from+written)
		written += int64(n)
		if errors.Is(err, blobstore.ErrQuota) && n == 0 {
			return written
		}
		w.ok(err, "write")
		if written > 1<<30 {
			w.Fatal("there is no end")
		}
	}
}
