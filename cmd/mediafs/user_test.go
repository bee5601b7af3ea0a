package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mediafs/auth"
)

func TestUserAddPrintsATokenAlone(t *testing.T) {
	isolate(t)
	store := newStore(t)
	got := mediafs(t, "user", "add", "--store", store, "anna", "--role", "admin")
	token, err := auth.ParseToken(got.stdout)
	if got.code != exitOK || err != nil || got.stdout != token.Reveal()+"\n" || !strings.HasPrefix(got.stdout, auth.TokenPrefix) || got.stderr != "" {
		t.Fatalf("got %+v", got)
	}
	newUser(t, store, "bob")
	list := mediafs(t, "user", "list", "--store", store)
	lines := strings.Split(list.stdout, "\n")
	if list.code != exitOK || len(lines) != 4 || !strings.HasPrefix(lines[0], "NAME") ||
		!strings.HasPrefix(lines[1], "anna  admin  2") || !strings.HasPrefix(lines[2], "bob   user   2") {
		t.Errorf("got %+v, want a table of anna and bob", list)
	}
	if strings.Contains(list.stdout, auth.TokenPrefix) {
		t.Error("the list has a token")
	}
}

func TestUserTokenRevokesTheOneBefore(t *testing.T) {
	isolate(t)
	store := newStore(t)
	tokenFile := newUser(t, store, "anna")
	renewed := mediafs(t, "user", "token", "--store", store, "anna")
	if renewed.code != exitOK || !strings.HasPrefix(renewed.stdout, auth.TokenPrefix) {
		t.Fatalf("got %+v", renewed)
	}
	before, err := os.ReadFile(tokenFile)
	if err != nil || string(before) == renewed.stdout {
		t.Errorf("got the same token again, %v", err)
	}
	wantError(t, mediafs(t, "mount", "--store", store, "--token-file", tokenFile, t.TempDir()), exitToken, "the token is not known: sign in again")
}

func TestUserRemoveLeavesTheDrive(t *testing.T) {
	isolate(t)
	store := newStore(t)
	newUser(t, store, "anna")
	photo := filepath.Join(store, "anna", "photo.jpg")
	if err := errors.Join(os.Mkdir(filepath.Dir(photo), 0o700), os.WriteFile(photo, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if got := mediafs(t, "user", "remove", "--store", store, "anna"); got != (outcome{}) {
		t.Errorf("got %+v, want silence", got)
	}
	if _, err := os.Stat(photo); err != nil {
		t.Error(err)
	}
	if got := mediafs(t, "user", "list", "--store", store); strings.Contains(got.stdout, "anna") {
		t.Errorf("got %q", got.stdout)
	}
}

func TestAWrongNameIsExitCode7AndChangesNothing(t *testing.T) {
	isolate(t)
	store := newStore(t)
	newUser(t, store, "anna")
	before := mediafs(t, "user", "list", "--store", store)
	for _, c := range []struct {
		command, name, want string
	}{
		{"add", "anna", "exists already: choose another name"},
		{"add", "public", "the public drive has that name: choose another"},
		{"add", "../bob", "user id must be"},
		{"add", "a b", "user id must be"},
		{"add", ".hidden", "user id must be"},
		{"add", "", "user id must be"},
		{"add", "bob\nanna", "user id must be"},
		{"add", strings.Repeat("x", 129), "user id must be"},
		{"remove", "bob", "no such user: see `mediafs user list`"},
		{"remove", "../anna", "user id must be"},
		{"token", "bob", "no such user"},
	} {
		wantError(t, mediafs(t, "user", c.command, "--store", store, "--", c.name), exitUser, c.want, "user ")
	}
	wantError(t, mediafs(t, "user", "add", "--store", store, "--", "-x"), exitUser, "user id must be")
	if after := mediafs(t, "user", "list", "--store", store); after != before {
		t.Errorf("got %q, want %q", after.stdout, before.stdout)
	}
}

func TestDamagedAccountsAreNamed(t *testing.T) {
	isolate(t)
	store := newStore(t)
	tokenFile := newUser(t, store, "anna")
	path := filepath.Join(store, ".mediafs", "accounts.json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, mediafs(t, "user", "list", "--store", store), exitStoreAway, path, "damaged", "repair it")
	wantError(t, mediafs(t, "mount", "--store", store, "--token-file", tokenFile, t.TempDir()), exitStoreAway, path, "damaged")
}

// A token that its user did not get to see is told of.
func TestATokenThatCannotBePrintedIsAnError(t *testing.T) {
	isolate(t)
	store := newStore(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	var stderr strings.Builder
	code := run([]string{"mediafs", "user", "add", "--store", store, "anna"}, full, &stderr)
	if code != exitFailed || !strings.Contains(stderr.String(), "mediafs user token anna") {
		t.Errorf("got exit code %d: %s", code, stderr.String())
	}
}
