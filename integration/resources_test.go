package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"
)

// A mountState is what mediafs status --json says of a mount, as far as these tests are about it.
type mountState struct {
	Mountpoint    string `json:"mountpoint"`
	Problem       string `json:"problem"`
	OpenFiles     int    `json:"open_files"`
	PendingBytes  int64  `json:"pending_bytes"`
	Requests      uint64 `json:"requests"`
	Errors        uint64 `json:"errors"`
	Goroutines    int    `json:"goroutines"`
	Descriptors   int    `json:"descriptors"`
	ResidentBytes int64  `json:"resident_bytes"`
	HeapBytes     int64  `json:"heap_bytes"`
}

func (s mountState) String() string {
	return fmt.Sprintf("%d requests (%d failed), %d open files, %d goroutines, %d descriptors, %d MiB of memory, %d MiB of them in use",
		s.Requests, s.Errors, s.OpenFiles, s.Goroutines, s.Descriptors, s.ResidentBytes>>20, s.HeapBytes>>20)
}

// state asks a mount how it is.
func (m *mount) state(t testing.TB) mountState {
	t.Helper()
	var list []mountState
	check(t, json.Unmarshal([]byte(m.s.mediafs(t, "status", "--json").ok(t)), &list))
	for _, state := range list {
		if state.Mountpoint == m.point && state.Problem == "" {
			return state
		}
	}
	t.Fatalf("mediafs status does not list %s: %+v", m.point, list)
	return mountState{}
}

// grownFrom says what a mount takes more than it did when it was idle before. There is room for what is opened when it is needed
// first (connections to the database, the audit log and its index), and for memory that the runtime has not given back.
func (s mountState) grownFrom(begin mountState) error {
	const (
		late   = 8
		memory = 20 << 20 // bytes
	)
	var err error
	more := func(what string, now, before, most int64) {
		if now > most {
			err = errors.Join(err, fmt.Errorf("%s: %d, and %d before: more than %d", what, now, before, most))
		}
	}
	more("goroutines", int64(s.Goroutines), int64(begin.Goroutines), int64(begin.Goroutines)*11/10+late)
	more("descriptors", int64(s.Descriptors), int64(begin.Descriptors), int64(begin.Descriptors)+late)
	more("bytes of memory in use", s.HeapBytes, begin.HeapBytes, begin.HeapBytes*13/10+memory)
	more("bytes of memory", s.ResidentBytes, begin.ResidentBytes, begin.ResidentBytes*13/10+memory)
	return err
}

// settled returns how a mount is once it has nothing to do, when nothing changes any more.
func (m *mount) settled(t testing.TB) mountState {
	t.Helper()
	var last mountState
	same := 0
	err := m.poll(t, func(now mountState) error {
		if now.OpenFiles == last.OpenFiles && now.PendingBytes == 0 && now.Goroutines == last.Goroutines && now.Descriptors == last.Descriptors {
			same++
		} else {
			same = 0
		}
		last = now
		if same < 3 {
			return fmt.Errorf("still changing: %v", now)
		}
		return nil
	})
	check(t, err)
	return last
}

// givenBack waits until a mount takes no more than it did when it was idle before. Memory is counted at each garbage collection, which
// an idle program does every two minutes.
func (m *mount) givenBack(t testing.TB, begin mountState) error {
	t.Helper()
	return m.poll(t, func(now mountState) error { return now.grownFrom(begin) })
}

// poll asks a mount how it is until an answer is good, for as long as it may take.
func (m *mount) poll(t testing.TB, good func(mountState) error) error {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(deadline)
	for {
		err := good(m.state(t))
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-limit:
			return err
		}
	}
}

// What is opened costs something, which can be seen; what is closed costs nothing any more.
func TestAMountGivesBackWhatItTakes(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		m := s.mount(t, s.addUser(t, "alice"))
		use := func() (files []*os.File) {
			for i := range 50 {
				file, err := os.Create(m.path(fmt.Sprint(i)))
				check(t, err)
				_, err = file.WriteString("held")
				check(t, err)
				files = append(files, file)
			}
			return files
		}
		closeAll := func(files []*os.File) {
			for _, file := range files {
				check(t, errors.Join(file.Close(), os.Remove(file.Name())))
			}
		}
		closeAll(use())
		begin := m.settled(t)
		if begin.Goroutines == 0 || begin.Descriptors == 0 || begin.ResidentBytes == 0 || begin.HeapBytes == 0 || begin.Requests == 0 {
			t.Errorf("mediafs status does not say what the mount takes: %+v", begin)
		}
		files := use()
		held := m.state(t)
		if held.OpenFiles != begin.OpenFiles+len(files) {
			t.Errorf("%d files are open, want %d", held.OpenFiles, begin.OpenFiles+len(files))
		}
		if err := held.grownFrom(begin); s.kind == folder && err == nil {
			t.Errorf("%d open files are not noticed: %v, and before %v", len(files), held, begin)
		}
		closeAll(files)
		check(t, m.givenBack(t, begin))
	})
}

func TestGrowthIsNoticed(t *testing.T) {
	t.Parallel()
	begin := mountState{Goroutines: 40, Descriptors: 30, ResidentBytes: 100 << 20, HeapBytes: 20 << 20}
	if err := begin.grownFrom(begin); err != nil {
		t.Errorf("the same: %v", err)
	}
	for what, grow := range map[string]func(*mountState){
		"goroutines":  func(s *mountState) { s.Goroutines += 20 },
		"descriptors": func(s *mountState) { s.Descriptors += 20 },
		"memory":      func(s *mountState) { s.ResidentBytes += 60 << 20 },
		"heap":        func(s *mountState) { s.HeapBytes += 40 << 20 },
	} {
		now := begin
		grow(&now)
		if now.grownFrom(begin) == nil {
			t.Errorf("more %s is not noticed", what)
		}
	}
}
