package pgstore_test

import (
	"errors"
	"log/slog"
	"sync"
	"testing"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
	"mediafs/blobstore/pgstore/pgtest"
	"mediafs/blobstore/storetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestStore(t *testing.T)               { storetest.Run(t, open) }
func TestStoreDoesAsTheModel(t *testing.T) { storetest.Random(t, open) }

// What is known is a few nodes and names, so that it is forgotten and learnt again all the time.
func TestStoreThatKnowsLittleDoesAsTheModel(t *testing.T) {
	pgstore.KnowLittle(t)
	storetest.Random(t, open)
}

// newStore makes a store and returns its address.
func newStore(t *testing.T) string {
	t.Helper()
	url := pgtest.New(t)
	if _, err := pgstore.Init(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	return url
}

// signIn makes an account, or renews the one there is, and returns its session.
func signIn(t *testing.T, url string, user auth.UserID) auth.Session {
	t.Helper()
	return signInAs(t, url, user, auth.RoleUser)
}

func signInAs(t *testing.T, url string, user auth.UserID, role auth.Role) auth.Session {
	t.Helper()
	accounts, err := pgstore.OpenAccounts(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer accounts.Close()
	token, err := accounts.Add(t.Context(), user, role)
	if err != nil {
		t.Fatal(err)
	}
	session, err := accounts.Authenticate(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func open(t *testing.T) storetest.Fixture {
	t.Helper()
	url := newStore(t)
	options := pgstore.Options{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Connections: 4}
	var store *pgstore.Store
	reopen := func() blobstore.Store {
		var err error
		if store != nil {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		}
		if store, err = pgstore.Open(t.Context(), url, options); err != nil {
			t.Fatal(err)
		}
		return store
	}
	reopen()
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		isWhole(t, url) // whatever was done
	})
	sessions := map[auth.UserID]auth.Session{}
	admin := sync.OnceValue(func() auth.Session { return signInAs(t, url, "ada", auth.RoleAdmin) })
	return storetest.Fixture{
		Store:    store,
		Hole:     64 << 10,
		AnyOwner: true,
		OwnAtime: true,
		Reopen:   reopen,
		Admin:    admin,
		Session: func(user auth.UserID) auth.Session {
			if s, ok := sessions[user]; ok {
				return s
			}
			if user.Check() != nil { // no such account can be: a session that claims to be
				return auth.Session{User: user, Role: auth.RoleUser, Token: auth.NewToken()}
			}
			sessions[user] = signIn(t, url, user)
			return sessions[user]
		},
	}
}

func TestASessionOfNobodyOpensNothing(t *testing.T) {
	url := newStore(t)
	signIn(t, url, "alice")
	store, err := pgstore.Open(t.Context(), url, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	forged := auth.Session{User: "alice", Role: auth.RoleAdmin, Token: auth.NewToken()}
	if _, err := store.Open(t.Context(), forged); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("got %v, want %v", err, auth.ErrInvalid)
	}
}
