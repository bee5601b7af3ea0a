package main

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"unicode"

	"mediafs/auth"
	"mediafs/auth/betterauth"
	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
	"mediafs/blobstore/pgstore"
	"mediafs/fusefs"
)

// An exitCode is what the program exits with.
type exitCode int

const (
	exitOK exitCode = iota
	exitFailed
	exitUsage
	exitStoreAddress
	exitStoreSchema
	exitStoreAway
	exitToken
	exitUser
	exitMountpoint
	exitFUSE
	exitNotStored
	exitInterrupted
	exitApplication
	exitSignIn
)

// exitCodes is what `mediafs help` and the README say of each code.
var exitCodes = []struct {
	code    exitCode
	meaning string
}{
	{exitOK, "done"},
	{exitFailed, "failed for a reason that has no code of its own, the store that was checked is not whole, or not all was copied"},
	{exitUsage, "the command line is wrong"},
	{exitStoreAddress, "the store's address is wrong, or of an unknown kind"},
	{exitStoreSchema, "the store is not initialised, or of another version"},
	{exitStoreAway, "the store can't be reached, read or written"},
	{exitToken, "the token is missing, unknown or expired, or its user banned"},
	{exitUser, "the user's name can't be used, exists already or is unknown"},
	{exitMountpoint, "the mountpoint is missing, in use or no empty folder, or has no drive to unmount"},
	{exitFUSE, "this machine has no FUSE, or you may not mount"},
	{exitNotStored, "something that was written could not be stored"},
	{exitInterrupted, "ended at once by a second signal: what was pending may be lost"},
	{exitApplication, "the application's address is wrong, or it gives no usable answer"},
	{exitSignIn, "the sign-in was denied, not approved in time, or interrupted"},
}

// A failure is an error as the user is told of it: what: why: the way out.
type failure struct {
	code exitCode
	what string // the thing that it is about; "" if why names it
	why  error
	way  string   // out of it; "" if why says it
	hide []string // what must not be shown, wherever it comes from
}

func (f *failure) Error() string {
	var parts []string
	for _, part := range []string{f.what, f.why.Error(), f.way} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	s := strings.Join(parts, ": ")
	for _, secret := range f.hide {
		s = strings.ReplaceAll(s, secret, "…")
	}
	return s
}

func (f *failure) Unwrap() error { return f.why }

// kinds say for errors of other packages which code they have and, unless they say so themselves, what to do.
var kinds = []struct {
	is   error
	code exitCode
	way  string
}{
	{pgstore.ErrAddress, exitStoreAddress, ""},
	{dirstore.ErrNotInitialised, exitStoreSchema, ""},
	{pgstore.ErrNotInitialised, exitStoreSchema, ""},
	{pgstore.ErrOlderSchema, exitStoreSchema, ""},
	{pgstore.ErrNewerSchema, exitStoreSchema, ""},
	{pgstore.ErrPrivilege, exitStoreAway, "use a login that has it"},
	{pgstore.ErrUnreachable, exitStoreAway, "start the database or correct the address"},

	{betterauth.ErrNoTables, exitStoreSchema, "name them in a file with --auth-tables FILE, or have them looked for with --auth-tables detect"},

	{auth.ErrInvalid, exitToken, ""},
	{auth.ErrExpired, exitToken, ""},
	{auth.ErrRevoked, exitToken, ""},
	{auth.ErrBanned, exitToken, ""},
	{betterauth.ErrAddress, exitApplication, ""},
	{betterauth.ErrNoAnswer, exitApplication, "try again, or correct the address"},
	{betterauth.ErrDenied, exitSignIn, ""},
	{betterauth.ErrCodeExpired, exitSignIn, "run `mediafs login` again"},
	{auth.ErrUserID, exitUser, ""},
	{auth.ErrUserExists, exitUser, "choose another name, or get a new token with `mediafs user token`"},
	{auth.ErrNoUser, exitUser, "see `mediafs user list`"},

	{fusefs.ErrMountpointMissing, exitMountpoint, ""},
	{fusefs.ErrMountpointNotDir, exitMountpoint, "choose an empty folder"},
	{fusefs.ErrMountpointNotEmpty, exitMountpoint, "choose an empty folder"},
	{fusefs.ErrMounted, exitMountpoint, "unmount that first or choose another folder"},
	{fusefs.ErrStaleMount, exitMountpoint, ""},
	{fusefs.ErrNoFuse, exitFUSE, ""},
	{fusefs.ErrNotMounter, exitFUSE, ""},

	{blobstore.ErrNoSpace, exitStoreAway, "free some space"},
	{blobstore.ErrQuota, exitStoreAway, "remove something or ask for more"},
	{fs.ErrPermission, exitStoreAway, "check the owner and the mode of the store's folder"},
	{blobstore.ErrAccess, exitStoreAway, "check the owner and the mode of the store's folder"},
	{context.Canceled, exitFailed, ""},
	{context.DeadlineExceeded, exitStoreAway, "try again, or give it longer"},
}

// explain makes a failure of an error. The code is otherwise for an error that is of no known kind.
func explain(what string, err error, otherwise exitCode) *failure {
	var known *failure
	if errors.As(err, &known) {
		return known
	}
	f := &failure{code: otherwise, what: what, why: err}
	if strings.Contains(err.Error(), strings.TrimPrefix(what, "store ")) {
		f.what = ""
	}
	for _, kind := range kinds {
		if errors.Is(err, kind.is) {
			f.code, f.way = kind.code, kind.way
			break
		}
	}
	return f
}

// oneLine keeps an error on one line, whatever a driver or a name put into it.
func oneLine(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}
