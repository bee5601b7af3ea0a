package storetest

import (
	"context"
	"slices"

	"mediafs/blobstore"
)

// Locks are tested on stores whose drives are Lockers: the others leave them to the kernel.
var lockTests = []test{
	{"locks that exclude each other are not held at once", lockTest(func(w *world, one, other locker) {
		ino := w.mkfile(root, "a", "content")
		for _, kind := range []blobstore.LockKind{blobstore.LockPosix, blobstore.LockFlock} {
			for _, c := range []struct{ held, asked, want blobstore.LockType }{
				{blobstore.LockRead, blobstore.LockRead, blobstore.LockNone},
				{blobstore.LockRead, blobstore.LockWrite, blobstore.LockRead},
				{blobstore.LockWrite, blobstore.LockRead, blobstore.LockWrite},
				{blobstore.LockWrite, blobstore.LockWrite, blobstore.LockWrite},
			} {
				for _, second := range []locker{one, other} {
					held, asked := whole(kind, c.held, 1), whole(kind, c.asked, 2)
					one.sets(ino, held)
					second.finds(ino, asked, c.want)
					second.trySet(ino, asked, c.want)
					second.releases(ino, asked)
					one.releases(ino, held)
					second.finds(ino, asked, blobstore.LockNone)
				}
			}
		}
	})},
	{"locks of two kinds do not meet", lockTest(func(w *world, one, other locker) {
		ino := w.mkfile(root, "a", "")
		one.sets(ino, whole(blobstore.LockPosix, blobstore.LockWrite, 1))
		other.sets(ino, whole(blobstore.LockFlock, blobstore.LockWrite, 1))
	})},
	{"owners of one number are different ones where the drive is attached twice", lockTest(func(w *world, one, other locker) {
		ino := w.mkfile(root, "a", "")
		lock := whole(blobstore.LockPosix, blobstore.LockWrite, 1)
		one.sets(ino, lock)
		one.sets(ino, lock)
		other.trySet(ino, lock, blobstore.LockWrite)
	})},
	{"a range is split and put together", lockTest(func(w *world, one, other locker) {
		ino := w.mkfile(root, "a", "")
		set := func(t blobstore.LockType, start, end int64) {
			w.Helper()
			one.sets(ino, blobstore.Lock{Type: t, Owner: 1, Start: start, End: end})
		}
		are := func(want ...blobstore.Lock) {
			w.Helper()
			for _, l := range []locker{one, other} {
				if got := l.ranges(ino); !slices.Equal(got, want) {
					w.Fatalf("held are %v, want %v", got, want)
				}
			}
		}
		held := func(t blobstore.LockType, start, end int64) blobstore.Lock {
			return blobstore.Lock{Type: t, Start: start, End: end}
		}
		const none, read, write = blobstore.LockNone, blobstore.LockRead, blobstore.LockWrite
		set(write, 0, 99)
		are(held(write, 0, 99))
		set(none, 40, 59)
		are(held(write, 0, 39), held(write, 60, 99))
		set(read, 30, 69)
		are(held(write, 0, 29), held(read, 30, 69), held(write, 70, 99))
		set(write, 30, 69)
		are(held(write, 0, 99))
		set(write, 100, 199) // next to it
		are(held(write, 0, 199))
		set(read, 500, blobstore.LockMax)
		set(read, 300, 499)
		are(held(write, 0, 199), held(read, 300, blobstore.LockMax))
		set(none, 0, blobstore.LockMax)
		are()
	})},
	{"a lock that can't be had changes nothing of what is held", lockTest(func(w *world, one, other locker) {
		ino := w.mkfile(root, "a", "")
		other.sets(ino, blobstore.Lock{Type: blobstore.LockRead, Owner: 1, Start: 50, End: 59})
		mine := blobstore.Lock{Type: blobstore.LockRead, Owner: 1, Start: 0, End: 99}
		one.sets(ino, mine)
		mine.Type = blobstore.LockWrite
		one.trySet(ino, mine, blobstore.LockRead)
		other.sets(ino, blobstore.Lock{Type: blobstore.LockRead, Owner: 2, Start: 0, End: 99})
		other.trySet(ino, blobstore.Lock{Type: blobstore.LockWrite, Owner: 3, Start: 0, End: 0}, blobstore.LockRead)
	})},
	{"whoever waits gets the lock when it is free", lockTest(func(w *world, one, other locker) {
		ino := w.mkfile(root, "a", "")
		for _, kind := range []blobstore.LockKind{blobstore.LockPosix, blobstore.LockFlock} {
			held := whole(kind, blobstore.LockWrite, 1)
			one.sets(ino, held)
			const each = 5
			got := make(chan error, 2*each)
			for i := range uint64(each) {
				for _, l := range []locker{one, other} {
					go func() {
						mine := whole(kind, blobstore.LockWrite, 10+i)
						_, err := l.SetLock(w.ctx, ino, mine, true)
						l.ReleaseLocks(w.ctx, ino, kind, mine.Owner)
						got <- err
					}()
				}
			}
			one.releases(ino, held)
			for range cap(got) {
				w.ok(<-got, "wait for the lock")
			}
		}
	})},
	{"waiting ends with its context", lockTest(func(w *world, one, other locker) {
		ino := w.mkfile(root, "a", "")
		lock := whole(blobstore.LockPosix, blobstore.LockWrite, 1)
		one.sets(ino, lock)
		for _, l := range []locker{one, other} {
			ctx, cancel := context.WithCancel(w.ctx)
			got := make(chan error, 1)
			lock.Owner = 2
			go func() {
				_, err := l.SetLock(ctx, ino, lock, true)
				got <- err
			}()
			cancel()
			w.gives(<-got, context.Canceled, "wait for a lock")
		}
	})},
	{"two who share a flock lock and both want it alone get it one after the other", lockTest(func(w *world, one, other locker) {
		ino := w.mkfile(root, "a", "")
		got := make(chan error, 2)
		for i, l := range []locker{one, other} {
			l.sets(ino, whole(blobstore.LockFlock, blobstore.LockRead, uint64(i)))
		}
		for i, l := range []locker{one, other} {
			go func() {
				mine := whole(blobstore.LockFlock, blobstore.LockWrite, uint64(i))
				_, err := l.SetLock(w.ctx, ino, mine, true)
				l.ReleaseLocks(w.ctx, ino, mine.Kind, mine.Owner)
				got <- err
			}()
		}
		for range cap(got) {
			w.ok(<-got, "wait for the lock")
		}
	})},
	{"who would wait for ever is told", lockTest(func(w *world, one, _ locker) {
		ino := w.mkfile(root, "a", "")
		first := blobstore.Lock{Type: blobstore.LockWrite, Owner: 1, Start: 0, End: 0}
		second := blobstore.Lock{Type: blobstore.LockWrite, Owner: 2, Start: 1, End: 1}
		one.sets(ino, first)
		one.sets(ino, second)
		got := make(chan error, 2)
		wait := func(owner uint64, start int64) {
			_, err := one.SetLock(w.ctx, ino, blobstore.Lock{Type: blobstore.LockWrite, Owner: owner, Start: start, End: start}, true)
			got <- err
		}
		go wait(1, 1)
		go wait(2, 0)
		w.gives(<-got, blobstore.ErrDeadlock, "wait for one who waits for oneself")
		one.releases(ino, first)
		one.releases(ino, second)
		w.ok(<-got, "wait for the lock")
	})},
	{"a closed drive holds no locks", lockTest(func(w *world, one, other locker) {
		ino := w.mkfile(root, "a", "")
		lock := whole(blobstore.LockFlock, blobstore.LockWrite, 1)
		other.sets(ino, lock)
		one.trySet(ino, lock, blobstore.LockWrite)
		w.closeDrive(other.drive)
		one.sets(ino, lock)
	})},
	{"the locks of two users never meet", lockTest(func(w *world, one, _ locker) {
		bob := w.on(w.openDrive("bob"))
		ino, his := w.mkfile(root, "a", ""), bob.mkfile(root, "a", "")
		if ino != his {
			w.Logf("their files have the numbers %d and %d", ino, his)
		}
		lock := whole(blobstore.LockPosix, blobstore.LockWrite, 1)
		one.sets(ino, lock)
		newLocker(bob).sets(his, lock)
		newLocker(bob).finds(his, whole(blobstore.LockPosix, blobstore.LockWrite, 2), blobstore.LockWrite)
	})},
	{"who has a lock sees what was written under it before", lockTest(func(w *world, one, other locker) {
		f, ino := w.create(root, "a")
		w.write(f, 0, "first.")
		w.ok(f.Sync(w.ctx), "sync")
		there := w.on(other.drive)
		g := there.openFile(ino)
		lock := whole(blobstore.LockPosix, blobstore.LockWrite, 1)
		for _, content := range []string{"second", "third."} {
			one.sets(ino, lock)
			w.write(f, 0, content)
			one.releases(ino, lock)
			other.sets(ino, lock)
			w.same(there.readAt(g, 0, 6), content, "what the other reads")
			there.write(g, 6, content)
			other.unlocks(ino, lock)
			one.sets(ino, lock)
			w.same(w.readAt(f, 0, 12), content+content, "what the first reads then")
			one.unlocks(ino, lock)
		}
		there.close(g)
		w.close(f)
	})},
	{"a lock that can't be is refused", lockTest(func(w *world, one, _ locker) {
		ino := w.mkfile(root, "a", "")
		for _, lock := range []blobstore.Lock{
			{Type: blobstore.LockRead, Start: -1}, {Type: blobstore.LockRead, Start: 2, End: 1},
			{Type: blobstore.LockWrite, Kind: blobstore.LockFlock, End: 1},
		} {
			_, err := one.SetLock(w.ctx, ino, lock, false)
			w.gives(err, blobstore.ErrInvalid, "set lock %v", lock)
			_, err = one.TestLock(w.ctx, ino, lock)
			w.gives(err, blobstore.ErrInvalid, "test lock %v", lock)
		}
		_, err := one.SetLock(w.ctx, noIno, whole(blobstore.LockPosix, blobstore.LockRead, 1), false)
		w.gives(err, blobstore.ErrNotExist, "lock a node that is not there")
	})},
}

// lockTest is a test with alice's drive attached twice.
func lockTest(run func(w *world, one, other locker)) func(*world) {
	return func(w *world) {
		if blobstore.LockerOf(w.drive) == nil {
			w.Skip("the drives of this store are no Lockers")
		}
		run(w, newLocker(w), newLocker(w.on(w.openDrive("alice"))))
	}
}

// A locker is an attached drive that is to be locked.
type locker struct {
	blobstore.Locker
	*world
}

func newLocker(w *world) locker { return locker{blobstore.LockerOf(w.drive), w} }

func whole(kind blobstore.LockKind, t blobstore.LockType, owner uint64) blobstore.Lock {
	return blobstore.Lock{Kind: kind, Type: t, Owner: owner, End: blobstore.LockMax, Pid: 1}
}

func (l locker) sets(ino blobstore.Ino, lock blobstore.Lock) {
	l.Helper()
	_, err := l.SetLock(l.ctx, ino, lock, false)
	l.ok(err, "set lock %v", lock)
}

// trySet sets a lock that one of a type is in the way of.
func (l locker) trySet(ino blobstore.Ino, lock blobstore.Lock, inTheWay blobstore.LockType) {
	l.Helper()
	_, err := l.SetLock(l.ctx, ino, lock, false)
	if inTheWay == blobstore.LockNone {
		l.ok(err, "set lock %v", lock)
		return
	}
	l.gives(err, blobstore.ErrLocked, "set lock %v", lock)
}

func (l locker) unlocks(ino blobstore.Ino, lock blobstore.Lock) {
	l.Helper()
	lock.Type = blobstore.LockNone
	l.sets(ino, lock)
}

func (l locker) releases(ino blobstore.Ino, lock blobstore.Lock) {
	l.ReleaseLocks(l.ctx, ino, lock.Kind, lock.Owner)
}

func (l locker) finds(ino blobstore.Ino, lock blobstore.Lock, want blobstore.LockType) {
	l.Helper()
	got, err := l.TestLock(l.ctx, ino, lock)
	l.ok(err, "test lock %v", lock)
	if got.Type != want {
		l.Errorf("test lock %v: got %v, want one of type %d", lock, got, want)
	}
}

// ranges are the POSIX locks that a stranger finds on a node, one after the other.
func (l locker) ranges(ino blobstore.Ino) (all []blobstore.Lock) {
	l.Helper()
	for at := int64(0); at >= 0; {
		got, err := l.TestLock(l.ctx, ino, blobstore.Lock{Type: blobstore.LockWrite, Owner: 1 << 40, Start: at, End: blobstore.LockMax})
		l.ok(err, "test lock")
		if got.Type == blobstore.LockNone {
			return all
		}
		all = append(all, blobstore.Lock{Type: got.Type, Start: got.Start, End: got.End})
		at = got.End + 1 // past LockMax it is negative
	}
	return all
}
