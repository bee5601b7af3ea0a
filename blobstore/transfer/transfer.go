// Package transfer copies trees of nodes from one drive to another: what `mediafs import`, `export` and `migrate` do. A folder of this
// machine is a drive too (dirstore.OpenFolder), so there is one way for all of them.
//
// # What is copied
//
// Everything that a node is and has: content with its holes, modes, owners, times, extended attributes, symbolic links, special files, and which
// names are one node, across all sources of a run. Owners are copied as two mounts of whoever runs the program would show them.
//
// # What is promised
//
// A file in the making is known by its mode (see makingMode), which it loses when it is complete; it is read back and compared by its checksum. So a
// run that is killed leaves nothing that is taken for whole and is not, and the next run takes away what was in the making. A run that is done again goes on
// where the one before ended: what is there already with the same size, time and content is passed over.
//
// Nothing that is there is replaced. What can't be copied is told (Options.Problem), a line each, and the rest goes on. A source is
// removed (Options.Move) only when its copy is whole and durable and the source still is what was copied.
//
// Two runs into one folder at the same time do each other no harm: one may take away what the other has in the making, and that is
// then copied again.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
)

// A Source is a node that is copied, with what is in it.
type Source struct {
	Drive blobstore.Drive
	Ino   blobstore.Ino // a folder: the drive's root alone; anything else: beside Parent
	Name  string        // what it is called at the target; "": what is in it goes into the target itself

	// Where it is, if it is not the root.
	Parent     blobstore.Ino
	ParentName string

	Shown  string // what paths begin with in a Problem
	Device uint64 // of the file system it is on, if it is no drive of a store: numbers of nodes are unique in each
}

// A Target is the folder that sources go into.
type Target struct {
	Drive  blobstore.Drive
	Folder blobstore.Ino
	Path   string // of the folder, from the drive's root, "/a/b": for the audit log
	Whole  bool   // the folder gets the attributes of a source without a name
}

// Options say how it is done.
type Options struct {
	UID, GID uint32 // whoever runs this program
	Job      string // of the files that are copied; "": as they have it
	Move     bool   // remove what was copied

	// Problem is told of what was not copied, or not all of it. It is called by one goroutine at a time.
	Problem func(Problem)
}

// A Problem is why something was not copied, or not removed, or not all of what it has was copied.
type Problem struct {
	Path string // from Source.Shown on; bytes, as names are
	Why  error
}

// What a Problem may be, beside errors of the drives.
var (
	ErrConflict = errors.New("something else is there already")
	ErrChanged  = errors.New("it changed while it was copied")
	ErrDiffers  = errors.New("what was written reads back differently")
	ErrNotKept  = errors.New("it is copied, but not all that it has")
	ErrLeftover = errors.New("it is left of an import that did not end")
	ErrNoJobs   = errors.New("this store keeps no job ids")
	ErrNoAnswer = errors.New("no answer came from the store")
)

const (
	// workers copy at the same time. Most of the time they wait for the store, which does together what several ask for together.
	workers = 32

	// bufferSize is how much each of them holds of a file.
	bufferSize = 256 << 10

	// pageSize is how many entries of a folder are read at once.
	pageSize = 256

	// attempts is how often a file is copied that changes meanwhile.
	attempts = 3

	// patience is how long a drive may take for an answer. A run ends when it has none: what is left would fare no better.
	patience = time.Minute

	// partPrefix begins the names of what is being taken away.
	partPrefix = ".mediafs-part-"
)

// Progress is how far a run has come. Several runs may share one.
type Progress struct {
	FoundFiles, FoundBytes atomic.Int64 // what there is to copy, as far as that is known
	Counting               atomic.Int32 // runs that are still counting it

	Files, Bytes   atomic.Int64 // done with, whatever came of it; bytes also of files that are under way
	Copied         atomic.Int64 // files that were copied
	CopiedBytes    atomic.Int64
	Present        atomic.Int64 // files that were there already
	Folders, Links atomic.Int64 // folders, and further names of a file, that are there now
	Others         atomic.Int64 // symbolic links and special files that are there now
	Removed        atomic.Int64 // files that were removed from the source
}

// Run copies sources to a target. Its error is why it could not go on; what it could not copy it has told to Options.Problem.
func Run(ctx context.Context, sources []Source, target Target, o Options, p *Progress) error {
	r := &run{to: target.Drive, into: target.Folder, options: o, progress: p, links: links{groups: make(map[linkKey]*group)}, tasks: make(chan *task)}
	r.mine = fmt.Sprintf("%s%016x-", partPrefix, rand.Uint64())
	began := ctx
	g, ctx := errgroup.WithContext(ctx)
	for range workers {
		g.Go(func() error { return r.work(ctx) })
	}
	p.Counting.Add(1)
	counting, stop := context.WithCancel(ctx)
	defer stop()
	var counts sync.WaitGroup
	counts.Go(func() {
		defer p.Counting.Add(-1)
		for i := range sources {
			r.count(counting, &sources[i])
		}
	})
	g.Go(func() error {
		defer close(r.tasks)
		r.warm(ctx, target.Folder)
		if err := r.clean(ctx, target.Folder, target.Path); err != nil {
			return err
		}
		for i := range sources {
			if err := r.source(ctx, &sources[i], target); err != nil {
				return err
			}
		}
		return nil
	})
	err := g.Wait()
	stop()
	counts.Wait()
	if err == nil {
		err = r.endLinks(began)
	}
	return err
}

// A run is one call of Run.
type run struct {
	to       blobstore.Drive
	into     blobstore.Ino // the folder that sources go into
	options  Options
	progress *Progress
	links    links
	tasks    chan *task
	mine     string // begins the names that part gives
	parts    atomic.Uint64

	unseen  atomic.Bool // some of a source was not looked at
	telling sync.Mutex  // held while Problem is called
}

// part is a name for something that is about to be taken away.
func (r *run) part() string { return r.mine + fmt.Sprint(r.parts.Add(1)) }

// A folder is a folder that is being copied.
type folder struct {
	source *Source
	up     *folder // nil: the target, or the root of a source
	src    blobstore.Ino
	dst    blobstore.Attr // as it was made or found
	name   string
	path   string // as it is shown
	to     string // its path on the target
	attr   blobstore.Attr
	fresh  bool         // this run has made it, so nothing else is in it
	finish bool         // it gets the attributes of the source
	left   atomic.Int64 // what is in it and not done yet, and one while it is listed
	stays  atomic.Bool  // something in it was not removed from the source
}

// A task is a node to be copied that is no folder.
type task struct {
	in      *folder
	source  *Source
	src     blobstore.Ino
	parent  blobstore.Ino // of the source
	name    string        // there, and at the target unless it is the source itself
	attr    blobstore.Attr
	group   *group // nil: it has one name
	counted int64  // bytes of it that Progress knows
}

func (t *task) path() string { return t.in.path + "/" + t.name }

// source copies one source.
func (r *run) source(ctx context.Context, s *Source, target Target) error {
	top := &folder{source: s, path: s.Shown, to: target.Path}
	top.dst.Ino = target.Folder
	top.left.Store(1)
	waiting, _, stop := patient(ctx)
	defer stop()
	if s.Ino == blobstore.RootIno {
		attr, err := s.Drive.Attr(waiting, s.Ino)
		if err != nil {
			return r.unseenProblem(ctx, s.Shown, err)
		}
		top.src, top.attr, top.finish = s.Ino, attr, target.Whole
		if target.Whole {
			if top.dst, err = r.to.Attr(waiting, target.Folder); err != nil {
				return r.unseenProblem(ctx, s.Shown, err)
			}
		}
		if s.Name != "" {
			if top.dst, top.fresh, err = r.makeFolder(waiting, target.Folder, s.Name, &attr, s); err != nil {
				return r.unseenProblem(ctx, s.Shown, err)
			}
			top.to, top.finish = path.Join(target.Path, s.Name), true
			r.made(top.to, top.dst.Ino, top.fresh)
		}
		stop()
		return r.walk(ctx, top)
	}
	attr, err := s.Drive.Lookup(waiting, s.Parent, s.ParentName)
	stop()
	if err != nil {
		return r.unseenProblem(ctx, s.Shown, err)
	}
	top.path = strings.TrimSuffix(s.Shown, "/"+s.ParentName) // path adds it again
	if top.path == s.Shown {
		top.path = "."
	}
	return r.send(ctx, &task{in: top, source: s, src: attr.Ino, parent: s.Parent, name: s.ParentName, attr: attr})
}

// walk copies what is in a folder. Files go to the workers; folders are made here, so that the folder of whatever a worker copies is there.
func (r *run) walk(ctx context.Context, f *folder) error {
	if !f.fresh && f.dst.Ino != r.into {
		if err := r.clean(ctx, f.dst.Ino, f.path); err != nil {
			return err
		}
	}
	err := r.list(ctx, f.source, f.src, func(e *blobstore.Entry) error { return r.entry(ctx, f, e) }, func(err error) error {
		f.stays.Store(true)
		return r.unseenProblem(ctx, f.path, err)
	})
	if err != nil {
		return err
	}
	return r.done(ctx, f)
}

// entry copies what has one name in a folder, which it takes over.
func (r *run) entry(ctx context.Context, f *folder, e *blobstore.Entry) error {
	where := f.path + "/" + e.Name
	if isLeftover(e.Name, &e.Attr) {
		f.stays.Store(true)
		f.source.Drive.Forget(e.Attr.Ino, 1)
		return r.problem(ctx, where, ErrLeftover)
	}
	if !e.Attr.IsDir() {
		f.left.Add(1)
		return r.send(ctx, &task{in: f, source: f.source, src: e.Attr.Ino, parent: f.src, name: e.Name, attr: e.Attr})
	}
	in := &folder{
		source: f.source, up: f, src: e.Attr.Ino, name: e.Name, path: where, to: path.Join(f.to, e.Name), attr: e.Attr, finish: true,
	}
	in.left.Store(1)
	var err error
	waiting, _, stop := patient(ctx)
	in.dst, in.fresh, err = r.makeFolder(waiting, f.dst.Ino, e.Name, &e.Attr, f.source)
	stop()
	if err != nil {
		f.stays.Store(true)
		f.source.Drive.Forget(e.Attr.Ino, 1)
		return r.unseenProblem(ctx, where, err)
	}
	r.made(in.to, in.dst.Ino, in.fresh)
	f.left.Add(1)
	return r.walk(ctx, in)
}

// list calls take for each entry of a folder of the source, with its attributes and counted as looked up once, and failed for those that have none and
// for what keeps the rest from being listed.
func (r *run) list(ctx context.Context, s *Source, ino blobstore.Ino, take func(*blobstore.Entry) error, failed func(error) error) error {
	waiting, _, stop := patient(ctx)
	dir, err := s.Drive.OpenDir(waiting, ino)
	stop()
	if err != nil {
		return failed(err)
	}
	defer dir.Close()
	page := make([]blobstore.Entry, 0, pageSize)
	for after, ended := uint64(0), false; !ended; {
		page, ended = page[:0], true
		waiting, _, stop := patient(ctx)
		err := dir.Read(waiting, after, true, func(e *blobstore.Entry) bool {
			if len(page) == pageSize {
				ended = false
				return false
			}
			after = e.Position
			if e.Name != "." && e.Name != ".." {
				page = append(page, *e)
			}
			return true
		})
		stop()
		for i := range page {
			e := &page[i]
			if !e.Complete {
				waiting, _, stop := patient(ctx)
				attr, err := s.Drive.Lookup(waiting, ino, e.Name)
				stop()
				if errors.Is(err, blobstore.ErrNotExist) {
					continue // gone since it was listed, as if a moment before
				}
				if err != nil {
					if err := failed(fmt.Errorf("%q in it: %w", e.Name, err)); err != nil {
						return err
					}
					continue
				}
				e.Attr = attr
			}
			if err := take(e); err != nil {
				for _, rest := range page[i+1:] {
					if rest.Complete {
						s.Drive.Forget(rest.Attr.Ino, 1)
					}
				}
				return err
			}
		}
		if err != nil {
			return failed(err)
		}
	}
	return nil
}

// send gives a task to a worker, at once or when the names of the same node that came before are done.
func (r *run) send(ctx context.Context, t *task) error {
	if t.attr.Nlink > 1 && !r.links.take(t) {
		return nil
	}
	select {
	case r.tasks <- t:
		return nil
	case <-ctx.Done():
		t.source.Drive.Forget(t.src, 1)
		return context.Cause(ctx)
	}
}

// work does tasks until there are no more.
func (r *run) work(ctx context.Context) error {
	buffer := make([]byte, bufferSize)
	for t := range r.tasks {
		if err := r.task(ctx, t, buffer); err != nil {
			return err
		}
	}
	return nil
}

// makeFolder makes a folder at the target, open to whoever fills it, or finds it there.
func (r *run) makeFolder(ctx context.Context, parent blobstore.Ino, name string, attr *blobstore.Attr, s *Source) (made blobstore.Attr, fresh bool, err error) {
	node := r.newNode(attr, s)
	node.Mode = unix.S_IFDIR | attr.Mode&0o777 | 0o700
	if made, err = r.make(ctx, parent, name, node); !errors.Is(err, blobstore.ErrExist) {
		return made, err == nil, err
	}
	there, err := r.to.Lookup(ctx, parent, name)
	if err == nil && !there.IsDir() {
		r.to.Forget(there.Ino, 1)
		err = fmt.Errorf("%w, and is no folder", ErrConflict)
	}
	return there, false, err
}

// made counts a folder.
func (r *run) made(path string, ino blobstore.Ino, fresh bool) {
	r.progress.Folders.Add(1)
	if fresh {
		r.record(r.to, blobstore.ActionCreate, path, ino)
	}
}

// warm asks for names that are not there. A store in a database that can answer such questions from memory, and then makes new files without asking, learns from
// the first that it can, and from some more what is in the folder.
func (r *run) warm(ctx context.Context, folder blobstore.Ino) {
	const questions = 16
	waiting, _, stop := patient(ctx)
	defer stop()
	for range questions {
		_, _ = r.to.Lookup(waiting, folder, r.part()) // whatever is wrong, what follows meets it too
	}
}

// isLeftover says whether a file is one that a run did not complete.
func isLeftover(name string, a *blobstore.Attr) bool {
	return isInMaking(a) || a.IsRegular() && strings.HasPrefix(name, partPrefix)
}

// clean takes away what runs before were about to take away in a folder of the target.
func (r *run) clean(ctx context.Context, folder blobstore.Ino, path string) error {
	var parts []string
	waiting, got, stop := patient(ctx)
	defer stop()
	dir, err := r.to.OpenDir(waiting, folder)
	if err == nil {
		err = dir.Read(waiting, 0, false, func(e *blobstore.Entry) bool {
			got()
			if strings.HasPrefix(e.Name, partPrefix) && e.Attr.IsRegular() && !strings.HasPrefix(e.Name, r.mine) {
				parts = append(parts, e.Name)
			}
			return true
		})
		err = errors.Join(err, dir.Close())
	}
	for _, name := range parts {
		got()
		if gone := r.to.Unlink(waiting, folder, name); !errors.Is(gone, blobstore.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	if err != nil {
		return r.problem(ctx, path, fmt.Errorf("look for what is left of an import that did not end: %w", err))
	}
	return nil
}

// done takes something off what is left to do in a folder, and completes the folder, and those above it, when that was the last.
func (r *run) done(ctx context.Context, f *folder) error {
	for f != nil && f.left.Add(-1) == 0 {
		if err := r.complete(ctx, f); err != nil {
			return err
		}
		if f.stays.Load() && f.up != nil {
			f.up.stays.Store(true)
		}
		f = f.up
	}
	return nil
}

// complete gives a folder what the source has of attributes, now that nothing in it changes any more.
func (r *run) complete(ctx context.Context, f *folder) error {
	waiting, _, stop := patient(ctx)
	defer stop()
	if f.finish {
		names, err := xattrNames(waiting, f.source, f.src)
		var lost error
		if err == nil {
			lost, err = r.copyXattrs(waiting, f.source, names, f.src, f.dst.Ino, false)
		}
		if err == nil {
			err = r.setAttr(waiting, &f.dst, &f.attr, f.source)
		}
		if err == nil {
			err = lost
		}
		if err != nil {
			f.stays.Store(true)
			if err := r.problem(ctx, f.path, err); err != nil {
				return err
			}
		}
	}
	if r.options.Move && f.up != nil && !f.stays.Load() {
		if err := r.removeFolder(waiting, f); err != nil {
			f.stays.Store(true)
			if err := r.problem(ctx, f.path, fmt.Errorf("it is copied, but not removed: %w", err)); err != nil {
				return err
			}
		}
	}
	if f.finish && f.dst.Ino != r.into {
		r.to.Forget(f.dst.Ino, 1)
	}
	if f.src != 0 && f.src != blobstore.RootIno {
		f.source.Drive.Forget(f.src, 1)
	}
	return nil
}

// problem tells of what was not copied. It returns an error if the run can't go on.
func (r *run) problem(ctx context.Context, path string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, end := range []error{ErrNoAnswer, ErrNoJobs, auth.ErrInvalid, auth.ErrExpired, auth.ErrRevoked, auth.ErrBanned} {
		if errors.Is(err, end) {
			return err
		}
	}
	r.telling.Lock()
	defer r.telling.Unlock()
	r.options.Problem(Problem{Path: path, Why: err})
	return nil
}

// unseenProblem is problem for what keeps the run from looking at what there is in a source.
func (r *run) unseenProblem(ctx context.Context, path string, err error) error {
	r.unseen.Store(true)
	return r.problem(ctx, path, err)
}

// record notes in a drive's audit log what was done.
func (r *run) record(d blobstore.Drive, action blobstore.Action, path string, ino blobstore.Ino) {
	d.Record(blobstore.Event{
		Time: time.Now(), Action: action, Ino: ino, Path: path, Count: 1, UID: r.options.UID, Result: blobstore.ResultOK,
	})
}

// count counts what a source holds. What can't be listed is told when it is to be copied.
func (r *run) count(ctx context.Context, s *Source) {
	if s.Ino != blobstore.RootIno {
		attr, err := s.Drive.Lookup(ctx, s.Parent, s.ParentName)
		if err == nil {
			s.Drive.Forget(attr.Ino, 1)
			r.found(&attr)
		}
		return
	}
	var within func(ino blobstore.Ino) error
	within = func(ino blobstore.Ino) error {
		return r.list(ctx, s, ino, func(e *blobstore.Entry) error {
			defer s.Drive.Forget(e.Attr.Ino, 1)
			if e.Attr.IsDir() {
				return within(e.Attr.Ino)
			}
			r.found(&e.Attr)
			return ctx.Err()
		}, func(error) error { return ctx.Err() })
	}
	_ = within(s.Ino) // it was stopped
}

func (r *run) found(a *blobstore.Attr) {
	if a.IsRegular() {
		r.progress.FoundFiles.Add(1)
		r.progress.FoundBytes.Add(a.Size)
	}
}

// patient returns a context that ends with ErrNoAnswer when got has not been called for as long as patience. stop lets go of it.
func patient(ctx context.Context) (_ context.Context, got, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(patience, func() { cancel(fmt.Errorf("%w for %v", ErrNoAnswer, patience)) })
	return ctx, func() { timer.Reset(patience) }, func() {
		timer.Stop()
		cancel(nil)
	}
}
