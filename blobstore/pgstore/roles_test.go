package pgstore_test

import (
	"errors"
	"testing"

	"mediafs/auth"
	"mediafs/blobstore/pgstore"
)

func TestWhatCouldNotBeStoredIsWithTheNextTokenOfTheUser(t *testing.T) {
	url := newStore(t)
	session, bob := signIn(t, url, "alice"), signIn(t, url, "bob")
	d := attach(t, url, session, pgstore.Options{})
	file, ino := create(t, d, "photo")
	write(t, file, []byte("before"), 0)
	accounts, err := pgstore.OpenAccounts(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer accounts.Close()
	next := session
	if next.Token, err = accounts.Renew(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	if err := file.Flush(t.Context()); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("flush with the old token: got %v, want %v", err, auth.ErrInvalid)
	}
	stolen := session
	stolen.Token = bob.Token // says that it is alice's
	for what, refused := range map[string]auth.Session{"the old token": session, "bob's session": bob, "bob's token as alice's": stolen} {
		if err := d.Renew(t.Context(), refused); !errors.Is(err, auth.ErrRevoked) {
			t.Errorf("renew with %s: got %v, want %v", what, err, auth.ErrRevoked)
		}
	}
	if err := d.Renew(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	write(t, file, []byte(" and after"), 6)
	if err := file.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := attach(t, url, next, pgstore.Options{})
	there, err := other.Open(t.Context(), ino, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if got, want := string(read(t, there, 100, 0)), "before and after"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
