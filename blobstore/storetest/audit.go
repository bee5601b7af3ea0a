package storetest

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"mediafs/auth"
	"mediafs/blobstore"
)

// auditTests close a drive before they read its log: what was recorded in the last second may be in memory until then.
var auditTests = []test{
	{"what is recorded is read back as it was", func(w *world) {
		want := []blobstore.Event{
			w.record(blobstore.Event{Action: blobstore.ActionOpen, Ino: 17, Path: "/a", UID: 1000}),
			w.record(blobstore.Event{Action: blobstore.ActionWrite, Ino: 17, Path: "/a", Bytes: 1 << 40, Count: 3}),
			w.record(blobstore.Event{Action: blobstore.ActionRename, Path: "/a\n\t\x1b[31m", NewPath: "/b\xff\x00\u2028\"\\ü", UID: 1<<32 - 1}),
			w.record(blobstore.Event{Action: blobstore.ActionLook, Path: "…/c", Result: "EACCES"}),
			w.record(blobstore.Event{Action: blobstore.ActionSession, Result: "EKEYEXPIRED"}),
			w.record(blobstore.Event{Action: blobstore.ActionRemove, Ino: 1<<63 - 1, Path: "/"}),
		}
		w.reopen()
		got := w.recorded("alice", blobstore.AuditQuery{})
		w.sameEvents(got, want)
		for _, r := range got {
			if r.User != "alice" || r.Drive != "alice" || r.Host == "" || r.Mount == "" || r.Mount != got[0].Mount {
				w.Errorf("got %+v, want user, drive, host and mount of one mount of alice's", r)
			}
		}
	}},
	{"a drive records that it is opened and closed", func(w *world) {
		before := time.Now()
		w.closeDrive(w.drive)
		w.drive = w.openDrive("alice")
		w.reopen()
		var actions []blobstore.Action
		mounts := map[string]int{}
		for _, r := range w.log(w.Session("alice"), blobstore.AuditQuery{}) {
			actions = append(actions, r.Action)
			mounts[r.Mount]++
			if r.Time.Before(before.Add(-time.Hour)) || r.Time.After(time.Now()) || r.Result != blobstore.ResultOK {
				w.Errorf("got %+v", r)
			}
		}
		const in, out = blobstore.ActionMount, blobstore.ActionUnmount
		if want := []blobstore.Action{in, out, in, out}; len(actions) < 4 || !slices.Equal(actions[:4], want) || len(mounts) != len(actions)-2 {
			w.Errorf("got actions %v of mounts %v, want %v first, of two mounts", actions, mounts, want)
		}
	}},
	{"a thousand records come in their order, and as many as are taken", func(w *world) {
		const n = 2500 // more than any page of a reader
		var want []blobstore.Event
		for i := range n {
			want = append(want, w.record(blobstore.Event{Action: blobstore.ActionOpen, Path: fmt.Sprint("/", i)}))
		}
		w.reopen()
		w.sameEvents(w.recorded("alice", blobstore.AuditQuery{}), want)
		for _, most := range []int{1, 1000, 1001} {
			taken := 0
			err := w.Store.AuditLog(w.ctx, w.Session("alice"), blobstore.AuditQuery{}, func(*blobstore.AuditRecord) bool {
				taken++
				return taken < most
			})
			if err != nil || taken != most {
				w.Errorf("got %d records, %v, want %d", taken, err, most)
			}
		}
	}},
	{"a query finds what it asks for, and nothing else", func(w *world) {
		event := func(path, newPath, result string) blobstore.Event {
			return w.record(blobstore.Event{Action: blobstore.ActionRename, Path: path, NewPath: newPath, Result: result})
		}
		in := event("/a/b", "", "ok")
		at := event("/a", "", "EACCES")
		event("/ab", "/", "ok")
		to := event("/c", "/a/d", "ok")
		other := event("/c", "/d", "EPERM")
		end := w.record(blobstore.Event{Action: blobstore.ActionSession, Result: "EKEYEXPIRED"})
		w.reopen()
		w.sameEvents(w.recorded("alice", blobstore.AuditQuery{Path: "/a"}), []blobstore.Event{in, at, to})
		w.sameEvents(w.recorded("alice", blobstore.AuditQuery{Path: "/a", Denied: true}), []blobstore.Event{at})
		w.sameEvents(w.recorded("alice", blobstore.AuditQuery{Denied: true}), []blobstore.Event{at, other})
		w.sameEvents(w.recorded("alice", blobstore.AuditQuery{Since: other.Time}), []blobstore.Event{other, end})
		w.sameEvents(w.recorded("alice", blobstore.AuditQuery{Path: "/a/b/c"}), nil)
		w.sameEvents(w.recorded("alice", blobstore.AuditQuery{User: "bob"}), nil)
		w.sameEvents(w.recorded("alice", blobstore.AuditQuery{User: "alice", Path: "/c"}), []blobstore.Event{to, other})
		if got := w.recorded("alice", blobstore.AuditQuery{Path: "/"}); len(got) != 5 {
			w.Errorf("in the root: got %d records, want those 5 that have a path", len(got))
		}
	}},
	{"a user sees the records of their own drive, and nobody without a session any", func(w *world) {
		hers := w.record(blobstore.Event{Action: blobstore.ActionOpen, Path: "/hers"})
		bob := w.on(w.openDrive("bob"))
		his := bob.record(blobstore.Event{Action: blobstore.ActionOpen, Path: "/his"})
		w.reopen()
		w.sameEvents(w.recorded("alice", blobstore.AuditQuery{}), []blobstore.Event{hers})
		w.sameEvents(w.recorded("bob", blobstore.AuditQuery{}), []blobstore.Event{his})
		w.sameEvents(w.recorded("bob", blobstore.AuditQuery{User: "alice"}), nil)
		expired := w.Session("alice")
		expired.Expires = time.Now().Add(-time.Second)
		for _, c := range []struct {
			session auth.Session
			want    error
		}{{auth.Guest(), blobstore.ErrAccess}, {auth.Session{}, auth.ErrInvalid}, {expired, auth.ErrExpired}} {
			err := w.Store.AuditLog(w.ctx, c.session, blobstore.AuditQuery{}, func(r *blobstore.AuditRecord) bool {
				w.Errorf("%s reads %+v", c.session.Role, r)
				return true
			})
			w.gives(err, c.want, "read the log")
		}
	}},
	{"opening a file counts, and an attribute tells how often and when last", func(w *world) {
		ino, other := w.mkfile(root, "a", ""), w.mkfile(root, "b", "")
		w.hasFacts(ino, 0, time.Time{})
		first := w.opened(ino, 1)
		w.opened(other, 5)
		w.record(blobstore.Event{Action: blobstore.ActionOpen, Ino: ino, Path: "/a", Result: "EACCES"})
		w.record(blobstore.Event{Action: blobstore.ActionWrite, Ino: ino, Path: "/a"})
		w.reopen()
		ino = w.lookup(root, "a").Ino
		w.hasFacts(ino, 1, first)
		w.opened(ino, 2)
		last := w.opened(ino, 1)
		w.reopen()
		w.hasFacts(w.lookup(root, "a").Ino, 4, last)
		if got := w.fact(w.lookup(root, "b").Ino, blobstore.XattrAccessCount); got != "5" {
			w.Errorf("the other file: got count %q, want 5", got)
		}
	}},
	{"a file that comes after another of the same name, or number, starts from nothing", func(w *world) {
		for range 3 {
			w.opened(w.mkfile(root, "a", ""), 7)
			w.reopen()
			w.unlink(root, "a")
			w.hasFacts(w.mkfile(root, "a", ""), 0, time.Time{})
			w.unlink(root, "a")
		}
	}},
	{"what is recorded of files that are gone does no harm", func(w *world) {
		gone, stays := w.mkfile(root, "gone", ""), w.mkfile(root, "stays", "")
		w.unlink(root, "gone")
		w.opened(gone, 1)
		w.opened(noIno, 1)
		last := w.opened(stays, 1)
		w.reopen()
		w.hasFacts(w.lookup(root, "stays").Ino, 1, last)
		if got := w.recorded("alice", blobstore.AuditQuery{}); len(got) != 3 {
			w.Errorf("got %d records, want 3", len(got))
		}
	}},
	{"facts can be neither set nor removed", func(w *world) {
		file, dir := w.mkfile(root, "a", ""), w.mkdir(root, "dir")
		w.opened(file, 1)
		for _, ino := range []blobstore.Ino{file, dir, root} {
			for _, name := range []string{blobstore.XattrAccessCount, blobstore.XattrLastAccessed, blobstore.XattrFacts + "unknown", blobstore.XattrFacts} {
				w.gives(w.drive.SetXattr(w.ctx, ino, name, []byte("1"), blobstore.XattrSet), blobstore.ErrPermission, "set %s", name)
				w.gives(w.drive.RemoveXattr(w.ctx, ino, name), blobstore.ErrPermission, "remove %s", name)
			}
			w.hasXattrs(ino, nil)
		}
		for _, ino := range []blobstore.Ino{dir, root} {
			_, err := w.drive.GetXattr(w.ctx, ino, blobstore.XattrAccessCount)
			w.gives(err, blobstore.ErrNoXattr, "count of a folder")
		}
		_, err := w.drive.GetXattr(w.ctx, file, blobstore.XattrFacts+"unknown")
		w.gives(err, blobstore.ErrNoXattr, "a fact that is unknown")
		_, err = w.drive.GetXattr(w.ctx, noIno, blobstore.XattrAccessCount)
		w.gives(err, blobstore.ErrNotExist, "count of a node that is not there")
	}},
	{"recording neither waits nor fails when the drive and the store are closed", func(w *world) {
		drive := w.drive
		w.reopen()
		for i := range 100 {
			w.on(drive).record(blobstore.Event{Action: blobstore.ActionOpen, Path: fmt.Sprint("/", i)})
		}
	}},
}

// record records an event on the world's drive, with what is not given as it mostly is, and returns what it made of it.
func (w *world) record(event blobstore.Event) blobstore.Event {
	event.Time = time.Now()
	event.Count = max(event.Count, 1)
	if event.Result == "" {
		event.Result = blobstore.ResultOK
	}
	w.drive.Record(event)
	return event
}

// opened records that a file was opened so many times, and returns when.
func (w *world) opened(ino blobstore.Ino, times int) time.Time {
	return w.record(blobstore.Event{Action: blobstore.ActionOpen, Ino: ino, Path: "/file", Count: times}).Time
}

// log is what a session reads.
func (w *world) log(session auth.Session, query blobstore.AuditQuery) (list []blobstore.AuditRecord) {
	w.Helper()
	err := w.Store.AuditLog(w.ctx, session, query, func(r *blobstore.AuditRecord) bool {
		list = append(list, *r)
		return true
	})
	w.ok(err, "read the log as %s", session.User)
	return list
}

// recorded is what a user reads that no drive recorded by itself.
func (w *world) recorded(user auth.UserID, query blobstore.AuditQuery) []blobstore.AuditRecord {
	w.Helper()
	return slices.DeleteFunc(w.log(w.Session(user), query), func(r blobstore.AuditRecord) bool {
		return r.Action == blobstore.ActionMount || r.Action == blobstore.ActionUnmount
	})
}

func (w *world) sameEvents(got []blobstore.AuditRecord, want []blobstore.Event) {
	w.Helper()
	if len(got) != len(want) {
		w.Fatalf("got %d records, want %d:\n%+v", len(got), len(want), got)
	}
	for i := range want {
		g, e := got[i].Event, want[i]
		if !g.Time.Equal(e.Time) {
			w.Errorf("record %d: got time %v, want %v", i, g.Time, e.Time)
		}
		g.Time, g.Generation = e.Time, 0
		if g != e {
			w.Errorf("record %d: got %+v, want %+v", i, g, e)
		}
	}
}

func (w *world) fact(ino blobstore.Ino, name string) string {
	w.Helper()
	value, err := w.drive.GetXattr(w.ctx, ino, name)
	w.ok(err, "get %s of node %d", name, ino)
	return string(value)
}

// hasFacts checks how often a file was opened and when last; the zero time stands for never.
func (w *world) hasFacts(ino blobstore.Ino, count int, last time.Time) {
	w.Helper()
	w.same(w.fact(ino, blobstore.XattrAccessCount), strconv.Itoa(count), "access count")
	if last.IsZero() {
		_, err := w.drive.GetXattr(w.ctx, ino, blobstore.XattrLastAccessed)
		w.gives(err, blobstore.ErrNoXattr, "when a file was opened that never was")
		return
	}
	got, err := time.Parse(time.RFC3339Nano, w.fact(ino, blobstore.XattrLastAccessed))
	if err != nil || got.Location() != time.UTC || got.After(last) || last.Sub(got) > time.Second {
		w.Errorf("last accessed: got %v, %v, want %v in UTC, or up to a second earlier", got, err, last.UTC())
	}
}
