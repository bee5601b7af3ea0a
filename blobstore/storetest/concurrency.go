package storetest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

const (
	workers = 8
	rounds  = 20
)

var concurrencyTests = []test{
	{"many make, write, move and remove files in one folder, and the tree adds up", func(w *world) {
		dir, done := w.mkdir(root, "dir"), w.mkdir(root, "done")
		w.together(func(worker int) error {
			for i := range rounds {
				name := fmt.Sprintf("%d-%d", worker, i)
				f, _, _, err := w.drive.Create(w.ctx, dir, name, w.newNode(unix.S_IFREG|0o644), readWrite|blobstore.OpenExclusive)
				if err != nil {
					return err
				}
				_, err = f.WriteAt(w.ctx, []byte(pattern(worker, 1000*(i+1))), 0)
				if err := errors.Join(err, f.Flush(w.ctx), f.Close()); err != nil {
					return err
				}
				if i%2 == 0 {
					err = w.rename(dir, name, done, name, blobstore.RenameNoReplace)
				} else {
					err = w.drive.Unlink(w.ctx, dir, name)
				}
				if err != nil {
					return err
				}
				if _, err := w.drive.Make(w.ctx, dir, name, w.newNode(unix.S_IFDIR|0o755)); err != nil {
					return err
				}
			}
			return nil
		})
		w.nlink(dir, 2+workers*rounds)
		w.nlink(done, 2)
		if got := len(w.names(dir)); got != workers*rounds {
			w.Errorf("got %d folders, want %d", got, workers*rounds)
		}
		if got := len(w.names(done)); got != workers*rounds/2 {
			w.Errorf("got %d files, want %d", got, workers*rounds/2)
		}
		for worker := range workers {
			for i := 0; i < rounds; i += 2 {
				a := w.lookup(done, fmt.Sprintf("%d-%d", worker, i))
				w.same(w.cat(a.Ino), pattern(worker, 1000*(i+1)), "file %d of worker %d", i, worker)
			}
		}
	}},
	{"of many who make one name, one does", func(w *world) {
		for i := range rounds {
			name := fmt.Sprint(i)
			var made atomic.Int32
			w.together(func(worker int) error {
				var err error
				if worker%2 == 0 {
					_, err = w.drive.Make(w.ctx, root, name, w.newNode(unix.S_IFDIR|0o755))
				} else {
					var f blobstore.File
					f, _, _, err = w.drive.Create(w.ctx, root, name, w.newNode(unix.S_IFREG|0o644), readWrite|blobstore.OpenExclusive)
					if err == nil {
						err = f.Close()
					}
				}
				if err == nil {
					made.Add(1)
				}
				return except(err, blobstore.ErrExist)
			})
			if got := made.Load(); got != 1 {
				w.Errorf("%d made %q, want 1", got, name)
			}
		}
	}},
	{"of many who create one file without insisting, one makes it and all open it", func(w *world) {
		for i := range rounds {
			name := fmt.Sprint(i)
			var made atomic.Int32
			w.together(func(worker int) error {
				f, _, created, err := w.drive.Create(w.ctx, root, name, w.newNode(unix.S_IFREG|0o644), readWrite)
				if err != nil {
					return err
				}
				if created {
					made.Add(1)
				}
				_, err = f.WriteAt(w.ctx, []byte{byte('a' + worker)}, int64(worker))
				return errors.Join(err, f.Flush(w.ctx), f.Close())
			})
			if got := made.Load(); got != 1 {
				w.Errorf("%d made %q, want 1", got, name)
			}
			w.same(w.cat(w.lookup(root, name).Ino), "abcdefgh"[:workers], "content")
		}
	}},
	{"of many who remove one name, one does", func(w *world) {
		for i := range rounds {
			name := fmt.Sprint(i)
			w.mkfile(root, name, "content")
			var removed atomic.Int32
			w.together(func(int) error {
				err := w.drive.Unlink(w.ctx, root, name)
				if err == nil {
					removed.Add(1)
				}
				return except(err, blobstore.ErrNotExist)
			})
			if got := removed.Load(); got != 1 {
				w.Errorf("%d removed %q, want 1", got, name)
			}
		}
		w.holds(root)
	}},
	{"a folder is not removed while a name comes into it", func(w *world) {
		for i := range rounds {
			name := fmt.Sprint(i)
			dir := w.mkdir(root, name)
			var removed, made atomic.Int32
			w.together(func(worker int) error {
				if worker == 0 {
					err := w.drive.Rmdir(w.ctx, root, name)
					if err == nil {
						removed.Add(1)
					}
					return except(err, blobstore.ErrNotEmpty)
				}
				_, err := w.drive.Make(w.ctx, dir, fmt.Sprint(worker), w.newNode(unix.S_IFDIR|0o755))
				if err == nil {
					made.Add(1)
				}
				return except(err, blobstore.ErrNotExist)
			})
			if removed.Load() == 1 {
				if got := made.Load(); got != 0 {
					w.Errorf("%d names came into a folder that was removed", got)
				}
				w.missing(root, name)
			} else {
				w.nlink(dir, 2+uint32(made.Load()))
			}
		}
	}},
	{"folders that move into each other at once do not get lost", func(w *world) {
		for i := range rounds {
			top := w.mkdir(root, fmt.Sprint(i))
			var dirs [workers]blobstore.Ino
			for j := range dirs {
				dirs[j] = w.mkdir(top, fmt.Sprint(j))
			}
			w.together(func(worker int) error {
				to := dirs[(worker+1)%workers]
				err := w.rename(top, fmt.Sprint(worker), to, "moved", blobstore.RenameReplace)
				return except(err, blobstore.ErrInvalid)
			})
			found := make(map[blobstore.Ino]bool)
			var walk func(ino blobstore.Ino)
			walk = func(ino blobstore.Ino) {
				for name, e := range w.list(ino, false) {
					if name != "." && name != ".." {
						found[e.Attr.Ino] = true
						walk(w.lookup(ino, name).Ino)
					}
				}
			}
			walk(top)
			for j, dir := range dirs {
				if !found[dir] {
					w.Errorf("folder %d is nowhere", j)
				}
			}
		}
	}},
	{"names that are exchanged and replaced at once end as one of each", func(w *world) {
		left, right := w.mkdir(root, "left"), w.mkdir(root, "right")
		a, b := w.mkfile(left, "x", "a"), w.mkdir(right, "x")
		w.together(func(worker int) error {
			for range rounds {
				from, to := left, right
				if worker%2 == 0 {
					from, to = right, left
				}
				if err := w.rename(from, "x", to, "x", blobstore.RenameExchange); err != nil {
					return err
				}
			}
			return nil
		})
		l, r := w.lookup(left, "x"), w.lookup(right, "x")
		if l.Ino == r.Ino || l.Ino+r.Ino != a+b {
			w.Errorf("got nodes %d and %d, want %d and %d", l.Ino, r.Ino, a, b)
		}
		if got := w.attr(left).Nlink + w.attr(right).Nlink; got != 5 {
			w.Errorf("got %d links to the two folders, want 5", got)
		}
	}},
	{"links made and removed at once are all counted", func(w *world) {
		ino := w.mkfile(root, "a", "content")
		w.together(func(worker int) error {
			for i := range rounds {
				name := fmt.Sprintf("%d-%d", worker, i)
				if _, err := w.drive.Link(w.ctx, ino, root, name); err != nil {
					return err
				}
				if i%2 == 1 {
					if err := w.drive.Unlink(w.ctx, root, name); err != nil {
						return err
					}
				}
			}
			return nil
		})
		w.nlink(ino, 1+workers*rounds/2)
		if got := len(w.names(root)); got != 1+workers*rounds/2 {
			w.Errorf("got %d names, want %d", got, 1+workers*rounds/2)
		}
	}},
	{"writes to different parts of a file at once all arrive", func(w *world) {
		const piece = 50_001
		ino := w.mkfile(root, "a", "")
		w.together(func(worker int) error {
			f, err := w.drive.Open(w.ctx, ino, readWrite)
			if err != nil {
				return err
			}
			for i := range rounds {
				at := int64(i*workers + worker)
				if _, err := f.WriteAt(w.ctx, []byte(pattern(int(at), piece)), at*piece); err != nil {
					return err
				}
				if i%5 == 0 {
					if err := f.Sync(w.ctx); err != nil {
						return err
					}
				}
			}
			return errors.Join(f.Flush(w.ctx), f.Close())
		})
		f := w.openFile(ino)
		for at := range workers * rounds {
			w.same(w.readAt(f, int64(at)*piece, piece), pattern(at, piece), "piece %d", at)
		}
		w.close(f)
	}},
	{"a read while others write gives what one of them wrote", func(w *world) {
		const size = 10_000
		ino := w.mkfile(root, "a", string(make([]byte, size)))
		w.together(func(worker int) error {
			f, err := w.drive.Open(w.ctx, ino, readWrite)
			if err != nil {
				return err
			}
			p := make([]byte, size)
			for range rounds {
				if worker%2 == 0 {
					for i := range p {
						p[i] = byte(worker + 1)
					}
					_, err = f.WriteAt(w.ctx, p, 0)
				} else if _, err = f.ReadAt(w.ctx, p, 0); err == nil {
					for _, c := range p {
						if c > workers || c != 0 && c%2 == 0 {
							err = fmt.Errorf("read %d, which nobody wrote", c)
						}
					}
				}
				if err != nil {
					return err
				}
			}
			return errors.Join(f.Flush(w.ctx), f.Close())
		})
	}},
	{"attributes set and content written at once are both there", func(w *world) {
		ino := w.mkfile(root, "a", "")
		w.together(func(worker int) error {
			for i := range rounds {
				var err error
				switch worker % 4 {
				case 0:
					_, err = w.drive.SetAttr(w.ctx, ino, blobstore.AttrChange{Set: blobstore.SetMode, Mode: 0o700 | uint32(i)})
				case 1:
					err = w.drive.SetXattr(w.ctx, ino, fmt.Sprintf("user.%d", worker), []byte{byte(i)}, blobstore.XattrSet)
				case 2:
					_, err = w.drive.SetAttr(w.ctx, ino, blobstore.AttrChange{Set: blobstore.SetAtime, AtimeNs: longAgo + int64(i)})
				case 3:
					var f blobstore.File
					if f, err = w.drive.Open(w.ctx, ino, readWrite); err == nil {
						_, err = f.WriteAt(w.ctx, []byte(pattern(worker, 1000)), int64(i*workers+worker)*1000)
						err = errors.Join(err, f.Flush(w.ctx), f.Close())
					}
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		a := w.attr(ino)
		if a.Mode&0o7777 != 0o700|rounds-1 || a.AtimeNs != longAgo+rounds-1 || a.Size != workers*rounds*1000 {
			w.Errorf("got %+v", a)
		}
		w.hasXattrs(ino, map[string]string{"user.1": string(rune(rounds - 1)), "user.5": string(rune(rounds - 1))})
	}},
	{"a file replaced again and again is always there, and whole", func(w *world) {
		w.mkfile(root, "a", pattern(0, 5000))
		w.together(func(worker int) error {
			for i := range rounds {
				if worker%2 == 0 {
					name := fmt.Sprintf("new %d", worker)
					f, _, _, err := w.drive.Create(w.ctx, root, name, w.newNode(unix.S_IFREG|0o644), readWrite|blobstore.OpenExclusive)
					if err != nil {
						return err
					}
					_, err = f.WriteAt(w.ctx, []byte(pattern(i, 5000)), 0)
					err = errors.Join(err, f.Flush(w.ctx), f.Close(), w.rename(root, name, root, "a", blobstore.RenameReplace))
					if err != nil {
						return err
					}
					continue
				}
				a, err := w.drive.Lookup(w.ctx, root, "a")
				if err != nil {
					return err
				}
				f, err := w.drive.Open(w.ctx, a.Ino, blobstore.OpenRead)
				if errors.Is(err, blobstore.ErrNotExist) {
					continue // replaced since
				}
				if err != nil {
					return err
				}
				p := make([]byte, 6000)
				n, err := f.ReadAt(w.ctx, p, 0)
				now, gone := w.drive.Attr(w.ctx, a.Ino)
				if err := errors.Join(err, f.Flush(w.ctx), f.Close()); err != nil {
					return err
				}
				if gone != nil || now.Generation != a.Generation {
					continue // replaced since, and the number may have been given to a file that is being written
				}
				if n != 5000 {
					return fmt.Errorf("read %d bytes, want 5000", n)
				}
			}
			return nil
		})
		w.holds(root, "a")
	}},
}

// together runs f as all workers at once and fails with the errors that they return.
func (w *world) together(f func(worker int) error) {
	w.Helper()
	var wait sync.WaitGroup
	errs := make([]error, workers)
	start := make(chan struct{})
	for i := range workers {
		wait.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		w.Fatal(err)
	}
}

// except is err unless it is what may happen to those who come second.
func except(err, fine error) error {
	if errors.Is(err, fine) {
		return nil
	}
	return err
}
