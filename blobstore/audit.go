package blobstore

import (
	"time"

	"mediafs/auth"
)

// Audit is what is kept of who did what on a drive.
type Audit interface {
	// Record notes an event. It neither waits nor fails: events are kept in memory, within a budget, and stored in
	// batches, so that a crash of the program loses those of the last second at most. What the budget has no room for is
	// counted, and the count is stored as an event of its own (ActionLost).
	//
	// An ActionOpen of a file that succeeded also counts as an access to it, by the time it is stored: see XattrAccessCount.
	//
	// The drive records itself that it was opened and closed, with whose session, on which machine. After Close, Record
	// does nothing.
	Record(event Event)
}

// Facts that a drive knows of a regular file, read as extended attributes and listed with them. They can be neither set nor removed (ErrPermission),
// nor can any other name that begins with XattrFacts but XattrJob; one that is unknown is not there (ErrNoXattr).
const (
	XattrFacts        = "user.mediafs."
	XattrAccessCount  = XattrFacts + "access_count"  // decimal: how often the file was opened
	XattrLastAccessed = XattrFacts + "last_accessed" // RFC 3339 in UTC with nanoseconds: when it last was, to a second; not there if never
)

// Action is what was done.
type Action string

// The actions. What succeeded is recorded, and of what did not, the denials.
const (
	ActionMount   Action = "mount"   // the drive was opened; recorded by the drive itself
	ActionUnmount Action = "unmount" // likewise: it was closed
	ActionSession Action = "session" // the session ended (Result says how) or came back (ResultOK)
	ActionLost    Action = "lost"    // Count events before this one could not be kept

	ActionLook   Action = "look"   // a denied look at names, attributes or content; what is allowed is not recorded
	ActionOpen   Action = "open"   // a file was opened
	ActionCreate Action = "create" // a node was made
	ActionWrite  Action = "write"  // a file that had been changed was closed; Bytes says how much was written
	ActionChange Action = "change" // of attributes, extended attributes or size
	ActionLink   Action = "link"   // a node got another name, NewPath
	ActionRename Action = "rename" // Path became NewPath
	ActionRemove Action = "remove" // a name was removed
)

// ResultOK is the Result of what was done. Others are names of errno: "EACCES", "EKEYEXPIRED".
const ResultOK = "ok"

// An Event is something that was done on a drive, or denied.
type Event struct {
	Time    time.Time // of the first, if it stands for several
	Action  Action
	Ino     Ino    // 0: not known
	Path    string // from the drive's root, "/a/b"; what is not known of it is "…"; "" for what is about the drive
	NewPath string // where to, of a rename or link
	Bytes   int64  // of a write
	Count   int    // how many events alike, within a second, this one stands for; at least 1
	UID     uint32 // who asked, on the mounting machine
	Result  string

	// Generation tells nodes apart that have the same number one after the other. A drive whose numbers are given again sets it when
	// an event is recorded; 0 elsewhere, and if it is not known.
	Generation uint64
}

// Denied says whether the event is something that was not allowed.
func (e *Event) Denied() bool { return e.Result != ResultOK && e.Action != ActionSession }

// An AuditRecord is an Event as the log has it.
type AuditRecord struct {
	Event
	Drive DriveName
	User  auth.UserID // whose session it was; "" of a guest
	Host  string      // the machine of the mount
	Mount string      // tells mounts apart
}

// An AuditQuery says which records are wanted. The zero AuditQuery wants all.
type AuditQuery struct {
	User   auth.UserID // "": of everybody
	Path   string      // this path and what is below it, before or after a rename; "": any
	Since  time.Time   // at or after; zero: from the beginning
	Denied bool        // only what was denied
}

// Fits says whether the query wants a record.
func (q *AuditQuery) Fits(r *AuditRecord) bool {
	return (q.User == "" || q.User == r.User) &&
		(q.Path == "" || below(q.Path, r.Path) || below(q.Path, r.NewPath)) &&
		!r.Time.Before(q.Since) &&
		(!q.Denied || r.Denied())
}

// below says whether path is parent or in it.
func below(parent, path string) bool {
	return path == parent || parent == "/" && path != "" ||
		len(path) > len(parent) && path[:len(parent)] == parent && path[len(parent)] == '/'
}
