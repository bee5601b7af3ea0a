package accounts

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"mediafs/auth"
)

// formatVersion is the one version of the file there is.
const formatVersion = 1

// maxFile is how large the file may be, in bytes: room for about 100,000 accounts.
const maxFile = 16 << 20

// account is an account with the hash of its token.
type account struct {
	auth.Account
	hash [sha256.Size]byte
}

func byName(a, b account) int { return cmp.Compare(a.User, b.User) }

// document and record are the file as JSON has it.
type document struct {
	Version  int      `json:"version"`
	Accounts []record `json:"accounts"`
}

type record struct {
	User    string    `json:"user"`
	Role    string    `json:"role"`
	Created time.Time `json:"created"`
	Hash    string    `json:"token_sha256"`
}

// parse reads the content of a file and returns the accounts by name. It refuses fields it does not know, a user or a token that
// is there twice, names and roles that no account can have, and anything after the end. Its errors hold no hash.
func parse(data []byte) ([]account, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("larger than %d bytes", maxFile)
	}
	var doc document
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errors.New("cut short")
	} else if err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the accounts")
	}
	if doc.Version != formatVersion {
		return nil, fmt.Errorf("version %d: this mediafs knows version %d", doc.Version, formatVersion)
	}

	list := make([]account, len(doc.Accounts))
	tokens := make(map[[sha256.Size]byte]auth.UserID, len(list))
	for i, r := range doc.Accounts {
		a := &list[i]
		a.User = auth.UserID(r.User)
		if err := a.User.Check(); err != nil {
			return nil, fmt.Errorf("user %q: %w", r.User, err)
		}
		role, err := auth.ParseRole(r.Role)
		if err != nil {
			return nil, fmt.Errorf("user %q: %w", r.User, err)
		}
		hash, err := hex.DecodeString(r.Hash)
		if err != nil || len(hash) != sha256.Size {
			return nil, fmt.Errorf("user %q: token_sha256 is not %d hexadecimal digits", r.User, 2*sha256.Size)
		}
		a.Role, a.Created, a.hash = role, r.Created.UTC(), [sha256.Size]byte(hash)
		if year := a.Created.Year(); year < 0 || year > 9999 { // RFC 3339 has no others
			return nil, fmt.Errorf("user %q: created in the year %d", r.User, year)
		}
		if other, ok := tokens[a.hash]; ok && other != a.User {
			return nil, fmt.Errorf("users %q and %q have one token", other, a.User)
		}
		tokens[a.hash] = a.User
	}
	slices.SortFunc(list, byName)
	for i := 1; i < len(list); i++ {
		if list[i].User == list[i-1].User {
			return nil, fmt.Errorf("user %q is there twice", list[i].User)
		}
	}
	return list, nil
}

// encode writes the content of a file.
func encode(list []account) ([]byte, error) {
	doc := document{Version: formatVersion, Accounts: make([]record, len(list))}
	for i, a := range list {
		doc.Accounts[i] = record{User: string(a.User), Role: string(a.Role), Created: a.Created, Hash: hex.EncodeToString(a.hash[:])}
	}
	data, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, err
	}
	if len(data) >= maxFile {
		return nil, fmt.Errorf("too many accounts for a file of %d bytes: keep them in a postgres: store", maxFile)
	}
	return append(data, '\n'), nil
}
