package integration

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A worker does what programs do in a folder of its own, chosen by a seed, until it is stopped or something fails, and keeps its history.
type worker struct {
	*history
	folder  string // its path
	root    int    // a descriptor of it, which leads to the drive whatever becomes of the mountpoint
	random  *rand.Rand
	handles []*heldFile
	folders int  // made so far
	kept    bool // what was written is out of the program's hands at once, as on a store of folders

	operation string        // the latest
	err       error         // what ended it; nil: it was stopped
	wrong     string        // what it found that can't be
	refused   int           // operations for which the quota left no room
	longest   time.Duration // that an operation took
	slowest   string        // which
}

// A heldFile is a file that a worker has open.
type heldFile struct {
	fd      int
	file    int
	changed bool // since it was last durable
}

// crew are the workers of a job, in the job's process.
type crew struct {
	workers []*worker
	after   int64         // the moment is when as many operations have begun
	moment  chan struct{} // closed then
	ends    bool          // nobody begins an operation after the moment
	begun   atomic.Int64
	stopped atomic.Bool
	done    sync.WaitGroup
}

// assemble makes the workers of a job, each with a folder. kept: the mount is of a store of folders.
func assemble(folder string, seed uint64, after int64, ends, kept bool) (*crew, error) {
	c := &crew{after: after, moment: make(chan struct{}), ends: ends}
	for k := range workersOfAJob {
		w := &worker{history: newHistory(), folder: path.Join(folder, fmt.Sprintf("worker-%d", k)), kept: kept,
			random: rand.New(rand.NewPCG(seed, uint64(1+k)))}
		if err := unix.Mkdir(w.folder, 0o755); err != nil {
			return nil, err
		}
		var err error
		if w.root, err = unix.Open(w.folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return nil, err
		}
		// The folders themselves are not what is tested.
		if err := unix.Fsync(w.root); err != nil {
			return nil, err
		}
		c.workers = append(c.workers, w)
	}
	return c, nil
}

func (c *crew) start() {
	for _, w := range c.workers {
		c.done.Go(func() { w.work(c) })
	}
}

// finish waits for the workers to end and lets go of what they have open. It returns what ended them, what they found that can't be, among that
// an operation that took longer than limit, and how many operations the quota refused.
func (c *crew) finish(limit time.Duration) (failed, wrong []string, refused int) {
	c.stopped.Store(true)
	c.done.Wait()
	for _, w := range c.workers {
		refused += w.refused
		if w.err != nil {
			failed = append(failed, fmt.Sprintf("%s: %s: %v", w.folder, w.operation, w.err))
		}
		if w.wrong != "" {
			wrong = append(wrong, w.folder+": "+w.wrong)
		}
		if w.longest > limit {
			wrong = append(wrong, fmt.Sprintf("%s: %s took %v, which is longer than its deadline", w.folder, w.slowest, w.longest))
		}
		w.closeAll()
		if err := unix.Close(w.root); err != nil {
			wrong = append(wrong, w.folder+": close the folder: "+err.Error())
		}
	}
	return failed, wrong, refused
}

// closeAll closes what the worker has open, all at once: each may take until its deadline.
func (w *worker) closeAll() {
	errs := make([]error, len(w.handles))
	var closing sync.WaitGroup
	for i, h := range w.handles {
		closing.Go(func() { errs[i] = unix.Close(h.fd) })
	}
	closing.Wait()
	for i, h := range w.handles {
		_, nameless := w.named(h.file)(tree{})
		if c := w.files[h.file]; errs[i] != nil {
			c.doubtful = true
		} else if h.changed && !nameless {
			c.isDurable()
		}
	}
}

// check says which folders are not as their workers' histories allow, and in what. crashed: the database server did. exact: what was
// written is not lost even if it was not synced.
func (c *crew) check(crashed, exact bool) (wrong []string) {
	for _, w := range c.workers {
		got, err := look(w.folder)
		reason := w.differs(got, crashed, exact)
		if err != nil {
			reason = err.Error()
		}
		if reason != "" {
			wrong = append(wrong, fmt.Sprintf("%s: %s; since the last durable operation it did: %s; and then %s (%v)",
				w.folder, reason, strings.Join(w.log, ", "), w.operation, w.err))
		}
	}
	return wrong
}

// work goes on until the crew is stopped or an operation fails.
func (w *worker) work(c *crew) {
	operations := []struct {
		weight int
		what   string
		do     func() error
	}{
		{14, "create", w.create}, {8, "open", w.openAgain}, {24, "write", w.write}, {6, "truncate", w.truncate}, {3, "punch", w.punch},
		{8, "fsync", w.sync}, {10, "close", w.closeOne}, {6, "read", w.read}, {7, "rename", w.rename}, {2, "exchange", w.exchange},
		{3, "link", w.link}, {6, "unlink", w.unlink}, {2, "symlink", w.symlink}, {2, "mkdir", w.mkdir}, {1, "rmdir", w.rmdir},
		{2, "rename a folder", w.renameFolder}, {2, "fsync the folder", w.syncFolder},
	}
	total := 0
	for _, o := range operations {
		total += o.weight
	}
	for !c.stopped.Load() && w.err == nil && w.wrong == "" {
		chosen := w.random.IntN(total)
		for _, o := range operations {
			if chosen -= o.weight; chosen >= 0 {
				continue
			}
			if begun := c.begun.Add(1); begun == c.after {
				close(c.moment)
			} else if c.ends && begun > c.after {
				return
			}
			w.operation = o.what
			begun := time.Now()
			w.err = o.do()
			if errors.Is(w.err, unix.EDQUOT) { // it is told, and goes on: most of what it does takes no room
				w.refused++
				w.err = nil
			}
			if took := time.Since(begun); took > w.longest {
				w.longest, w.slowest = took, o.what
			}
			break
		}
	}
}

// retry does a system call again that a signal has interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// pick chooses one of the paths of a kind; "" if there is none.
func (w *worker) pick(kinds ...fileKind) string {
	t := w.now()
	var paths []string
	for p, e := range t {
		if slices.Contains(kinds, e.kind) {
			paths = append(paths, p)
		}
	}
	if len(paths) == 0 {
		return ""
	}
	slices.Sort(paths)
	return paths[w.random.IntN(len(paths))]
}

// free chooses a path that nothing has, in the folder or in one of those in it; "" if it is none this time.
func (w *worker) free() string {
	t := w.now()
	dir := ""
	if w.random.IntN(3) == 0 {
		dir = w.pick(aFolder)
	}
	p := path.Join(dir, string(rune('a'+w.random.IntN(12))))
	if _, taken := t[p]; taken {
		return ""
	}
	return p
}

// A place is where a path leads in a tree in which its folder may have another name: what an operation is done in is the folder, not the name. False: the
// folder is not there.
type place func(tree) (string, bool)

func (h *history) place(p string) place {
	dir, name := path.Split(p)
	folder := h.now()[path.Clean(dir)].file
	return func(t tree) (string, bool) {
		if dir == "" {
			return name, true
		}
		for p, e := range t {
			if e.kind == aFolder && e.file == folder {
				return path.Join(p, name), true
			}
		}
		return "", false
	}
}

// with is the step that gives a place something.
func with(p place, e entry) step {
	return func(t tree) (tree, bool) {
		at, ok := p(t)
		if _, taken := t[at]; !ok || taken {
			return nil, false
		}
		next := maps.Clone(t)
		next[at] = e
		return next, true
	}
}

const mostHandles = 6

func (w *worker) create() error {
	p := w.free()
	if p == "" || len(w.handles) >= mostHandles {
		return nil
	}
	number := len(w.files)
	w.files[number] = &contents{unsettled: !w.kept}
	h := &heldFile{file: number, changed: true}
	err := w.do("create "+p, with(w.place(p), entry{kind: aFile, file: number}), false, func() error {
		w.makes = true
		return retry(func() (err error) {
			h.fd, err = unix.Openat(w.root, p, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
			return err
		})
	})
	if err == nil {
		w.handles = append(w.handles, h)
	}
	return err
}

func (w *worker) openAgain() error {
	p := w.pick(aFile)
	if p == "" || len(w.handles) >= mostHandles {
		return nil
	}
	h := &heldFile{file: w.now()[p].file}
	err := retry(func() (err error) {
		h.fd, err = unix.Openat(w.root, p, unix.O_RDWR|unix.O_CLOEXEC, 0)
		return err
	})
	if err == nil {
		w.handles = append(w.handles, h)
	}
	return err
}

func (w *worker) anyHandle() *heldFile {
	if len(w.handles) == 0 {
		return nil
	}
	return w.handles[w.random.IntN(len(w.handles))]
}

// change is what all changes of a file's content have in common.
func (w *worker) change(h *heldFile, change func(c *contents) error) error {
	c := w.files[h.file]
	h.changed = true
	err := change(c)
	if err != nil && !errors.Is(err, unix.EDQUOT) { // what the quota refuses is not done
		c.doubtful = true
	} else if w.kept {
		c.isDurable()
	}
	return err
}

// largestFile is beyond a few chunks, and small enough for many moments.
const largestFile = 2 << 20

func (w *worker) write() error {
	h := w.anyHandle()
	if h == nil {
		return nil
	}
	size := 1 + w.random.IntN(8<<10)
	if w.random.IntN(8) == 0 {
		size = 1 + w.random.IntN(700<<10)
	}
	data := make([]byte, size)
	for i := 0; i < len(data); i += 8 {
		n := w.random.Uint64()
		for k := range min(8, len(data)-i) {
			data[i+k] = byte(n >> (8 * k))
		}
	}
	off := len(w.files[h.file].latest) // append
	if off+size > largestFile || w.random.IntN(3) == 0 {
		off = w.random.IntN(largestFile / 8)
	}
	return w.change(h, func(c *contents) error {
		c.write(off, data)
		for done := 0; done < len(data); {
			var n int
			err := retry(func() (err error) {
				n, err = unix.Pwrite(h.fd, data[done:], int64(off+done))
				return err
			})
			if err != nil {
				return err
			}
			c.wrote(off+done, data[done:done+n])
			done += n
		}
		return nil
	})
}

func (w *worker) truncate() error {
	h := w.anyHandle()
	if h == nil {
		return nil
	}
	size := w.random.IntN(1 + 2*len(w.files[h.file].latest))
	if w.random.IntN(4) == 0 {
		size = 0
	}
	return w.change(h, func(c *contents) error {
		c.cut(size)
		err := retry(func() error { return unix.Ftruncate(h.fd, int64(size)) })
		if err == nil {
			c.wasCut(size)
		}
		return err
	})
}

func (w *worker) punch() error {
	h := w.anyHandle()
	if h == nil || len(w.files[h.file].latest) == 0 {
		return nil
	}
	size := len(w.files[h.file].latest)
	off := w.random.IntN(size)
	hole := make([]byte, 1+w.random.IntN(size-off))
	return w.change(h, func(c *contents) error {
		c.write(off, hole)
		err := retry(func() error {
			return unix.Fallocate(h.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(len(hole)))
		})
		if err == nil {
			c.wrote(off, hole)
		}
		return err
	})
}

// named is the step of what makes a file durable: it has to be there.
func (w *worker) named(file int) step {
	t := w.now()
	has := func(t tree) bool {
		for _, e := range t {
			if e.kind == aFile && e.file == file {
				return true
			}
		}
		return false
	}
	was := has(t)
	return func(t tree) (tree, bool) { return t, !was || has(t) }
}

// durably is what fsync and close have in common. What makes nothing durable is none of the history. all: names are made durable too, not only that the
// file has one.
func (w *worker) durably(h *heldFile, all bool, operation func() error) error {
	if !h.changed {
		return operation()
	}
	c := w.files[h.file]
	step := w.named(h.file)
	if _, ok := step(tree{}); ok { // without a name there is nothing to be found
		return operation()
	}
	err := w.do(fmt.Sprintf("%s file %d", w.operation, h.file), step, all, func() error {
		w.holds = !all
		return operation()
	})
	if err != nil {
		c.doubtful = true
		return err
	}
	c.isDurable()
	h.changed = false
	return nil
}

func (w *worker) sync() error {
	h := w.anyHandle()
	if h == nil {
		return nil
	}
	return w.durably(h, true, func() error { return retry(func() error { return unix.Fsync(h.fd) }) })
}

func (w *worker) closeOne() error {
	h := w.anyHandle()
	if h == nil {
		return nil
	}
	w.handles = slices.DeleteFunc(w.handles, func(other *heldFile) bool { return other == h }) // close(2) closes even if it fails
	return w.durably(h, false, func() error { return unix.Close(h.fd) })
}

// read compares what is read of an open file with what was written.
func (w *worker) read() error {
	h := w.anyHandle()
	if h == nil {
		return nil
	}
	c := w.files[h.file]
	off := w.random.IntN(len(c.latest) + 1)
	buffer := make([]byte, 1+w.random.IntN(100<<10))
	var n int
	err := retry(func() (err error) {
		n, err = unix.Pread(h.fd, buffer, int64(off))
		return err
	})
	if want := c.latest[off:min(off+len(buffer), len(c.latest))]; err == nil && !bytes.Equal(buffer[:n], want) {
		w.wrong = fmt.Sprintf("file %d at %d reads as %d bytes that are not the %d that were written, from %d on", h.file, off, n, len(want),
			firstDifference(buffer[:n], want))
	}
	return err
}

// moved is the step of a renaming: what was at the new place is replaced.
func moved(source, target place) step {
	return func(t tree) (tree, bool) {
		from, ok := source(t)
		to, also := target(t)
		e, there := t[from]
		if !ok || !also || !there {
			return nil, false
		}
		if there, ok := t[to]; ok && e.kind == aFile && there.kind == aFile && there.file == e.file {
			return t, true // rename(2): two names of one file stay
		}
		next := make(tree)
		for p, e := range t {
			switch {
			case p == to:
			case p == from:
				next[to] = e
			case strings.HasPrefix(p, from+"/"):
				next[to+strings.TrimPrefix(p, from)] = e
			default:
				next[p] = e
			}
		}
		return next, true
	}
}

func (w *worker) rename() error {
	from, to := w.pick(aFile, aLink), w.free()
	if to == "" {
		to = w.pick(aFile)
	}
	if from == "" || to == "" || from == to {
		return nil
	}
	return w.settled(w.do("rename "+from+" "+to, moved(w.place(from), w.place(to)), false, func() error { return unix.Renameat(w.root, from, w.root, to) }), to)
}

func (w *worker) exchange() error {
	a, b := w.pick(aFile), w.pick(aFile)
	if a == "" || a == b {
		return nil
	}
	placeA, placeB := w.place(a), w.place(b)
	exchanged := func(t tree) (tree, bool) {
		a, _ := placeA(t)
		b, _ := placeB(t)
		one, ok := t[a]
		other, also := t[b]
		if !ok || !also {
			return nil, false
		}
		next := maps.Clone(t)
		next[a], next[b] = other, one
		return next, true
	}
	err := w.do("exchange "+a+" "+b, exchanged, false, func() error { return unix.Renameat2(w.root, a, w.root, b, unix.RENAME_EXCHANGE) })
	return w.settled(err, a, b)
}

func (w *worker) link() error {
	from, to := w.pick(aFile), w.free()
	if from == "" || to == "" {
		return nil
	}
	source, target := w.place(from), w.place(to)
	linked := func(t tree) (tree, bool) {
		from, _ := source(t)
		e, ok := t[from]
		if !ok {
			return nil, false
		}
		return with(target, e)(t)
	}
	return w.settled(w.do("link "+from+" "+to, linked, false, func() error { return unix.Linkat(w.root, from, w.root, to, 0) }), to)
}

// without is the step that takes away what is in a place.
func without(p place) step {
	return func(t tree) (tree, bool) {
		at, _ := p(t)
		if _, ok := t[at]; !ok {
			return nil, false
		}
		next := maps.Clone(t)
		delete(next, at)
		return next, true
	}
}

func (w *worker) unlink() error {
	p := w.pick(aFile, aLink)
	if p == "" {
		return nil
	}
	return w.do("remove "+p, without(w.place(p)), false, func() error { return unix.Unlinkat(w.root, p, 0) })
}

func (w *worker) symlink() error {
	p := w.free()
	if p == "" {
		return nil
	}
	target := fmt.Sprintf("to/%d", w.random.IntN(1000))
	return w.do("symlink "+p, with(w.place(p), entry{kind: aLink, target: target}), false, func() error { return unix.Symlinkat(target, w.root, p) })
}

func (w *worker) mkdir() error {
	p := fmt.Sprintf("d%d", w.random.IntN(4))
	if _, taken := w.now()[p]; taken {
		return nil
	}
	w.folders++
	return w.do("mkdir "+p, with(w.place(p), entry{kind: aFolder, file: w.folders}), false, func() error { return unix.Mkdirat(w.root, p, 0o755) })
}

func (w *worker) rmdir() error {
	p := w.pick(aFolder)
	if p == "" {
		return nil
	}
	for other := range w.now() {
		if strings.HasPrefix(other, p+"/") {
			return nil
		}
	}
	return w.do("remove "+p, without(w.place(p)), false, func() error { return unix.Unlinkat(w.root, p, unix.AT_REMOVEDIR) })
}

func (w *worker) renameFolder() error {
	from, to := w.pick(aFolder), fmt.Sprintf("d%d", w.random.IntN(4))
	if _, taken := w.now()[to]; from == "" || taken {
		return nil
	}
	return w.settled(w.do("rename "+from+" "+to, moved(w.place(from), w.place(to)), false, func() error { return unix.Renameat(w.root, from, w.root, to) }), to)
}

// settled records that what has these names is there, if the operation that ended with err did what it was to do.
func (w *worker) settled(err error, paths ...string) error {
	if err != nil {
		return err
	}
	t := w.now()
	for _, p := range paths {
		if e, ok := t[p]; ok && e.kind == aFile {
			w.files[e.file].unsettled = false
		}
	}
	return nil
}

// syncFolder makes the names durable.
func (w *worker) syncFolder() error {
	same := func(t tree) (tree, bool) { return t, true }
	return w.do(w.operation, same, true, func() error { return retry(func() error { return unix.Fsync(w.root) }) })
}
