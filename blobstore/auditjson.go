package blobstore

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"mediafs/auth"
)

// auditJSON is a record as JSON: what `mediafs audit --json` prints and a store of folders keeps. A path that is not UTF-8, which JSON
// can't hold, is in path_quoted in place of path: as strconv.Quote writes it, in double quotes, with \xff for a byte.
type auditJSON struct {
	Time          time.Time   `json:"time"` // RFC 3339 in UTC
	Drive         DriveName   `json:"drive"`
	User          auth.UserID `json:"user"`
	Host          string      `json:"host"`
	Mount         string      `json:"mount"`
	Action        Action      `json:"action"`
	Result        string      `json:"result"`
	Path          string      `json:"path,omitempty"`
	PathQuoted    string      `json:"path_quoted,omitempty"`
	NewPath       string      `json:"new_path,omitempty"`
	NewPathQuoted string      `json:"new_path_quoted,omitempty"`
	Ino           Ino         `json:"ino,omitempty"`
	Generation    uint64      `json:"generation,omitempty"`
	Bytes         int64       `json:"bytes,omitempty"`
	Count         int         `json:"count"`
	UID           uint32      `json:"uid"`
}

// MarshalJSON writes the record on one line.
func (r *AuditRecord) MarshalJSON() ([]byte, error) {
	j := auditJSON{
		Time: r.Time.UTC(), Drive: r.Drive, User: r.User, Host: r.Host, Mount: r.Mount, Action: r.Action, Result: r.Result,
		Ino: r.Ino, Generation: r.Generation, Bytes: r.Bytes, Count: r.Count, UID: r.UID,
	}
	j.Path, j.PathQuoted = quoteUnlessUTF8(r.Path)
	j.NewPath, j.NewPathQuoted = quoteUnlessUTF8(r.NewPath)
	var line bytes.Buffer
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false) // a path reads as it is
	if err := encoder.Encode(&j); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(line.Bytes(), []byte("\n")), nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (r *AuditRecord) UnmarshalJSON(line []byte) error {
	var j auditJSON
	if err := json.Unmarshal(line, &j); err != nil {
		return err
	}
	var err error
	if j.PathQuoted != "" {
		if j.Path, err = strconv.Unquote(j.PathQuoted); err != nil {
			return err
		}
	}
	if j.NewPathQuoted != "" {
		if j.NewPath, err = strconv.Unquote(j.NewPathQuoted); err != nil {
			return err
		}
	}
	*r = AuditRecord{Drive: j.Drive, User: j.User, Host: j.Host, Mount: j.Mount, Event: Event{
		Time: j.Time, Action: j.Action, Ino: j.Ino, Path: j.Path, NewPath: j.NewPath, Bytes: j.Bytes, Count: j.Count, UID: j.UID,
		Result: j.Result, Generation: j.Generation,
	}}
	return nil
}

func quoteUnlessUTF8(path string) (plain, quoted string) {
	if utf8.ValidString(path) {
		return path, ""
	}
	return "", strconv.Quote(path)
}
