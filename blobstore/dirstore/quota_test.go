package dirstore_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
)

const block = 4096

// limitedDrive is alice's, with a quota that it knows of, and the root of its store.
func limitedDrive(t *testing.T, maxBytes, maxFiles int64) (*dirstore.Store, blobstore.Drive, string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "media")
	must(t, dirstore.Init(root))
	store := openStore(t, root)
	d, err := store.Open(t.Context(), session("alice"))
	must(t, err)
	t.Cleanup(func() {
		must(t, d.Close(context.Background()))
		closeStore(t, store)
	})
	must(t, dirstore.SetQuota(t.Context(), root, "alice", maxBytes, maxFiles))
	_, err = d.Usage(t.Context())
	must(t, err)
	return store, d, root
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func holds(t *testing.T, store *dirstore.Store) (bytes, files int64) {
	t.Helper()
	own, err := store.Quotas(t.Context(), session("alice"))
	if err != nil || len(own) != 1 {
		t.Fatalf("got %+v, %v", own, err)
	}
	return own[0].UsedBytes, own[0].UsedFiles
}

func newFile(t *testing.T, d blobstore.Drive, name string, content []byte) blobstore.File {
	t.Helper()
	uid, gid := d.Owner()
	f, _, _, err := d.Create(t.Context(), blobstore.RootIno, name, blobstore.NewNode{Mode: unix.S_IFREG | 0o600, UID: uid, GID: gid}, blobstore.OpenRead|blobstore.OpenWrite)
	must(t, err)
	_, err = f.WriteAt(t.Context(), content, 0)
	must(t, err)
	return f
}

// The web application writes into the folder without asking, and removes what it likes.
func TestWhatOtherProgramsDoIsCountedAnew(t *testing.T) {
	store, d, root := limitedDrive(t, 4*block, 10)
	dirstore.RecountSoon(d)
	must(t, os.WriteFile(filepath.Join(root, "alice", "of the application"), make([]byte, 3*block), 0o600))
	f := newFile(t, d, "mine", make([]byte, block))
	defer f.Close()
	if _, err := f.WriteAt(t.Context(), make([]byte, 4*block), block); err != nil && !errors.Is(err, blobstore.ErrQuota) {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) { // each refusal has it counted anew
		_, err := f.WriteAt(t.Context(), make([]byte, block), 4*block)
		if used, files := holds(t, store); files == 2 && used >= 4*block && errors.Is(err, blobstore.ErrQuota) {
			break
		}
		if time.Now().After(deadline) {
			used, files := holds(t, store)
			t.Fatalf("%d bytes in %d files are counted, %v", used, files, err)
		}
	}
	must(t, os.Remove(filepath.Join(root, "alice", "of the application")))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := f.WriteAt(t.Context(), []byte("x"), 0); err != nil {
			t.Fatal(err)
		}
		_, _ = f.WriteAt(t.Context(), make([]byte, 8*block), 0) // more than fits, now and then
		if _, files := holds(t, store); files == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("what the application removed is counted still")
		}
	}
}

func TestAFileThatIsOpenCountsUntilItIsClosed(t *testing.T) {
	store, d, _ := limitedDrive(t, 10*block, 10)
	f := newFile(t, d, "file", make([]byte, 2*block))
	must(t, d.Unlink(t.Context(), blobstore.RootIno, "file"))
	_, err := f.WriteAt(t.Context(), make([]byte, 3*block), 2*block)
	must(t, err)
	must(t, f.Flush(t.Context()))
	if bytes, files := holds(t, store); bytes != 5*block || files != 1 {
		t.Errorf("open: got %d bytes in %d files", bytes, files)
	}
	if _, err := f.WriteAt(t.Context(), make([]byte, 1), 20*block); err != nil {
		t.Errorf("what fits: got %v", err)
	}
	n, err := f.WriteAt(t.Context(), make([]byte, 10*block), 5*block)
	if err != nil || n != 4*block {
		t.Errorf("wrote %d bytes, %v, and %d fit", n, err, 4*block)
	}
	must(t, f.Close())
	if bytes, files := holds(t, store); bytes != 0 || files != 0 {
		t.Errorf("closed: got %d bytes in %d files", bytes, files)
	}
}

// The kernel is not handed the files of a limited drive: what it writes itself, nobody charges. Nor can room be taken past the end of a file, where it does not count.
func TestNothingOfALimitedDriveGoesUncounted(t *testing.T) {
	store, d, _ := limitedDrive(t, 100*block, 0)
	f := newFile(t, d, "file", make([]byte, block))
	defer f.Close()
	if _, ok := f.(blobstore.Backed); ok {
		t.Error("the kernel is handed a file")
	}
	if err := f.Allocate(t.Context(), blobstore.AllocateKeepSize, 0, 50*block); !errors.Is(err, blobstore.ErrNotSupported) {
		t.Errorf("reserve past the end: got %v", err)
	}
	must(t, f.Allocate(t.Context(), blobstore.AllocateExtend, 0, 50*block))
	must(t, f.Flush(t.Context()))
	if bytes, _ := holds(t, store); bytes != 50*block {
		t.Errorf("got %d bytes", bytes)
	}
	if err := f.Allocate(t.Context(), blobstore.AllocateExtend, 50*block, 51*block); !errors.Is(err, blobstore.ErrQuota) {
		t.Errorf("reserve too much: got %v", err)
	}
	must(t, f.Allocate(t.Context(), blobstore.AllocatePunchHole, 0, 40*block))
	must(t, f.Flush(t.Context()))
	if bytes, _ := holds(t, store); bytes != 10*block {
		t.Errorf("with a hole: got %d bytes", bytes)
	}
}

// Several processes, each with a store of its own, fill a drive together.
func TestSeveralStoresShareAQuota(t *testing.T) {
	store, _, root := limitedDrive(t, 40*block, 0)
	var wait sync.WaitGroup
	written := make([]int64, 4)
	for i := range written {
		s := openStore(t, root)
		d, err := s.Open(t.Context(), session("alice"))
		must(t, err)
		_, err = d.Usage(t.Context())
		must(t, err)
		f := newFile(t, d, string(rune('a'+i)), nil)
		wait.Go(func() {
			for {
				n, err := f.WriteAt(t.Context(), bytes.Repeat([]byte("x"), block), written[i])
				written[i] += int64(n)
				if err != nil {
					if !errors.Is(err, blobstore.ErrQuota) {
						t.Errorf("store %d: got %v", i, err)
					}
					break
				}
			}
			if err := errors.Join(f.Flush(t.Context()), f.Close(), d.Close(t.Context())); err != nil {
				t.Error(err)
			}
			closeStore(t, s)
		})
	}
	wait.Wait()
	var sum int64
	for _, n := range written {
		sum += n
	}
	if bytes, _ := holds(t, store); sum != 40*block || bytes != 40*block {
		t.Errorf("wrote %d bytes, and %d are counted, want %d", sum, bytes, 40*block)
	}
}

// A file of quotas that can't be used keeps nobody from their files, but the log says that quotas are not kept. Setting one is an error.
func TestQuotasThatCannotBeReadAreTold(t *testing.T) {
	root := filepath.Join(t.TempDir(), "media")
	must(t, dirstore.Init(root))
	must(t, os.WriteFile(filepath.Join(root, ".mediafs", "quota.sqlite"), []byte(strings.Repeat("no database", 1000)), 0o600))
	var log bytes.Buffer
	store, err := dirstore.Open(root, slog.New(slog.NewTextHandler(&log, nil)))
	must(t, err)
	d, err := store.Open(t.Context(), session("alice"))
	must(t, err)
	f := newFile(t, d, "file", []byte("content"))
	must(t, errors.Join(f.Close(), d.Close(t.Context())))
	if err := dirstore.SetQuota(t.Context(), root, "alice", 1, 1); err == nil || !strings.Contains(err.Error(), "quota.sqlite") {
		t.Errorf("set a quota: got %v", err)
	}
	if _, err := dirstore.Quotas(t.Context(), root); err == nil {
		t.Error("the quotas are read")
	}
	closeStore(t, store)
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "is not kept") {
		t.Errorf("the log says %s", got)
	}
}
