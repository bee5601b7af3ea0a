// Package locktable keeps file locks in memory, as fcntl(2) and flock(2) want them: who holds what, who waits for whom.
//
// Where others than those who share the table hold locks too, a Claim asks for them: pgstore's asks the database. What is asked for is
// always all that is held of one node, so that asking twice is as good as once, and nothing but this package splits and merges ranges.
package locktable

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"mediafs/blobstore"
)

// An Owner holds locks. Mount is the attachment of the drive that it belongs to, where several share a table.
type Owner struct {
	Mount uint64
	ID    uint64
}

// A Held is a lock and whose it is.
type Held struct {
	blobstore.Lock
	Mount uint64
}

func (h Held) owner() Owner { return Owner{h.Mount, h.Owner} }

// A Claim makes the locks that are held on a node those in held, for all to see, or returns one that is in the way: then nothing is
// changed. After an error it may have happened or not. grows says that something of it was not held before. No two run at once for one node.
type Claim func(ctx context.Context, ino blobstore.Ino, held []Held, grows bool) (conflict *blobstore.Lock, err error)

// alone is the claim where nobody else holds locks.
func alone(context.Context, blobstore.Ino, []Held, bool) (*blobstore.Lock, error) { return nil, nil }

// A Table is the locks on the nodes of one drive. The zero Table is ready.
type Table struct {
	// Claim asks for locks; nil: whoever holds locks shares the table.
	Claim Claim

	mu    sync.Mutex // guards the rest
	nodes map[blobstore.Ino]*node
	waits map[*wait]struct{}
}

// A node is the locks on one node. It is in the table while it has any, or somebody is about it.
type node struct {
	ino  blobstore.Ino
	turn chan struct{} // has room for one: who changes locks is in it, from looking what is held until that is claimed

	// Guarded by Table.mu.
	users   int
	held    []Held
	dropped []func(Held) bool // what was dropped since who is in turn looked
	unclear bool              // it is not known whether what was claimed last is what is held
	waiters []*waiter         // who came first first
}

// A waiter is somebody who waits for a lock. Of those who are in each other's way one asks, and the others wait for it, so that asking
// others than the table costs no more than for one.
type waiter struct {
	lock Held

	// Guarded by Table.mu.
	asking bool
	ready  chan struct{} // closed when it is its time to ask; nil: it does not wait for that
	waits  wait          // for whom, while ready is not nil
}

// A wait is somebody who waits for a POSIX lock.
type wait struct{ owner, blocker Owner }

// How often a lock is asked for again that is held by one whose letting go we are not told of.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = 100 * time.Millisecond
)

// Set sets a lock, or takes it away: see blobstore.Locker.
func (t *Table) Set(ctx context.Context, ino blobstore.Ino, lock Held, waits bool) error {
	if err := lock.Check(); err != nil {
		return err
	}
	n := t.enter(ino)
	defer t.leave(n)
	conflict, _, err := t.try(ctx, n, lock)
	switch {
	case err != nil || !conflict:
		return err
	case !waits:
		return blobstore.ErrLocked
	}
	w := &waiter{lock: lock}
	defer t.giveUp(n, w)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		if err := t.queue(ctx, n, w); err != nil {
			return err
		}
		conflict, told, err := t.try(ctx, n, lock)
		if err != nil || !conflict {
			return err
		}
		if told { // somebody came between who did not wait
			t.mu.Lock()
			w.asking = false
			t.mu.Unlock()
			continue
		}
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// try sets a lock unless another is in the way. told says that that one is in the table.
func (t *Table) try(ctx context.Context, n *node, lock Held) (conflict, told bool, err error) {
	if err := n.take(ctx); err != nil {
		return false, false, err
	}
	defer n.pass()
	held := t.look(n)
	wanted := with(held, lock)
	if lock.Type == blobstore.LockNone {
		if slices.Equal(wanted, held) && !t.isUnclear(n) {
			return false, false, nil
		}
	} else if first(held, lock) != nil {
		return true, true, t.letGo(ctx, n, lock)
	}
	grows := grows(held, lock)
	other, err := t.claim(ctx, n, wanted, grows)
	if err != nil || other == nil {
		return false, false, err
	}
	if !grows {
		return false, false, fmt.Errorf("another has taken what was locked: %w", blobstore.ErrUnavailable)
	}
	return true, false, t.letGo(ctx, n, lock)
}

// letGo takes away the flock lock of an owner who asks for one of another type and can't have it: flock(2) says that it is lost. Two
// who share a lock and both want it alone would wait for each other otherwise.
func (t *Table) letGo(ctx context.Context, n *node, lock Held) error {
	if lock.Kind != blobstore.LockFlock {
		return nil
	}
	lock.Type = blobstore.LockNone
	held := t.look(n)
	without := with(held, lock)
	if slices.Equal(without, held) {
		return nil
	}
	_, err := t.claim(ctx, n, without, false)
	return err
}

// look returns what is held of a node. In turn.
func (t *Table) look(n *node) []Held {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.dropped = nil
	return n.held
}

// claim makes the locks of a node what is wanted, unless another is in the way. In turn.
func (t *Table) claim(ctx context.Context, n *node, wanted []Held, grows bool) (*blobstore.Lock, error) {
	claim := t.Claim
	if claim == nil {
		claim = alone
	}
	conflict, err := claim(ctx, n.ino, wanted, grows)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		n.unclear = true
		return nil, err
	}
	if conflict != nil {
		return conflict, nil
	}
	n.unclear = len(n.dropped) > 0
	for _, of := range n.dropped {
		wanted = slices.DeleteFunc(slices.Clone(wanted), of)
	}
	gone := slices.ContainsFunc(n.held, func(h Held) bool { return !slices.Contains(wanted, h) })
	n.held = wanted
	if gone {
		n.wake()
	}
	return nil, nil
}

// queue returns when it is a waiter's time to ask for its lock: when nothing held here is in the way, nor another waiter that is asking.
func (t *Table) queue(ctx context.Context, n *node, w *waiter) error {
	t.mu.Lock()
	if w.asking {
		t.mu.Unlock()
		return nil
	}
	if !slices.Contains(n.waiters, w) {
		n.waiters = append(n.waiters, w)
	}
	blocker := first(n.taken(), w.lock)
	if blocker == nil {
		w.asking = true
		t.mu.Unlock()
		return nil
	}
	w.waits = wait{owner: w.lock.owner(), blocker: blocker.owner()}
	if w.lock.Kind == blobstore.LockPosix {
		if t.leadsTo(w.waits.blocker, w.waits.owner) {
			t.mu.Unlock()
			return blobstore.ErrDeadlock
		}
		if t.waits == nil {
			t.waits = make(map[*wait]struct{})
		}
		t.waits[&w.waits] = struct{}{}
	}
	ready := make(chan struct{})
	w.ready = ready
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.waits, &w.waits)
	}()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// giveUp takes a waiter out who has its lock or wants it no more.
func (t *Table) giveUp(n *node, w *waiter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(n.waiters, w); i >= 0 {
		n.waiters = slices.Delete(n.waiters, i, i+1)
	}
	n.wake()
}

// taken is what is held of a node, and what those ask for whose time it is. With mu.
func (n *node) taken() []Held {
	taken := slices.Clone(n.held)
	for _, w := range n.waiters {
		if w.asking {
			taken = append(taken, w.lock)
		}
	}
	return taken
}

// wake has those ask whose time it is, who came first first. With mu.
func (n *node) wake() {
	if len(n.waiters) == 0 {
		return
	}
	taken := n.taken()
	for _, w := range n.waiters {
		if w.asking || w.ready == nil {
			continue
		}
		if blocker := first(taken, w.lock); blocker != nil {
			w.waits.blocker = blocker.owner()
			continue
		}
		w.asking = true
		close(w.ready)
		w.ready = nil
		taken = append(taken, w.lock)
	}
}

// leadsTo says whether an owner waits for another, or for one who does. With mu.
func (t *Table) leadsTo(from, to Owner) bool {
	seen := map[Owner]bool{}
	next := []Owner{from}
	for len(next) > 0 {
		owner := next[0]
		next = next[1:]
		if owner == to {
			return true
		}
		if seen[owner] {
			continue
		}
		seen[owner] = true
		for w := range t.waits {
			if w.owner == owner {
				next = append(next, w.blocker)
			}
		}
	}
	return false
}

// Test returns a lock that is in the way of another, nil if none is that is known here.
func (t *Table) Test(ino blobstore.Ino, lock Held) *Held {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.nodes[ino]; n != nil {
		return first(n.held, lock)
	}
	return nil
}

// Drop takes away all locks on a node, or with ino 0 on any, for which of says so. Those are gone here whatever happens; if the claim fails
// that says so, Settle does it.
func (t *Table) Drop(ctx context.Context, ino blobstore.Ino, of func(Held) bool) error {
	var errs []error
	for _, n := range t.enterAll(func(n *node) bool { return (ino == 0 || n.ino == ino) && slices.ContainsFunc(n.held, of) }) {
		errs = append(errs, t.dropOf(ctx, n, of))
		t.leave(n)
	}
	return errors.Join(errs...)
}

func (t *Table) dropOf(ctx context.Context, n *node, of func(Held) bool) error {
	t.mu.Lock()
	n.held = slices.DeleteFunc(slices.Clone(n.held), of)
	n.dropped = append(n.dropped, of)
	n.unclear = true
	n.wake()
	t.mu.Unlock()
	if err := n.take(ctx); err != nil {
		return err
	}
	defer n.pass()
	held := t.look(n)
	_, err := t.claim(ctx, n, held, false)
	return err
}

// Settle claims again what is held of the nodes of which it is not known whether the last claim happened, or with all of every node. lost is
// told of nodes whose locks somebody else holds: nothing is held of them any more.
func (t *Table) Settle(ctx context.Context, all bool, lost func(blobstore.Ino)) error {
	var errs []error
	for _, n := range t.enterAll(func(n *node) bool { return all || n.unclear }) {
		errs = append(errs, t.settle(ctx, n, lost))
		t.leave(n)
	}
	return errors.Join(errs...)
}

func (t *Table) settle(ctx context.Context, n *node, lost func(blobstore.Ino)) error {
	if err := n.take(ctx); err != nil {
		return err
	}
	defer n.pass()
	held := t.look(n)
	conflict, err := t.claim(ctx, n, held, false)
	if err != nil || conflict == nil {
		return err
	}
	lost(n.ino)
	t.mu.Lock()
	n.held, n.unclear = nil, true
	n.wake()
	t.mu.Unlock()
	_, err = t.claim(ctx, n, nil, false)
	return err
}

// Nodes are those of which something is held, or may be.
func (t *Table) Nodes() []blobstore.Ino {
	t.mu.Lock()
	defer t.mu.Unlock()
	inos := make([]blobstore.Ino, 0, len(t.nodes))
	for ino := range t.nodes {
		inos = append(inos, ino)
	}
	return inos
}

// Holds says whether anything is held of a node.
func (t *Table) Holds(ino blobstore.Ino) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[ino]
	return n != nil && len(n.held) > 0
}

func (t *Table) isUnclear(n *node) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.unclear
}

func (t *Table) enter(ino blobstore.Ino) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[ino]
	if n == nil {
		n = &node{ino: ino, turn: make(chan struct{}, 1)}
		if t.nodes == nil {
			t.nodes = make(map[blobstore.Ino]*node)
		}
		t.nodes[ino] = n
	}
	n.users++
	return n
}

func (t *Table) enterAll(which func(*node) bool) []*node {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*node
	for _, n := range t.nodes {
		if which(n) {
			n.users++
			all = append(all, n)
		}
	}
	return all
}

func (t *Table) leave(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.users--
	if n.users == 0 && len(n.held) == 0 && !n.unclear {
		delete(t.nodes, n.ino)
	}
}

func (n *node) take(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case n.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (n *node) pass() { <-n.turn }

// first returns the first lock of others that is in the way of one; nil if there is none.
func first(held []Held, lock Held) *Held {
	for _, h := range held {
		if h.owner() != lock.owner() && h.Excludes(lock.Lock) {
			return &h
		}
	}
	return nil
}

// grows says whether a lock is more than what its owner holds already.
func grows(held []Held, lock Held) bool {
	if lock.Type == blobstore.LockNone {
		return false
	}
	at := lock.Start // held is sorted
	for _, h := range held {
		if h.owner() != lock.owner() || h.Kind != lock.Kind || h.Type < lock.Type || h.Start > at || h.End < at {
			continue
		}
		if h.End >= lock.End {
			return false
		}
		at = h.End + 1
	}
	return true
}

// with returns locks, sorted by where they begin, in which the owner's of one kind are on one range what lock says. What they were there
// is cut out; what then touches or overlaps and is alike becomes one.
func with(held []Held, lock Held) []Held {
	var all []Held
	for _, h := range held {
		same := h.owner() == lock.owner() && h.Kind == lock.Kind
		if same && h.Type == lock.Type && touches(h, lock) {
			lock.Start, lock.End = min(lock.Start, h.Start), max(lock.End, h.End)
			continue
		}
		if !same || h.End < lock.Start || lock.End < h.Start {
			all = append(all, h)
			continue
		}
		if h.Start < lock.Start {
			left := h
			left.End = lock.Start - 1
			all = append(all, left)
		}
		if lock.End < h.End {
			right := h
			right.Start = lock.End + 1
			all = append(all, right)
		}
	}
	if lock.Type != blobstore.LockNone {
		all = append(all, lock)
	}
	slices.SortStableFunc(all, func(a, b Held) int {
		switch {
		case a.Start < b.Start:
			return -1
		case a.Start > b.Start:
			return 1
		}
		return 0
	})
	return all
}

// touches says whether two ranges overlap, or one begins where the other ends.
func touches(a, b Held) bool {
	return (b.End == blobstore.LockMax || a.Start <= b.End+1) && (a.End == blobstore.LockMax || b.Start <= a.End+1)
}
