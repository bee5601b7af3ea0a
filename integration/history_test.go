package integration

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A history is what one worker did to its folder, as far as a fault may take it back. Names change one operation after the other; a
// crash of the database may undo the last of them, back to the last operation that is durable, never half of one. But files that the database had
// not heard of yet are made after the crash. What was written to a file and not synced may be there or not, byte by byte.
type history struct {
	trees   []tree            // after the last operation that is durable, and after each since
	makings []step            // what leads from each of them to the next, where that made a file; else nil
	files   map[int]*contents // by number
	last    step              // the latest operation on names; nil: none since trees was brought up to date
	makes   bool              // last makes a file
	holds   bool              // last, if it gave no error, made durable that it can be done, and nothing else
	failed  bool              // last gave an error: it may be done or not
	durable bool              // last, if it gave none, made all before it durable
	log     []string          // what was done since something was durable, and that
}

// A tree is the names in a folder and below it, by path.
type tree map[string]entry

// An entry is what a name stands for.
type entry struct {
	kind   fileKind
	file   int    // of a file: its number, the same for each of its names; of a folder: its number
	target string // of a symbolic link
}

type fileKind string

const (
	aFile   fileKind = "file"
	aFolder fileKind = "folder"
	aLink   fileKind = "symbolic link"
)

// A step is what an operation does to the names. It gives false where it can't be done.
type step func(tree) (tree, bool)

func newHistory() *history {
	return &history{trees: []tree{{}}, files: make(map[int]*contents)}
}

// now is the names as they are if nothing is taken back.
func (h *history) now() tree {
	t := h.trees[len(h.trees)-1]
	if h.last == nil || h.failed {
		return t
	}
	next, ok := h.last(t)
	if !ok {
		panic("the worker did what can't be done")
	}
	return next
}

// settle has the latest operation be one of those before. If it failed, it was refused: nothing was done.
func (h *history) settle() {
	if h.last == nil {
		return
	}
	h.trees = append(h.trees, h.now())
	if h.makes && !h.failed {
		h.makings = append(h.makings, h.last)
	} else {
		h.makings = append(h.makings, nil)
	}
	if h.durable && !h.failed {
		h.trees, h.makings = h.trees[len(h.trees)-1:], nil
	}
	if h.holds && !h.failed {
		for i, t := range slices.Backward(h.trees) {
			if _, ok := h.last(t); !ok {
				h.trees, h.makings = h.trees[i+1:], h.makings[i+1:]
				break
			}
		}
	}
	h.last = nil
}

// do records an operation on names and does it. Afterwards it is the latest.
func (h *history) do(what string, last step, durable bool, operation func() error) error {
	h.settle()
	if h.durable && !h.failed {
		h.log = h.log[max(0, len(h.log)-1):]
	}
	h.last, h.durable, h.makes, h.holds, h.failed = last, durable, false, false, true
	err := operation()
	h.failed = err != nil
	h.log = append(h.log, fmt.Sprintf("%s (%v)", what, err))
	return err
}

// survivors are the trees that a crash of the database server may leave of all but the latest operation: as after one of them, and with files that
// were still to be made then.
func (h *history) survivors() (all []tree) {
	for i, t := range h.trees {
		left := []tree{t}
		for _, made := range h.makings[i:] {
			if made == nil {
				continue
			}
			for _, t := range left {
				if with, ok := made(t); ok {
					left = append(left, with)
				}
			}
		}
		all = append(all, left...)
	}
	return all
}

// possible are the trees that may be found. crashed: the database server did, while the latest operation went on. What came before may be lost
// then though the latest, done after it, is not.
func (h *history) possible(crashed bool) []tree {
	before := h.trees[len(h.trees)-1:]
	if crashed {
		before = h.survivors()
	}
	if h.last == nil {
		return before
	}
	var all []tree
	for _, t := range slices.Backward(before) {
		if after, ok := h.last(t); ok {
			all = append(all, after)
		}
		if h.failed || crashed && !h.durable && !h.holds {
			all = append(all, t)
		}
	}
	return all
}

// contents are what one file may hold.
type contents struct {
	sure      []byte    // when it was last durable
	latest    []byte    // now
	since     []stretch // what was written since it was durable
	least     int       // the smallest size since
	most      int       // the largest
	doubtful  bool      // an operation on it has failed
	unsettled bool      // it was made and nothing has been done since that needs it to be there: a program that is killed may not have made it yet
}

// A stretch is bytes at an offset.
type stretch struct {
	off  int
	data []byte
}

// write records that data is going to be written; wrote, that it was.
func (c *contents) write(off int, data []byte) {
	c.since = append(c.since, stretch{off, data})
	c.most = max(c.most, off+len(data))
}

func (c *contents) wrote(off int, data []byte) {
	if end := off + len(data); end > len(c.latest) {
		c.latest = append(c.latest, make([]byte, end-len(c.latest))...)
	}
	copy(c.latest[off:], data)
}

// cut records that the file is going to be as long as that; wasCut, that it is.
func (c *contents) cut(size int) {
	c.least, c.most = min(c.least, size), max(c.most, size)
	if size < c.most {
		c.since = append(c.since, stretch{size, make([]byte, c.most-size)})
	}
}

func (c *contents) wasCut(size int) {
	if size < len(c.latest) {
		c.latest = slices.Clone(c.latest[:size])
	} else {
		c.latest = append(c.latest, make([]byte, size-len(c.latest))...)
	}
}

// isDurable records that nothing of it can be lost any more. What has failed may still be done or not.
func (c *contents) isDurable() {
	if c.doubtful {
		return
	}
	c.unsettled = false
	c.sure, c.since = slices.Clone(c.latest), nil
	c.least, c.most = len(c.sure), len(c.sure)
}

// differs says in what the bytes are none that may be there. exact: nothing may be lost.
func (c *contents) differs(got []byte, exact bool) string {
	if bytes.Equal(got, c.latest) {
		return ""
	}
	if exact && !c.doubtful {
		return fmt.Sprintf("%d bytes that are not the %d that were written, from byte %d on", len(got), len(c.latest), firstDifference(got, c.latest))
	}
	if len(got) < c.least || len(got) > c.most {
		return fmt.Sprintf("%d bytes, want %d to %d", len(got), c.least, c.most)
	}
	at := func(b []byte, i int) byte {
		if i < len(b) {
			return b[i]
		}
		return 0
	}
next:
	for i, b := range got {
		if b == at(c.sure, i) {
			continue
		}
		for _, s := range c.since {
			if i >= s.off && i-s.off < len(s.data) && s.data[i-s.off] == b {
				continue next
			}
		}
		return fmt.Sprintf("byte %d of %d is neither as it was when it was durable nor what was written since", i, len(got))
	}
	return ""
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// found is what is really there under a path.
type found struct {
	kind   fileKind
	ino    uint64
	links  uint64
	bytes  []byte // of a file
	target string // of a symbolic link
}

// look reads all there is in a folder.
func look(dir string) (map[string]found, error) {
	all := make(map[string]found)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return &os.PathError{Op: "lstat", Path: path, Err: err}
		}
		f := found{ino: st.Ino, links: st.Nlink}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			f.kind = aFile
			f.bytes, err = os.ReadFile(path)
			if err == nil && int64(len(f.bytes)) != st.Size {
				err = fmt.Errorf("%s: %d bytes to read, and the size is %d", path, len(f.bytes), st.Size)
			}
		case unix.S_IFDIR:
			f.kind = aFolder
		case unix.S_IFLNK:
			f.kind = aLink
			f.target, err = os.Readlink(path)
		default:
			err = fmt.Errorf("%s has the mode %o", path, st.Mode)
		}
		all[strings.TrimPrefix(path, dir+"/")] = f
		return err
	})
	return all, err
}

// differs says in what a folder is none of those that the history allows; "" if it is one.
func (h *history) differs(got map[string]found, crashed, exact bool) string {
	var reasons []string
	for _, t := range h.possible(crashed) {
		reason := h.differsFrom(t, got, exact, !exact && !crashed)
		if reason == "" {
			return ""
		}
		if !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
	}
	return strings.Join(reasons, "; or ")
}

// killed: the program was, and the database was not.
func (h *history) differsFrom(want tree, got map[string]found, exact, killed bool) string {
	names := make(map[int]uint64)   // how many a file has
	inos := make(map[int]uint64)    // of files
	folders := map[string]uint64{}  // how many are in a folder
	numbers := make(map[uint64]int) // of inos
	for path, e := range want {
		if e.kind == aFile {
			names[e.file]++
		}
		if e.kind == aFolder {
			folders[filepath.Dir(path)]++
		}
	}
	for _, path := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[path]; !ok {
			return fmt.Sprintf("there is a %s %s", got[path].kind, path)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(want)) {
		e, f := want[path], got[path]
		switch {
		case f.kind == "" && killed && e.kind == aFile && h.files[e.file].unsettled:
			continue
		case f.kind == "":
			return fmt.Sprintf("there is no %s %s", e.kind, path)
		case e.kind != f.kind:
			return fmt.Sprintf("%s is a %s, want a %s", path, f.kind, e.kind)
		case e.target != f.target:
			return fmt.Sprintf("%s leads to %q, want %q", path, f.target, e.target)
		case e.kind == aFolder && f.links != 2+folders[path] && f.links != 1: // 1: a file system that does not count
			return fmt.Sprintf("folder %s has %d links, want %d", path, f.links, 2+folders[path])
		case e.kind != aFile:
			continue
		case f.links != names[e.file]:
			return fmt.Sprintf("%s has %d links, want %d", path, f.links, names[e.file])
		}
		if ino, ok := inos[e.file]; ok && ino != f.ino {
			return fmt.Sprintf("%s is not the file of another name that it was linked with", path)
		}
		if file, ok := numbers[f.ino]; ok && file != e.file {
			return fmt.Sprintf("%s is another file's name too", path)
		}
		inos[e.file], numbers[f.ino] = f.ino, e.file
		if reason := h.files[e.file].differs(f.bytes, exact); reason != "" {
			return path + " holds " + reason
		}
	}
	return ""
}
