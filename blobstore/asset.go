package blobstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"mediafs/auth"
)

// An Asset is a regular file seen as media: what a library knows of it beyond its bytes.
type Asset struct {
	ID    AssetID
	Drive DriveName
	Ino   Ino
	Path  string // one of its names, from the drive's root, without a slash before it: "2024/photo.jpg"; bytes, as names are
	Size  int64  // bytes

	Job     string    // the download or import that it belongs to; "" if none
	Created time.Time // when the node was made
	Changed time.Time // mtime

	// What its content says. Described is false until the background has looked at the content as it is now: then the rest may be of
	// what it was before, or empty.
	Described     bool
	Type          string    // MIME type by content, without parameters: "image/jpeg"; "" if not known yet
	SHA256        []byte    // nil if not known yet
	Width, Height int       // pixels; 0 if the file does not say
	Taken         time.Time // when the picture was taken, as the file says; zero if it does not

	AccessCount  int64     // how often it was opened
	LastAccessed time.Time // zero if never
}

// AssetID is a UUID (RFC 9562). It stays the same as long as the node lives, whatever it is called and whatever is written to it.
type AssetID [16]byte

// String is the usual form, in lower case.
func (id AssetID) String() string {
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// NewAssetID is one that no other asset has: random, version 4.
func NewAssetID() (id AssetID) {
	_, _ = rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// An AssetQuery says which assets are asked for. The zero value asks for all that the session may see.
type AssetQuery struct {
	Drives  []DriveName // of these drives; nil: of all that the session may see
	Folder  string      // beneath this folder of the drive, by its path; "": in all
	Shallow bool        // in Folder itself only, not beneath it
	Name    string      // whose name fits this pattern of path.Match, without regard to case; "": any
	Types   []string    // of one of these types, "image/jpeg", or kinds, "image/*"; nil: of any
	Job     string      // of this job; "": of any

	Since, Until     time.Time // made at or after Since, before Until; zero: whenever
	MinSize, MaxSize int64     // bytes; MaxSize 0: of any size

	Order AssetOrder
	After string // Cursor of the page before; "": from the start
	Limit int    // how many a page has at most; 0: 1,000
}

// AssetOrder is the order of a list of assets.
type AssetOrder int

// The orders of an AssetQuery.
const (
	ByPath     AssetOrder = iota // by drive, then by path; a store may take the files of a folder before all that is in folders of it
	ByCreation                   // the newest first
)

// An AssetPage is part of a list of assets.
type AssetPage struct {
	Assets []Asset
	Next   string // AssetQuery.After of the page that follows; "" if this is the last. What it says inside is the store's
}

// A Folder is a folder of a drive, as it is listed beside the assets in the same folder.
type Folder struct {
	Drive   DriveName
	Path    string    // from the drive's root, without a slash before it; bytes, as names are
	Changed time.Time // mtime
}

// A FolderQuery says which folders are asked for.
type FolderQuery struct {
	Drives []DriveName // of these drives; nil: of all that the session may see
	Folder string      // those in this folder, by its path, not beneath them; "": in the root
	After  string      // FolderPage.Next of the page before; "": from the start
	Limit  int         // how many a page has at most; 0: 1,000
}

// A FolderPage is part of a list of folders.
type FolderPage struct {
	Folders []Folder
	Next    string // FolderQuery.After of the page that follows; "" if this is the last. What it says inside is the store's
}

// MaxJobLen is the longest job id in bytes.
const MaxJobLen = 255

// CheckJob gives ErrInvalid for what can't be a job id: it is UTF-8 without control characters, of at most MaxJobLen bytes.
func CheckJob(job string) error {
	if len(job) > MaxJobLen {
		return fmt.Errorf("a job id of %d bytes, the longest has %d: %w", len(job), MaxJobLen, ErrInvalid)
	}
	for _, r := range job {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return fmt.Errorf("the job id %q is not plain text: %w", job, ErrInvalid)
		}
	}
	return nil
}

// Described is what the content of a file says of it.
type Described struct {
	Type          string
	SHA256        []byte
	Width, Height int
	Taken         time.Time
}

// A Quota is what a drive may hold. 0 in a limit: as much as there is room for.
type Quota struct {
	Drive                DriveName
	Owner                auth.UserID
	MaxBytes, MaxFiles   int64 // limits; files are nodes of any kind but the root
	UsedBytes, UsedFiles int64
}

// Assets lists what a store has of media. Its methods need no drive to be open.
type Assets interface {
	// FindAssets gives one page of the assets that fit a query and that the session may see: a user those of their own drive, an admin
	// those of all, a guest those of the public one. A drive that is not there, or not theirs, has no assets. ErrInvalid for a pattern or
	// a cursor that is none.
	FindAssets(ctx context.Context, session auth.Session, query AssetQuery) (AssetPage, error)

	// FindFolders gives one page of the folders in a folder, by drive and name, of the drives that FindAssets looks at. If none of these has the folder:
	// ErrNotDir where one has something else of that path, ErrNotExist otherwise; the root of a drive that is not there is empty. ErrInvalid for a cursor that
	// is none.
	FindFolders(ctx context.Context, session auth.Session, query FolderQuery) (FolderPage, error)
}

// Quotas limits what drives hold.
type Quotas interface {
	// Quotas gives what drives may hold and do: of all drives to an admin, by name, of their own to a user.
	Quotas(ctx context.Context, session auth.Session) ([]Quota, error)

	// SetQuota sets the limits of a drive; 0 takes one away, KeepLimit leaves it as it is. A drive that holds more already can only shrink. ErrAccess
	// unless the session is an admin's, ErrNotExist if there is no such drive, ErrInvalid for another number below 0.
	SetQuota(ctx context.Context, session auth.Session, drive DriveName, maxBytes, maxFiles int64) error
}

// KeepLimit is a limit that is not to be changed.
const KeepLimit = -1

// What is known of an asset, read as extended attributes and listed with them. XattrJob can be set and removed, the others not (ErrPermission). Each
// is there once it is known. A folder has XattrJob alone: what is made in it takes its job.
const (
	XattrID      = XattrFacts + "id"
	XattrType    = XattrFacts + "mime_type"
	XattrSHA256  = XattrFacts + "sha256" // hexadecimal
	XattrWidth   = XattrFacts + "width"
	XattrHeight  = XattrFacts + "height"
	XattrTaken   = XattrFacts + "taken_at" // RFC 3339
	XattrCreated = XattrFacts + "created_at"
	XattrJob     = XattrFacts + "job_id"
)
