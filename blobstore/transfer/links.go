package transfer

import (
	"context"
	"errors"
	"sync"

	"mediafs/blobstore"
)

// links knows which nodes of the sources have several names, so that those are names of one node at the target too.
type links struct {
	mu     sync.Mutex // guards groups, and all of a group but what its worker has
	groups map[linkKey]*group
}

// A linkKey tells a node from all others of all sources.
type linkKey struct {
	device     uint64
	ino        blobstore.Ino
	generation uint64
}

// A group is a node with several names. One worker at a time is busy with it: what comes meanwhile waits, and no worker for it.
type group struct {
	key     linkKey
	left    uint32 // names that have not come yet
	busy    bool
	waiting []*task

	// Of the busy worker.
	dst    blobstore.Ino  // at the target; 0: none yet
	attr   blobstore.Attr // of the source, as it was copied
	copied []*task        // to be removed from the source when all names are copied: until then, the source says which names are one node
	failed bool           // a name could not be copied: all stay in the source, so that the next run finds what they are names of
}

// take adds a task to the group of its node, and says whether it is to be given to a worker.
func (l *links) take(t *task) bool {
	key := linkKey{t.source.Device, t.src, t.attr.Generation}
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.groups[key]
	if g == nil {
		g = &group{key: key, left: t.attr.Nlink}
		l.groups[key] = g
	}
	t.group = g
	g.left -= min(g.left, 1)
	if g.busy {
		g.waiting = append(g.waiting, t)
		return false
	}
	g.busy = true
	return true
}

// next returns what has come meanwhile; if there is nothing, the worker is no longer busy with the group. over says that no names are to come.
func (l *links) next(g *group) (tasks []*task, over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tasks, g.waiting = g.waiting, nil
	if len(tasks) == 0 {
		g.busy = false
		if over = g.left == 0; over {
			delete(l.groups, g.key)
		}
	}
	return tasks, over
}

// linked does a task of a group, and those of the group that come meanwhile.
func (r *run) linked(ctx context.Context, t *task, buffer []byte) error {
	g := t.group
	for tasks := []*task{t}; ; {
		for _, t := range tasks {
			var err error
			if g.dst != 0 {
				err = r.link(ctx, t, buffer)
			} else if g.dst, err = r.copy(ctx, t, buffer); g.dst != 0 {
				g.attr = t.attr
			}
			g.failed = g.failed || err != nil
			if err == nil && r.options.Move {
				g.copied = append(g.copied, t)
			} else if err := r.finish(ctx, t, g.dst, err); err != nil {
				return err
			}
		}
		var over bool
		if tasks, over = r.links.next(g); over {
			return r.end(ctx, g)
		} else if len(tasks) == 0 {
			return nil
		}
	}
}

// end lets a group go.
func (r *run) end(ctx context.Context, g *group) error {
	for _, t := range g.copied {
		if err := r.finish(ctx, t, g.dst, nil); err != nil {
			return err
		}
	}
	if g.dst != 0 {
		r.to.Forget(g.dst, 1)
	}
	return nil
}

// endLinks ends the groups some of whose names are in no source.
func (r *run) endLinks(ctx context.Context) error {
	for _, g := range r.links.groups {
		g.failed = g.failed || r.unseen.Load() // they may be where this run could not look
		if err := r.end(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

// link gives what the group has at the target one more name.
func (r *run) link(ctx context.Context, t *task, buffer []byte) error {
	g := t.group
	waiting, _, stop := patient(ctx)
	defer stop()
	t.attr = g.attr // what was copied
	_, err := r.to.Link(waiting, g.dst, t.in.dst.Ino, t.name)
	switch {
	case err == nil:
		r.to.Forget(g.dst, 1)
		r.record(r.to, blobstore.ActionCreate, t.to(), g.dst)
	case errors.Is(err, blobstore.ErrExist):
		stop()
		err = r.relink(ctx, t, buffer)
	}
	if err == nil {
		r.progress.Links.Add(1)
	}
	return err
}

// relink makes a name that is there one of the group's, if what it stands for is a copy of the same node: a run that was killed has made it from
// another name.
func (r *run) relink(ctx context.Context, t *task, buffer []byte) error {
	g := t.group
	ctx, got, stop := patient(ctx)
	defer stop()
	there, err := r.to.Lookup(ctx, t.in.dst.Ino, t.name)
	if err != nil {
		return err
	}
	defer r.to.Forget(there.Ino, 1)
	if there.Ino == g.dst {
		return nil
	}
	if err := r.same(ctx, got, t, &there, buffer); err != nil {
		return err
	}
	// What goes is in the group's node too, so nothing is lost in between.
	if err := r.to.Unlink(ctx, t.in.dst.Ino, t.name); err != nil {
		return err
	}
	if _, err := r.to.Link(ctx, g.dst, t.in.dst.Ino, t.name); err != nil {
		return err
	}
	r.to.Forget(g.dst, 1)
	return nil
}
