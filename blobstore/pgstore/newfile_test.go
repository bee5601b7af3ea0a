package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
)

func TestANewFileIsMadeWithItsContentWhenItIsClosed(t *testing.T) {
	w := newWatched(t)
	folder := w.folder("album")
	file, ino := w.unseen(folder, "photo", "pixels")
	if w.named("photo") || !pgstore.IsMaking(file) {
		t.Error("it is in the database before")
	}
	w.ok(file.Flush(t.Context()))
	var size, mode, content int64
	w.ok(w.admin.QueryRow(t.Context(), `select n.size, n.mode, octet_length(c.data) from mediafs.entries e
		join mediafs.nodes n using (drive_id, ino) join mediafs.chunks c using (drive_id, blob) where e.name = 'photo' and n.ino = $1`,
		int64(ino)).Scan(&size, &mode, &content))
	if size != 6 || content != 6 || mode != unix.S_IFREG|0o600 {
		t.Errorf("got size %d, mode %o, content of %d", size, mode, content)
	}
	w.ok(file.Close())
}

func TestANewFileThatStaysOpenIsMadeSoon(t *testing.T) {
	w := watch(t)
	file, _ := w.unseen(w.folder("album"), "photo", "pixels")
	for deadline := time.Now().Add(time.Minute); !w.named("photo"); {
		if time.Now().After(deadline) {
			t.Fatal("it is not")
		}
	}
	w.ok(file.Close())
}

func TestWhatIsSetBeforeANewFileIsClosedStays(t *testing.T) {
	w := newWatched(t)
	folder := w.folder("album")
	w.ok(second(w.drive.SetAttr(t.Context(), folder, blobstore.AttrChange{Set: blobstore.SetMode | blobstore.SetGID, Mode: 0o2770, GID: 77})))
	file, ino := w.unseen(folder, "photo", "pixels")
	want := blobstore.AttrChange{
		Set:  blobstore.SetMode | blobstore.SetUID | blobstore.SetAtime | blobstore.SetMtime,
		Mode: 0o640, UID: 1000, AtimeNs: 11, MtimeNs: 22,
	}
	w.ok(second(w.drive.SetAttr(t.Context(), ino, want)))
	if w.named("photo") {
		t.Error("it was made for that")
	}
	w.ok(file.Flush(t.Context()), file.Close())
	w.drive.ForgetOthers() // and all that is known
	got, err := w.drive.Attr(t.Context(), ino)
	if err != nil || got.Mode != unix.S_IFREG|0o640 || got.UID != 1000 || got.GID != 77 || got.AtimeNs != 11 || got.MtimeNs != 22 || got.Size != 6 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// What is set while the file is being made is in what is made, or comes after it.
func TestWhatIsSetWhileANewFileIsMadeStays(t *testing.T) {
	w := newWatched(t)
	folder := w.folder("album")
	for i := range 600 {
		file, ino := w.unseen(folder, fmt.Sprint("photo", i), "pixels")
		var all sync.WaitGroup
		set := func(change blobstore.AttrChange) {
			all.Go(func() {
				if _, err := w.drive.SetAttr(t.Context(), ino, change); err != nil {
					t.Error(err)
				}
			})
		}
		all.Go(func() {
			if err := file.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		})
		set(blobstore.AttrChange{Set: blobstore.SetGID, GID: 77})
		set(blobstore.AttrChange{Set: blobstore.SetUID, UID: 1000})
		set(blobstore.AttrChange{Set: blobstore.SetMode, Mode: 0o640})
		set(blobstore.AttrChange{Set: blobstore.SetMtime, MtimeNs: 22})
		all.Wait()
		w.ok(file.Close())
		var mode, uid, gid, mtime int64
		w.ok(w.admin.QueryRow(t.Context(), "select mode, uid, gid, mtime_ns from mediafs.nodes where ino = $1", int64(ino)).Scan(&mode, &uid, &gid, &mtime))
		if mode != unix.S_IFREG|0o640 || uid != 1000 || gid != 77 || mtime != 22 {
			t.Fatalf("of file %d got mode %o, uid %d, gid %d, mtime %d", i, mode, uid, gid, mtime)
		}
	}
}

// Everything that needs a new file in the database has it made first.
func TestWhatIsDoneToANewFileFindsIt(t *testing.T) {
	for name, do := range map[string]func(w watched, folder, ino blobstore.Ino, file blobstore.File) error{
		"look up": func(w watched, folder, ino blobstore.Ino, _ blobstore.File) error {
			attr, err := w.drive.Lookup(w.Context(), folder, "photo")
			if err == nil && (attr.Ino != ino || attr.Size != 6) {
				w.Errorf("got %+v", attr)
			}
			return err
		},
		"attributes": func(w watched, _, ino blobstore.Ino, _ blobstore.File) error {
			return second(w.drive.Attr(w.Context(), ino))
		},
		"open again": func(w watched, _, ino blobstore.Ino, _ blobstore.File) error {
			again, err := w.drive.Open(w.Context(), ino, blobstore.OpenRead)
			if err != nil {
				return err
			}
			p := make([]byte, 10)
			if n, err := again.ReadAt(w.Context(), p, 0); err != nil || string(p[:n]) != "pixels" {
				w.Errorf("read %q, %v", p[:n], err)
			}
			return again.Close()
		},
		"list": func(w watched, folder, ino blobstore.Ino, _ blobstore.File) error {
			dir, err := w.drive.OpenDir(w.Context(), folder)
			if err != nil {
				return err
			}
			var found bool
			err = dir.Read(w.Context(), 0, true, func(e *blobstore.Entry) bool { found = found || e.Attr.Ino == ino && e.Name == "photo"; return true })
			if !found {
				w.Error("it is not listed")
			}
			return errors.Join(err, dir.Close())
		},
		"sync the folder": func(w watched, folder, _ blobstore.Ino, _ blobstore.File) error {
			dir, err := w.drive.OpenDir(w.Context(), folder)
			if err != nil {
				return err
			}
			if err := dir.Sync(w.Context()); err != nil {
				return err
			}
			if !w.named("photo") {
				w.Error("it is not in the database")
			}
			return dir.Close()
		},
		"truncate": func(w watched, _, ino blobstore.Ino, _ blobstore.File) error {
			attr, err := w.drive.SetAttr(w.Context(), ino, blobstore.AttrChange{Set: blobstore.SetSize, Size: 3})
			if attr.Size != 3 {
				w.Errorf("got %+v", attr)
			}
			return err
		},
		"rename": func(w watched, folder, ino blobstore.Ino, _ blobstore.File) error {
			err := w.drive.Rename(w.Context(), blobstore.Rename{Parent: folder, Name: "photo", NewParent: blobstore.RootIno, NewName: "moved"})
			attr, missing := w.drive.Lookup(w.Context(), blobstore.RootIno, "moved")
			if attr.Ino != ino {
				w.Errorf("got %+v, %v", attr, missing)
			}
			return err
		},
		"link": func(w watched, folder, ino blobstore.Ino, _ blobstore.File) error {
			attr, err := w.drive.Link(w.Context(), ino, folder, "second")
			if attr.Nlink != 2 {
				w.Errorf("got %+v", attr)
			}
			return err
		},
		"unlink": func(w watched, folder, ino blobstore.Ino, _ blobstore.File) error {
			if err := w.drive.Unlink(w.Context(), folder, "photo"); err != nil {
				return err
			}
			if _, err := w.drive.Lookup(w.Context(), folder, "photo"); !errors.Is(err, blobstore.ErrNotExist) {
				w.Errorf("after that: %v", err)
			}
			return nil
		},
		"extended attributes": func(w watched, _, ino blobstore.Ino, _ blobstore.File) error {
			if _, err := w.drive.GetXattr(w.Context(), ino, "user.place"); !errors.Is(err, blobstore.ErrNoXattr) {
				w.Errorf("before: %v", err)
			}
			return w.drive.SetXattr(w.Context(), ino, "user.place", []byte("here"), blobstore.XattrCreate)
		},
		"lock": func(w watched, _, ino blobstore.Ino, _ blobstore.File) error {
			lock := blobstore.Lock{Kind: blobstore.LockFlock, Type: blobstore.LockWrite, End: blobstore.LockMax, Owner: 1}
			return second(w.drive.SetLock(w.Context(), ino, lock, false))
		},
		"make something of its name": func(w watched, folder, _ blobstore.Ino, _ blobstore.File) error {
			if _, err := w.drive.Make(w.Context(), folder, "photo", blobstore.NewNode{Mode: unix.S_IFDIR}); !errors.Is(err, blobstore.ErrExist) {
				w.Errorf("got %v", err)
			}
			return nil
		},
		"remove its folder": func(w watched, _, _ blobstore.Ino, _ blobstore.File) error {
			if err := w.drive.Rmdir(w.Context(), blobstore.RootIno, "album"); !errors.Is(err, blobstore.ErrNotEmpty) {
				w.Errorf("got %v", err)
			}
			return nil
		},
		"replace its folder": func(w watched, _, _ blobstore.Ino, _ blobstore.File) error {
			w.folder("other")
			err := w.drive.Rename(w.Context(), blobstore.Rename{Parent: blobstore.RootIno, Name: "other", NewParent: blobstore.RootIno, NewName: "album"})
			if !errors.Is(err, blobstore.ErrNotEmpty) {
				w.Errorf("got %v", err)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatched(t)
			folder := w.folder("album")
			file, ino := w.unseen(folder, "photo", "pixels")
			w.ok(do(w, folder, ino, file))
			w.ok(file.Flush(t.Context()), file.Close())
			isWhole(t, w.url)
		})
	}
}

// The name can only be taken by what goes round mounts, or by a mount that this one took for dead.
func TestANewFileWhoseNameIsTakenMeanwhileIsReported(t *testing.T) {
	for name, take := range map[string]string{
		"name":   "update mediafs.entries set name = 'photo' where name = 'other'",
		"folder": "delete from mediafs.nodes where mode & 61440 = 16384 and ino <> 1",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatched(t)
			folder := w.folder("album")
			other, err := w.drive.Make(t.Context(), folder, "other", blobstore.NewNode{Mode: unix.S_IFREG | 0o600})
			w.ok(err)
			file, _ := w.unseen(folder, "photo", "pixels")
			w.exec(take)
			if err := file.Flush(t.Context()); !errors.Is(err, blobstore.ErrStale) {
				t.Errorf("closing: got %v, want %v", err, blobstore.ErrStale)
			}
			w.ok(file.Close())
			w.drive.ForgetOthers()
			attr, err := w.drive.Lookup(t.Context(), folder, "photo")
			if name == "name" && (err != nil || attr.Ino != other.Ino) {
				t.Errorf("the name leads to %+v, %v", attr, err)
			}
			if n := w.drive.PendingBytes(); n != 0 {
				t.Errorf("%d bytes are pending", n)
			}
		})
	}
}

func TestAFolderHasTheTimeOfANewFileInIt(t *testing.T) {
	for _, by := range []string{"lookup", "attributes", "list"} {
		t.Run(by, func(t *testing.T) {
			w := newWatched(t)
			folder := w.folder("album")
			before, err := w.drive.SetAttr(t.Context(), folder, blobstore.AttrChange{Set: blobstore.SetMtime, MtimeNs: 1})
			w.ok(err)
			file, _ := w.unseen(folder, "photo", "pixels")
			w.drive.ForgetOthers() // the database is asked
			var got blobstore.Attr
			switch by {
			case "lookup":
				got, err = w.drive.Lookup(t.Context(), blobstore.RootIno, "album")
			case "attributes":
				got, err = w.drive.Attr(t.Context(), folder)
			case "list":
				list, err := w.drive.OpenDir(t.Context(), blobstore.RootIno)
				w.ok(err)
				w.ok(list.Read(t.Context(), 0, true, func(e *blobstore.Entry) bool {
					if e.Name == "album" && e.Complete {
						got = e.Attr
					}
					return true
				}), list.Close())
			}
			w.ok(err)
			if got.Ino == folder && (got.MtimeNs < before.CtimeNs || got.CtimeNs < before.CtimeNs) {
				t.Errorf("its times are %d and %d, want those of the file, which is later than %d", got.MtimeNs, got.CtimeNs, before.CtimeNs)
			}
			w.ok(file.Flush(t.Context()), file.Close())
		})
	}
}

func TestANewFileIsNoFolderAndNoLink(t *testing.T) {
	for name, do := range map[string]func(w watched, ino blobstore.Ino) error{
		"make": func(w watched, ino blobstore.Ino) error {
			_, err := w.drive.Make(w.Context(), ino, "below", blobstore.NewNode{Mode: unix.S_IFREG | 0o600})
			return err
		},
		"open folder": func(w watched, ino blobstore.Ino) error {
			_, err := w.drive.OpenDir(w.Context(), ino)
			return err
		},
		"unlink": func(w watched, ino blobstore.Ino) error { return w.drive.Unlink(w.Context(), ino, "below") },
		"readlink": func(w watched, ino blobstore.Ino) error {
			if _, err := w.drive.Readlink(w.Context(), ino); !errors.Is(err, blobstore.ErrInvalid) {
				return err
			}
			return blobstore.ErrNotDir
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatched(t)
			file, ino := w.unseen(w.folder("album"), "photo", "pixels")
			if err := do(w, ino); !errors.Is(err, blobstore.ErrNotDir) {
				t.Errorf("got %v, want %v", err, blobstore.ErrNotDir)
			}
			w.ok(file.Flush(t.Context()), file.Close())
		})
	}
}

// waiting returns when so many wait for locks in the database, or something is there to be received.
func (w watched) waiting(n int, or <-chan error) {
	w.Helper()
	for until := time.Now().Add(time.Minute); ; {
		var now int
		w.ok(w.admin.QueryRow(w.Context(), "select count(*) from pg_locks where not granted").Scan(&now))
		if now >= n || len(or) > 0 {
			return
		}
		if time.Now().After(until) {
			w.Fatalf("%d wait for locks, want %d", now, n)
		}
	}
}

// A name that is being made in the database, or may be, is not free for a file that the database does not have yet.
func TestANameThatIsBeingMadeIsNotTakenByANewFile(t *testing.T) {
	w := newWatched(t)
	folder := w.folder("album")
	w.exec("begin; lock table mediafs.nodes in exclusive mode")
	made, created := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := w.drive.Make(w.Context(), folder, "photo", blobstore.NewNode{Mode: unix.S_IFREG | 0o600})
		made <- err
	}()
	w.waiting(1, made)
	if _, err := w.drive.Lookup(t.Context(), folder, "photo"); !errors.Is(err, blobstore.ErrNotExist) {
		t.Error(err)
	}
	if _, err := w.drive.Attr(t.Context(), folder); err != nil {
		t.Error(err)
	}
	go func() {
		file, _, _, err := w.drive.Create(w.Context(), folder, "photo", blobstore.NewNode{Mode: unix.S_IFREG | 0o600}, writable|blobstore.OpenExclusive)
		if err == nil {
			err = errors.Join(file.Flush(w.Context()), file.Close())
		}
		created <- err
	}()
	w.waiting(2, created)
	w.exec("rollback")
	one, other := <-made, <-created
	if (one == nil) == (other == nil) || !errors.Is(errors.Join(one, other), blobstore.ErrExist) {
		t.Errorf("making it: %v; creating it meanwhile: %v; want one of them to find that it %v", one, other, blobstore.ErrExist)
	}
}

// What became of a making is not known when its connection breaks; it is asked for again and is there once.
func TestAFileThatIsMadeTwiceIsThereOnce(t *testing.T) {
	w := newWatched(t)
	folder := w.folder("album")
	file, ino := w.unseen(folder, "photo", "pixels")
	w.ok(w.drive.MakeNow(t.Context(), file)) // and the answer is lost
	w.ok(file.Flush(t.Context()), file.Close())
	if attr, err := w.drive.Lookup(t.Context(), folder, "photo"); err != nil || attr.Ino != ino || attr.Nlink != 1 {
		t.Errorf("got %+v, %v", attr, err)
	}
	isWhole(t, w.url)
}

// What can't be stored when the drive is unmounted waits on this machine, with its name.
func TestANewFileThatIsKeptOnDiskIsMadeByTheNextMount(t *testing.T) {
	for name, spoil := range map[string]string{
		"free":  "select 1",
		"taken": "update mediafs.entries set name = 'photo' where name = 'other'",
	} {
		t.Run(name, func(t *testing.T) {
			pgstore.MakeWithin(t, time.Hour)
			url := newStore(t)
			session := signIn(t, url, "alice")
			folder := filepath.Join(t.TempDir(), "spool")
			w := watched{TB: t, url: url, drive: detachable(t, url, session, folder)}
			w.drive.HoldSole()
			album := w.folder("album")
			w.ok(second(w.drive.Make(t.Context(), album, "other", blobstore.NewNode{Mode: unix.S_IFREG | 0o600})))
			file, ino := w.unseen(album, "photo", "pixels")
			w.ok(second(w.drive.SetAttr(t.Context(), ino, blobstore.AttrChange{Set: blobstore.SetMode | blobstore.SetAtime, Mode: 0o640, AtimeNs: 11})))
			endSession(t, url, "alice")
			w.drive.ForgetOthers()
			w.ok(file.Close())
			if err := w.drive.Close(t.Context()); !errors.Is(err, blobstore.ErrKept) {
				t.Fatalf("got %v, want %v", err, blobstore.ErrKept)
			}
			renewSession(t, url, session)
			execute(t, url, spoil)
			next := detachable(t, url, session, folder)
			if name == "free" {
				attr, err := next.Lookup(t.Context(), album, "photo")
				if err != nil || attr.Ino != ino || attr.Mode != unix.S_IFREG|0o640 || attr.AtimeNs != 11 || string(content(t, next, album, "photo")) != "pixels" {
					t.Errorf("got %+v, %v", attr, err)
				}
			} else if lost := found(t, next); len(lost) != 1 || string(lost[0]) != "pixels" {
				t.Errorf("found %q", lost)
			}
			if left := spooled(t, folder); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			w.ok(next.Close(t.Context()))
			isWhole(t, url)
		})
	}
}

// Files that are closed together are made in one transaction; one that can't be made does the others no harm.
func TestNewFilesThatAreClosedTogetherAreEachMadeOrReported(t *testing.T) {
	w := newWatched(t)
	folder := w.folder("album")
	other, err := w.drive.Make(t.Context(), folder, "other", blobstore.NewNode{Mode: unix.S_IFREG | 0o600})
	w.ok(err)
	var files []blobstore.File
	for _, name := range []string{"one", "two", "photo", "three"} {
		file, _ := w.unseen(folder, name, "pixels of "+name)
		files = append(files, file)
	}
	w.exec("update mediafs.entries set name = 'photo' where name = 'other'")
	errs := w.drive.MakeTogether(t.Context(), files)
	for i, err := range errs {
		if taken := i == 2; taken != errors.Is(err, blobstore.ErrExist) || !taken && err != nil {
			t.Errorf("file %d: got %v", i, err)
		}
	}
	for _, name := range []string{"one", "two", "three"} {
		if !w.named(name) {
			t.Errorf("%s is not there", name)
		}
	}
	for i, file := range files {
		if err := file.Flush(t.Context()); (i == 2) != errors.Is(err, blobstore.ErrStale) {
			t.Errorf("closing file %d: %v", i, err)
		}
		w.ok(file.Close())
	}
	w.drive.ForgetOthers()
	if attr, err := w.drive.Lookup(t.Context(), folder, "photo"); err != nil || attr.Ino != other.Ino {
		t.Errorf("the name that was taken leads to %+v, %v", attr, err)
	}
	if got := string(content(t, w.drive, folder, "two")); got != "pixels of two" {
		t.Errorf("read %q", got)
	}
	isWhole(t, w.url)
}

// A connection may be dead without anybody knowing. Who waits for what is on its way over one has it sent again when their own time is over.
func TestWhatIsOnItsWayForAsLongAsSomebodyWaitsIsGivenUp(t *testing.T) {
	w := newWatched(t)
	folder := w.folder("album")
	file, _ := w.unseen(folder, "photo", "pixels")
	w.exec("begin; lock table mediafs.nodes in exclusive mode")
	stored := make(chan error, 1)
	go func() { stored <- file.(*pgstore.File).StoreEverything(w.Context()) }()
	w.waiting(1, stored)
	waiter := func() (pid int) {
		w.ok(w.admin.QueryRow(w.Context(), "select coalesce(min(pid), 0) from pg_locks where not granted").Scan(&pid))
		return pid
	}
	first := waiter()
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := w.drive.OpenDir(soon, folder); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("listing its folder: got %v, want %v", err, context.DeadlineExceeded)
	}
	for now := first; (now == first || now == 0) && len(stored) == 0; now = waiter() {
	} // it is sent again over another connection
	w.exec("rollback")
	w.ok(<-stored, file.Flush(t.Context()), file.Close())
	if !w.named("photo") {
		t.Error("it is not there")
	}
}
