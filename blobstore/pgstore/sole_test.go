package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
)

// A household of one drive, and an administrator who looks at its rows.
type watched struct {
	testing.TB
	url   string
	drive *pgstore.Drive
	admin *pgx.Conn
}

// newWatched is one whose drive is alone, and keeps new files to itself, however long things take; ForgetOthers ends the former.
func newWatched(t *testing.T) watched {
	t.Helper()
	pgstore.MakeWithin(t, time.Hour)
	return watch(t)
}

// watch is newWatched with new files as they are.
func watch(t *testing.T) watched {
	t.Helper()
	w := watched{TB: t, url: newStore(t)}
	w.drive = attach(t, w.url, signIn(t, w.url, "alice"), pgstore.Options{})
	w.drive.HoldSole()
	var err error
	if w.admin, err = pgx.Connect(t.Context(), w.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.ok(w.admin.Close(context.Background())) })
	return w
}

func (w watched) ok(errs ...error) {
	w.Helper()
	if err := errors.Join(errs...); err != nil {
		w.Fatal(err)
	}
}

func (w watched) exec(sql string) {
	w.Helper()
	_, err := w.admin.Exec(w.Context(), sql)
	w.ok(err)
}

// named says whether the database has a name.
func (w watched) named(name string) (there bool) {
	w.Helper()
	w.ok(w.admin.QueryRow(w.Context(), "select exists (select from mediafs.entries where name = $1)", []byte(name)).Scan(&there))
	return there
}

// folder makes a folder, of which is known that nothing is in it.
func (w watched) folder(name string) blobstore.Ino {
	w.Helper()
	_, err := w.drive.Lookup(w.Context(), blobstore.RootIno, name) // as the kernel does
	if !errors.Is(err, blobstore.ErrNotExist) {
		w.Fatal(err)
	}
	attr, err := w.drive.Make(w.Context(), blobstore.RootIno, name, blobstore.NewNode{Mode: unix.S_IFDIR | 0o700})
	w.ok(err)
	return attr.Ino
}

// unseen makes a file in a folder that the database does not have yet.
func (w watched) unseen(folder blobstore.Ino, name, content string) (blobstore.File, blobstore.Ino) {
	w.Helper()
	_, err := w.drive.Lookup(w.Context(), folder, name)
	if !errors.Is(err, blobstore.ErrNotExist) {
		w.Fatal(err)
	}
	file, attr, _, err := w.drive.Create(w.Context(), folder, name, blobstore.NewNode{Mode: unix.S_IFREG | 0o600}, writable|blobstore.OpenExclusive)
	w.ok(err)
	_, err = file.WriteAt(w.Context(), []byte(content), 0)
	w.ok(err)
	return file, attr.Ino
}

func TestWhileAloneWhatIsKnownNeedsNoAnswerOfTheDatabase(t *testing.T) {
	w := newWatched(t)
	folder := w.folder("album")
	file, ino := w.unseen(folder, "photo", "pixels")
	w.ok(file.Flush(t.Context()), file.Close())
	w.exec("begin; lock table mediafs.entries, mediafs.nodes in access exclusive mode")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	attr, err := w.drive.Lookup(ctx, folder, "photo")
	if err != nil || attr.Ino != ino || attr.Size != 6 {
		t.Errorf("a name: got %+v, %v", attr, err)
	}
	if _, err := w.drive.Lookup(ctx, folder, "other"); !errors.Is(err, blobstore.ErrNotExist) {
		t.Errorf("no name: got %v", err)
	}
	if attr, err := w.drive.Attr(ctx, folder); err != nil || attr.MtimeNs == 0 {
		t.Errorf("a folder: got %+v, %v", attr, err)
	}
	w.exec("rollback")
}

func TestAMountThatIsNotAloneAsksTheDatabase(t *testing.T) {
	w := newWatched(t)
	folder := w.folder("album")
	w.drive.ForgetOthers()
	other := attach(t, w.url, w.drive.Session(), pgstore.Options{})
	for _, name := range []string{"one", "two"} {
		if _, err := w.drive.Lookup(t.Context(), folder, name); !errors.Is(err, blobstore.ErrNotExist) {
			t.Fatal(err)
		}
		made, err := other.Make(t.Context(), folder, name, blobstore.NewNode{Mode: unix.S_IFREG | 0o600})
		w.ok(err)
		if attr, err := w.drive.Lookup(t.Context(), folder, name); err != nil || attr.Ino != made.Ino {
			t.Errorf("what the other mount has made: got %+v, %v", attr, err)
		}
		file, _, _, err := w.drive.Create(t.Context(), folder, name+" of mine", blobstore.NewNode{Mode: unix.S_IFREG | 0o600}, writable)
		w.ok(err)
		if _, err := other.Lookup(t.Context(), folder, name+" of mine"); err != nil {
			t.Errorf("what this mount has made and not closed: %v", err)
		}
		w.ok(file.Close())
	}
}

func TestANewMountSeesWhatTheOneThatWasAloneHasMade(t *testing.T) {
	pgstore.MakeWithin(t, 200*time.Millisecond) // less than a new mount waits
	w := watch(t)
	folder := w.folder("album")
	file, ino := w.unseen(folder, "photo", "pixels")
	w.drive.ForgetOthers()
	w.drive.AskAgain()
	other := attach(t, w.url, w.drive.Session(), pgstore.Options{})
	attr, err := other.Lookup(t.Context(), folder, "photo")
	for deadline := time.Now().Add(time.Minute); errors.Is(err, blobstore.ErrNotExist) && time.Now().Before(deadline); { // on a machine that is slow
		attr, err = other.Lookup(t.Context(), folder, "photo")
	}
	if err != nil || attr.Ino != ino {
		t.Errorf("got %+v, %v", attr, err)
	}
	if _, _, _, err := other.Create(t.Context(), folder, "photo", blobstore.NewNode{Mode: unix.S_IFREG}, writable|blobstore.OpenExclusive); !errors.Is(err, blobstore.ErrExist) {
		t.Errorf("O_EXCL: got %v, want %v", err, blobstore.ErrExist)
	}
	w.ok(file.Flush(t.Context()), file.Close())
}

func TestAMountThatIsAloneAgainBelievesNothingOfBefore(t *testing.T) {
	w := newWatched(t)
	folder := w.folder("album")
	w.drive.ForgetOthers()
	store, err := pgstore.Open(t.Context(), w.url, pgstore.Options{})
	w.ok(err)
	defer store.Close()
	opened, err := store.Open(t.Context(), w.drive.Session())
	w.ok(err)
	_, err = opened.Make(t.Context(), folder, "brought", blobstore.NewNode{Mode: unix.S_IFREG | 0o600})
	w.ok(err, opened.Close(t.Context()))
	for deadline := time.Now().Add(time.Minute); !w.drive.IsSole(t.Context()); {
		if time.Now().After(deadline) {
			t.Fatal("it is not known to be alone again")
		}
	}
	if _, err := w.drive.Lookup(t.Context(), folder, "brought"); err != nil {
		t.Error(err)
	}
}

func TestWhoWasNotHeardOfForLongSaysSoBeforeItChangesAnything(t *testing.T) {
	w := newWatched(t)
	w.exec("update mediafs.mounts set seen_at = now() - interval '90 s'")
	w.drive.Silence(30 * time.Second)
	w.folder("album")
	var age time.Duration
	w.ok(w.admin.QueryRow(t.Context(), "select now() - seen_at from mediafs.mounts").Scan(&age))
	if age > time.Minute {
		t.Errorf("the database has not heard of it for %v", age)
	}
}

func TestWhatARepairHasChangedIsNotOverlooked(t *testing.T) {
	w := newWatched(t)
	folder := w.folder("album")
	if _, err := w.drive.Make(t.Context(), folder, "photo", blobstore.NewNode{Mode: unix.S_IFREG | 0o600}); err != nil {
		t.Fatal(err)
	}
	w.exec("delete from mediafs.entries where name = 'photo'") // a fault that nobody has told the mount of
	checkStore(t, w.url, true)
	w.drive.ForgetOthers()
	w.drive.AskAgain()
	if _, err := w.drive.Lookup(t.Context(), folder, "photo"); !errors.Is(err, blobstore.ErrNotExist) {
		t.Errorf("got %v, want %v", err, blobstore.ErrNotExist)
	}
}

func TestAFolderWhoseNamesAreAskedForIsLearntAsAWhole(t *testing.T) {
	w := newWatched(t)
	folder := w.folder("album")
	for i := range 20 {
		_, err := w.drive.Make(t.Context(), folder, fmt.Sprint(i), blobstore.NewNode{Mode: unix.S_IFREG | 0o600})
		w.ok(err)
	}
	w.drive.ForgetNames()
	for i := range 9 { // the ninth finds all
		_, err := w.drive.Lookup(t.Context(), folder, fmt.Sprint(i))
		w.ok(err)
	}
	w.exec("begin; lock table mediafs.entries, mediafs.nodes in access exclusive mode")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range 20 {
		if _, err := w.drive.Lookup(ctx, folder, fmt.Sprint(i)); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if _, err := w.drive.Lookup(ctx, folder, "none"); !errors.Is(err, blobstore.ErrNotExist) {
		t.Errorf("no name: got %v", err)
	}
	w.exec("rollback")
}

// What is learnt of a folder at once says of all other names that they are not there: none of those that are may be left out.
func TestAFolderThatIsLearntAsAWholeLacksNoName(t *testing.T) {
	const names = 200
	w := newWatched(t)
	folder := w.folder("album")
	var files []blobstore.File
	for i := range names {
		file, _ := w.unseen(folder, fmt.Sprint(i), "pixels")
		w.ok(file.Flush(t.Context()))
		files = append(files, file)
	}
	for round := range 5 {
		for what, meanwhile := range map[string]func() error{
			"room for names runs out": func() error { w.drive.FillNames(); return nil },
			"its files change": func() error {
				_, err := files[round].WriteAt(t.Context(), []byte{byte(round)}, 0)
				return errors.Join(err, files[round].Flush(t.Context()))
			},
		} {
			w.drive.ForgetNames()
			var g errgroup.Group
			g.Go(meanwhile)
			for i := range names {
				if _, err := w.drive.Lookup(t.Context(), folder, fmt.Sprint(i)); err != nil {
					t.Errorf("%s: %d: %v", what, i, err)
				}
			}
			w.ok(g.Wait())
		}
	}
	for _, file := range files {
		w.ok(file.Close())
	}
}
