package dirstore_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
)

// opened records that a file was opened.
func opened(d blobstore.Drive, ino blobstore.Ino, path string) {
	d.Record(blobstore.Event{Time: time.Now(), Action: blobstore.ActionOpen, Ino: ino, Path: path, Count: 1, Result: blobstore.ResultOK})
}

// paths are those of the opens in a log, in order.
func paths(t *testing.T, media string) (list []string) {
	t.Helper()
	err := dirstore.AuditLog(t.Context(), media, blobstore.AuditQuery{}, func(r *blobstore.AuditRecord) bool {
		if r.Action == blobstore.ActionOpen {
			list = append(list, r.Path)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// media is a store with alice's drive, closed by the test itself, and a file in it.
func media(t *testing.T) (path string, write func(events func(d blobstore.Drive, ino blobstore.Ino)), count func() string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "media")
	if err := dirstore.Init(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(path, "alice"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "alice", "photo"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(do func(d blobstore.Drive, ino blobstore.Ino)) {
		t.Helper()
		store := openStore(t, path)
		defer closeStore(t, store)
		drive, err := store.Open(t.Context(), session("alice"))
		if err != nil {
			t.Fatal(err)
		}
		attr, err := drive.Lookup(t.Context(), root, "photo")
		if err != nil {
			t.Fatal(err)
		}
		do(drive, attr.Ino)
		if err := drive.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	count = func() (n string) {
		t.Helper()
		with(func(d blobstore.Drive, ino blobstore.Ino) {
			value, err := d.GetXattr(t.Context(), ino, blobstore.XattrAccessCount)
			if err != nil {
				t.Fatal(err)
			}
			n = string(value)
		})
		return n
	}
	return path, with, count
}

// logFile is this month's. A test that runs as a month ends finds the latest.
func logFile(t *testing.T, media string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(media, ".mediafs", "audit", "*.jsonl"))
	if err != nil || len(found) == 0 {
		t.Fatalf("got files %q, %v", found, err)
	}
	return found[len(found)-1]
}

func TestTheLogIsLinesForItsOwnerAlone(t *testing.T) {
	path, write, _ := media(t)
	write(func(d blobstore.Drive, ino blobstore.Ino) {
		opened(d, ino, "/Été & <Söhne>")
		opened(d, ino, "/bytes\xff\n\x00")
	})
	file := logFile(t, path)
	for name, want := range map[string]os.FileMode{file: 0o600, filepath.Dir(file): 0o700 | os.ModeDir, filepath.Join(path, ".mediafs", "index.sqlite"): 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: got %v, %v, want mode %v", name, info.Mode(), err, want)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"path":"/Été & <Söhne>"`, `"path_quoted":"\"/bytes\\xff\\n\\x00\""`} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("got\n%s\nwant %s in it", text, want)
		}
	}
	if got := paths(t, path); len(got) != 2 || got[1] != "/bytes\xff\n\x00" {
		t.Errorf("got %q", got)
	}
}

func TestALineThatACrashHasTornIsPassedOver(t *testing.T) {
	path, write, count := media(t)
	write(func(d blobstore.Drive, ino blobstore.Ino) { opened(d, ino, "/before") })
	file := logFile(t, path)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	torn := slices.Concat(text, text[:len(text)/2]) // ends within a line
	if torn[len(torn)-1] == '\n' {
		torn = torn[:len(torn)-1]
	}
	if err := os.WriteFile(file, torn, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := paths(t, path); len(got) == 0 || got[0] != "/before" {
		t.Errorf("got %q", got)
	}
	write(func(d blobstore.Drive, ino blobstore.Ino) { opened(d, ino, "/after") })
	if got := paths(t, path); got[len(got)-1] != "/after" {
		t.Errorf("got %q, want what was recorded after the crash too", got)
	}
	if got, want := count(), fmt.Sprint(len(paths(t, path))); got != want {
		t.Errorf("got count %s, want %s", got, want)
	}
}

func TestSeveralStoresWriteToOneLogAndCountOnce(t *testing.T) {
	path, write, count := media(t)
	const writers, events = 4, 500
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			write(func(d blobstore.Drive, ino blobstore.Ino) {
				for i := range events {
					opened(d, ino, fmt.Sprintf("/%d/%d", w, i))
				}
			})
		})
	}
	all.Wait()
	got := paths(t, path)
	if len(got) != writers*events {
		t.Errorf("got %d records, want %d", len(got), writers*events)
	}
	last := map[string]int{}
	for _, p := range got {
		var w, i int
		if _, err := fmt.Sscanf(p, "/%d/%d", &w, &i); err != nil {
			t.Fatal(err)
		}
		if next := last[fmt.Sprint(w)]; i != next {
			t.Fatalf("writer %d: got its record %d where %d was due", w, i, next)
		}
		last[fmt.Sprint(w)]++
	}
	if got := count(); got != fmt.Sprint(writers*events) {
		t.Errorf("got count %s, want %d", got, writers*events)
	}
}

func TestRecordsComeInTheOrderOfTimeWhoeverWroteFirst(t *testing.T) {
	path, write, _ := media(t)
	start := time.Now()
	for _, seconds := range []int{2, 0, 3, 1} { // a drive whose store was away writes late
		write(func(d blobstore.Drive, ino blobstore.Ino) {
			d.Record(blobstore.Event{Time: start.Add(time.Duration(seconds) * time.Second), Action: blobstore.ActionOpen, Ino: ino,
				Path: fmt.Sprint("/", seconds), Count: 1, Result: blobstore.ResultOK})
		})
	}
	if got, want := strings.Join(paths(t, path), " "), "/0 /1 /2 /3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAnIndexThatIsMissingOrBrokenIsMadeAnewFromTheLog(t *testing.T) {
	path, write, count := media(t)
	for range 3 {
		write(func(d blobstore.Drive, ino blobstore.Ino) { opened(d, ino, "/photo") })
	}
	index := filepath.Join(path, ".mediafs", "index.sqlite")
	for what, harm := range map[string]func() error{
		"nothing":           func() error { return nil },
		"it is removed":     func() error { return os.Remove(index) },
		"it is empty":       func() error { return os.WriteFile(index, nil, 0o600) },
		"it is other bytes": func() error { return os.WriteFile(index, bytes.Repeat([]byte("other "), 5000), 0o600) },
	} {
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		count() // the index follows the log when something is recorded, at the latest as a drive is closed
		if got := count(); got != "3" {
			t.Errorf("after %s: got count %s, want 3", what, got)
		}
	}
}

func TestAnIndexOfAnotherVersionIsLeftAlone(t *testing.T) {
	path, write, _ := media(t)
	write(func(d blobstore.Drive, ino blobstore.Ino) { opened(d, ino, "/photo") })
	index := filepath.Join(path, ".mediafs", "index.sqlite")
	before := dirstore.SetIndexVersion(t, index, 99)
	write(func(d blobstore.Drive, ino blobstore.Ino) {
		if value, err := d.GetXattr(t.Context(), ino, blobstore.XattrAccessCount); err == nil {
			t.Errorf("got count %s from an index that is not understood", value)
		}
		opened(d, ino, "/photo")
	})
	if got := len(paths(t, path)); got != 2 {
		t.Errorf("got %d records, want 2: the log does not need the index", got)
	}
	if after, err := os.ReadFile(index); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the index has changed, %v", err)
	}
}

func TestWhoMayNotWriteTheLogHasTheirDriveAllTheSame(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may: runs as an ordinary user")
	}
	path, _, _ := media(t)
	own := filepath.Join(path, ".mediafs")
	if err := os.Chmod(own, 0o500); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(own, 0o700)
	var out lockedBuffer
	store, err := dirstore.Open(path, slog.New(slog.NewTextHandler(&out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, store)
	for range 2 {
		drive, err := store.Open(t.Context(), session("alice"))
		if err != nil {
			t.Fatal(err)
		}
		opened(drive, 0, "/photo")
		if _, err := drive.Lookup(t.Context(), root, "photo"); err != nil {
			t.Error(err)
		}
		if err := drive.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if got := strings.Count(out.String(), "level=WARN"); got != 1 {
		t.Errorf("got %d warnings, want one:\n%s", got, out.String())
	}
}

// lockedBuffer is a log that is read by the test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
