package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"mediafs/auth"
)

// usersFile is where `mount --all-users` finds the users of this machine who have a drive, unless told otherwise.
const usersFile = "/etc/mediafs/users"

// maxUsersFile is more than a users file takes, in bytes.
const maxUsersFile = 1 << 20

// A localUser is a line of the users file: somebody of this machine, and the file with the token of their session.
type localUser struct {
	name      string // of the user, and of the folder
	uid, gid  uint32
	tokenFile string // absolute
}

// userEntry is a line of the users file as it is written.
type userEntry struct {
	line            int
	user, tokenFile string
}

// readUsersFile reads the users file:
//
//	# user     token file, absolute or from this file's folder
//	anna       /etc/mediafs/anna.token
//	1002       ben.token
//
// Whoever can change it says whose drive is shown to whom, so it must be root's, and nobody else may write it.
func readUsersFile(path string) ([]localUser, error) {
	failed := func(why error, way string) ([]localUser, error) {
		return nil, &failure{code: exitUsage, what: "users file " + path, why: why, way: way}
	}
	file, err := os.Open(path)
	if err != nil {
		return failed(errors.Unwrap(err), "write one, or name it with --users-file FILE: see `mediafs mount --help`")
	}
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return failed(err, "")
	}
	if st.Uid != 0 || st.Mode&0o022 != 0 {
		return failed(errors.New("others than root can change it"), "chown root and chmod 644 it")
	}
	data, err := io.ReadAll(io.LimitReader(file, maxUsersFile+1))
	if err != nil {
		return failed(err, "")
	}
	entries, err := parseUsersFile(data)
	if err != nil {
		return failed(err, "")
	}
	users := make([]localUser, len(entries))
	for i, e := range entries {
		if users[i], err = e.resolve(filepath.Dir(path)); err != nil {
			return failed(fmt.Errorf("line %d: %w", e.line, err), "")
		}
		if slices.ContainsFunc(users[:i], func(u localUser) bool { return u.name == users[i].name }) {
			return failed(fmt.Errorf("line %d: %s is in a line before already", e.line, users[i].name), "")
		}
	}
	return users, nil
}

// parseUsersFile reads the lines of a users file. No user may be named twice.
func parseUsersFile(data []byte) ([]userEntry, error) {
	if len(data) > maxUsersFile {
		return nil, fmt.Errorf("is longer than %d bytes", maxUsersFile)
	}
	var entries []userEntry
	seen := make(map[string]int)
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for line := 1; scanner.Scan(); line++ {
		text := strings.TrimSpace(scanner.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		at := strings.IndexAny(text, " \t")
		if at < 0 {
			return nil, fmt.Errorf("line %d: the token file is missing: write USER TOKENFILE", line)
		}
		e := userEntry{line: line, user: text[:at], tokenFile: strings.TrimSpace(text[at:])}
		if err := auth.UserID(e.user).Check(); err != nil {
			return nil, fmt.Errorf("line %d: a user of this machine can't be called %q", line, e.user)
		}
		if strings.ContainsFunc(e.tokenFile, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, fmt.Errorf("line %d: the name of the token file has control characters in it", line)
		}
		if before := seen[e.user]; before != 0 {
			return nil, fmt.Errorf("line %d: %s is in line %d already", line, e.user, before)
		}
		seen[e.user] = line
		entries = append(entries, e)
	}
	if err := scanner.Err(); err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, errors.New("names no user: write lines of USER TOKENFILE")
	}
	return entries, nil
}

// resolve finds the user on this machine. A number that has no name is a user too.
func (e userEntry) resolve(folder string) (u localUser, err error) {
	found, err := user.Lookup(e.user)
	if err != nil {
		found, err = user.LookupId(e.user)
	}
	uid, numeric := strconv.ParseUint(e.user, 10, 32)
	switch {
	case err == nil:
		uid, err = strconv.ParseUint(found.Uid, 10, 32)
		if err != nil {
			return u, err
		}
		gid, err := strconv.ParseUint(found.Gid, 10, 32)
		if err != nil {
			return u, err
		}
		u = localUser{name: found.Username, uid: uint32(uid), gid: uint32(gid)}
	case numeric == nil:
		u = localUser{name: e.user, uid: uint32(uid), gid: uint32(uid)}
	default:
		return u, fmt.Errorf("this machine has no user %s", e.user)
	}
	u.tokenFile = e.tokenFile
	if !filepath.IsAbs(u.tokenFile) {
		u.tokenFile = filepath.Join(folder, u.tokenFile)
	}
	return u, nil
}

var _ tokenSource = localUser{}

func (u localUser) version() string { return fileVersion(u.tokenFile) }

// read reads the user's token. They may keep the file where they like, so it must be sure to be theirs: nobody gets another's
// drive by putting a link to another's token there. No part of its path may be a symbolic link, and the file must be the user's own,
// or root's, with one name alone, and for its owner only.
func (u localUser) read() (auth.Token, error) {
	failed := func(why string, args ...any) (auth.Token, error) {
		return auth.Token{}, fmt.Errorf("token file %s of %s: %w", u.tokenFile, u.name, fmt.Errorf(why, args...))
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, u.tokenFile, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	if errors.Is(err, unix.ELOOP) {
		return failed("there is a symbolic link in its path: write the path without")
	}
	if err != nil {
		return failed("%w", err)
	}
	file := os.NewFile(uintptr(fd), u.tokenFile)
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return failed("%w", err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return failed("it is not a plain file")
	case st.Uid != u.uid && st.Uid != 0:
		return failed("it belongs to user %d", st.Uid)
	case st.Nlink != 1:
		return failed("it has %d names", st.Nlink)
	case st.Mode&0o077 != 0:
		return failed("others can read it: chmod 600 it")
	}
	text, err := io.ReadAll(io.LimitReader(file, maxTokenFile))
	if err != nil {
		return failed("%w", err)
	}
	token, err := parseToken(string(text))
	if err != nil {
		return failed("%w", err)
	}
	return token, nil
}
