package accounts

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
)

// TestMain lets the test binary be the second process of TestAddFromTwoProcessesLosesNothing.
func TestMain(m *testing.M) {
	if path := os.Getenv("ACCOUNTS_TEST_ADD"); path != "" {
		os.Exit(addMany(path, os.Getenv("ACCOUNTS_TEST_NAME")))
	}
	os.Exit(m.Run())
}

const manyUsers = 20

func addMany(path, name string) int {
	f, err := Open(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for i := range manyUsers {
		if _, err := f.Add(context.Background(), auth.UserID(fmt.Sprintf("%s%d", name, i)), auth.RoleUser); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return 0
}

func open(t *testing.T, path string) *File {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func add(t *testing.T, f *File, user auth.UserID, role auth.Role) auth.Token {
	t.Helper()
	token, err := f.Add(t.Context(), user, role)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func newPath(t *testing.T) string { return filepath.Join(t.TempDir(), ".mediafs", "accounts.json") }

func names(t *testing.T, f *File) []auth.UserID {
	t.Helper()
	list, err := f.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var users []auth.UserID
	for _, a := range list {
		users = append(users, a.User)
	}
	return users
}

func TestAMissingFileIsAnEmptyList(t *testing.T) {
	path := newPath(t)
	f := open(t, path)
	if got := names(t, f); len(got) != 0 {
		t.Errorf("got %v, want nobody", got)
	}
	if _, err := f.Authenticate(t.Context(), auth.NewToken()); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
	if _, err := os.Stat(filepath.Dir(path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("looking made the folder: %v", err)
	}
}

func TestEachTokenProvesItsOwnUserAlone(t *testing.T) {
	f := open(t, newPath(t))
	anna, bob := add(t, f, "anna", auth.RoleUser), add(t, f, "bob", auth.RoleAdmin)
	for _, c := range []struct {
		token auth.Token
		want  auth.Session
	}{
		{anna, auth.Session{User: "anna", Role: auth.RoleUser, Token: anna}},
		{bob, auth.Session{User: "bob", Role: auth.RoleAdmin, Token: bob}},
	} {
		got, err := f.Authenticate(t.Context(), c.token)
		if err != nil || got != c.want {
			t.Errorf("got %+v, %v, want %+v", got, err, c.want)
		}
		if err := got.Check(time.Now().AddDate(100, 0, 0)); err != nil {
			t.Errorf("%s: the session ends: %v", got.User, err)
		}
	}
	hash := anna.Hash()
	forged, err := auth.ParseToken(hex.EncodeToString(hash[:]))
	if err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]auth.Token{"a new token": auth.NewToken(), "no token": {}, "the stored hash": forged} {
		if got, err := f.Authenticate(t.Context(), token); !errors.Is(err, auth.ErrInvalid) || got != (auth.Session{}) {
			t.Errorf("%s: got %+v, %v, want ErrInvalid", what, got, err)
		}
	}
}

func TestRenewAndRemoveRevokeTheTokenForEveryReader(t *testing.T) {
	path := newPath(t)
	writer := open(t, path)
	anna, bob := add(t, writer, "anna", auth.RoleUser), add(t, writer, "bob", auth.RoleUser)
	reader := open(t, path)
	if _, err := reader.Authenticate(t.Context(), anna); err != nil {
		t.Fatal(err)
	}

	renewed, err := writer.Renew(t.Context(), "anna")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Authenticate(t.Context(), anna); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("the token before: got %v, want ErrInvalid", err)
	}
	if s, err := reader.Authenticate(t.Context(), renewed); err != nil || s.User != "anna" {
		t.Errorf("the new token: got %v, %v, want anna", s.User, err)
	}

	if err := writer.Remove(t.Context(), "anna"); err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Authenticate(t.Context(), renewed); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("the token of a removed account: got %v, want ErrInvalid", err)
	}
	if s, err := reader.Authenticate(t.Context(), bob); err != nil || s.User != "bob" {
		t.Errorf("bob: got %v, %v", s.User, err)
	}
	if got := names(t, reader); !slices.Equal(got, []auth.UserID{"bob"}) {
		t.Errorf("got %v, want bob alone", got)
	}
}

func TestAReaderFollowsAFileThatIsRemoved(t *testing.T) {
	path := newPath(t)
	f := open(t, path)
	token := add(t, f, "anna", auth.RoleUser)
	if _, err := f.Authenticate(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Authenticate(t.Context(), token); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

func TestListIsByNameWithRoleAndTime(t *testing.T) {
	f := open(t, newPath(t))
	before := time.Now().UTC().Truncate(time.Second)
	add(t, f, "zoe", auth.RoleUser)
	add(t, f, "anna", auth.RoleAdmin)
	list, err := f.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].User != "anna" || list[0].Role != auth.RoleAdmin || list[1].User != "zoe" || list[1].Role != auth.RoleUser {
		t.Fatalf("got %+v, want anna the admin and zoe", list)
	}
	for _, a := range list {
		if a.Created.Before(before) || a.Created.After(time.Now()) {
			t.Errorf("%s: created at %v", a.User, a.Created)
		}
	}
}

func TestWhatCannotBeChangedIsRefusedAndChangesNothing(t *testing.T) {
	path := newPath(t)
	f := open(t, path)
	add(t, f, "anna", auth.RoleUser)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		do   func() error
		want error
	}{
		"a user twice":         {func() error { _, err := f.Add(t.Context(), "anna", auth.RoleAdmin); return err }, auth.ErrUserExists},
		"no name":              {func() error { _, err := f.Add(t.Context(), "", auth.RoleUser); return err }, auth.ErrUserID},
		"a path for a name":    {func() error { _, err := f.Add(t.Context(), "../bob", auth.RoleUser); return err }, auth.ErrUserID},
		"an option for one":    {func() error { _, err := f.Add(t.Context(), "-rf", auth.RoleUser); return err }, auth.ErrUserID},
		"a new token for none": {func() error { _, err := f.Renew(t.Context(), "bob"); return err }, auth.ErrNoUser},
		"removing nobody":      {func() error { return f.Remove(t.Context(), "bob") }, auth.ErrNoUser},
	} {
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", what, err, c.want)
		}
	}
	for _, role := range []auth.Role{"", auth.RoleGuest, "root"} {
		if _, err := f.Add(t.Context(), "bob", role); err == nil {
			t.Errorf("role %q is taken", role)
		}
	}
	after, err := os.ReadFile(path)
	if err != nil || string(after) != string(before) {
		t.Errorf("the file changed: %v\n%s", err, after)
	}
	leftOvers(t, path)
}

// leftOvers fails the test if the folder has more than the accounts and their lock.
func leftOvers(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if n := e.Name(); n != filepath.Base(path) && n != filepath.Base(path)+".lock" {
			t.Errorf("%s is left over", n)
		}
	}
}

func TestTheFileIsForItsOwnerAndHoldsNoToken(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	path := newPath(t)
	f := open(t, path)
	token := add(t, f, "anna", auth.RoleUser)
	for p, want := range map[string]os.FileMode{path: 0o600, path + ".lock": 0o600, filepath.Dir(path): 0o700 | os.ModeDir} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s: got mode %v, want %v", p, info.Mode(), want)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), strings.TrimPrefix(token.Reveal(), auth.TokenPrefix)) {
		t.Error("the token is in the file")
	}
	hash := token.Hash()
	if !strings.Contains(string(data), hex.EncodeToString(hash[:])) {
		t.Error("the hash of the token is not in the file")
	}
	leftOvers(t, path)
}

func TestWhatRootAddsBelongsToTheOwnerOfTheFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	path := newPath(t)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Dir(path), 4321, 1234); err != nil {
		t.Fatal(err)
	}
	add(t, open(t, path), "anna", auth.RoleUser)
	for _, p := range []string{path, path + ".lock"} {
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil {
			t.Fatal(err)
		}
		if st.Uid != 4321 || st.Gid != 1234 {
			t.Errorf("%s belongs to %d:%d, want 4321:1234", p, st.Uid, st.Gid)
		}
	}
}

func TestAddFromManyGoroutinesLosesNothing(t *testing.T) {
	path := newPath(t)
	var wg sync.WaitGroup
	errs := make([]error, manyUsers)
	for i := range manyUsers {
		wg.Go(func() {
			f, err := Open(path)
			if err == nil {
				_, err = f.Add(t.Context(), auth.UserID(fmt.Sprintf("user%d", i)), auth.RoleUser)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if got := names(t, open(t, path)); len(got) != manyUsers {
		t.Errorf("got %d users, want %d", len(got), manyUsers)
	}
}

func TestAddFromTwoProcessesLosesNothing(t *testing.T) {
	path := newPath(t)
	var processes []*exec.Cmd
	for _, name := range []string{"anna", "bob"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "ACCOUNTS_TEST_ADD="+path, "ACCOUNTS_TEST_NAME="+name)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		processes = append(processes, cmd)
	}
	for _, cmd := range processes {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if got := names(t, open(t, path)); len(got) != 2*manyUsers {
		t.Errorf("got %d users, want %d", len(got), 2*manyUsers)
	}
}

func TestWaitingForTheLockEndsWithTheContext(t *testing.T) {
	path := newPath(t)
	f := open(t, path)
	add(t, f, "anna", auth.RoleUser)
	unlock, err := lock(t.Context(), path+".lock")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, err := f.Add(ctx, "bob", auth.RoleUser); !errors.Is(err, why) {
		t.Errorf("got %v, want the cause of the context's end", err)
	}
	if got := names(t, f); !slices.Equal(got, []auth.UserID{"anna"}) {
		t.Errorf("got %v, want anna alone", got)
	}
}

func TestADamagedFileIsNamedAndLeftAsItIs(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	account := func(user, role, hash string) string {
		return fmt.Sprintf(`{"user":%q,"role":%q,"created":"2026-01-02T15:04:05Z","token_sha256":%q}`, user, role, hash)
	}
	file := func(accounts ...string) string {
		return `{"version":1,"accounts":[` + strings.Join(accounts, ",") + `]}`
	}
	for what, c := range map[string]struct{ content, want string }{
		"an empty file":      {"", "cut short"},
		"half a file":        {file(account("anna", "user", hash))[:60], "cut short"},
		"no JSON":            {"anna:x:1000", "invalid character"},
		"an unknown field":   {`{"version":1,"accounts":[],"extra":1}`, `unknown field "extra"`},
		"an unknown version": {`{"version":2,"accounts":[]}`, "version 2"},
		"no version":         {`{"accounts":[]}`, "version 0"},
		"more behind it":     {file() + file(), "follows"},
		"a user twice":       {file(account("anna", "user", hash), account("anna", "admin", strings.Repeat("cd", 32))), `"anna" is there twice`},
		"one token twice":    {file(account("anna", "user", hash), account("bob", "user", hash)), "one token"},
		"a hostile name":     {file(account("../anna", "user", hash)), "user id must be"},
		"a bad role":         {file(account("anna", "root", hash)), `role "root"`},
		"a guest":            {file(account("anna", "guest", hash)), `role "guest"`},
		"a short hash":       {file(account("anna", "user", hash[2:])), "64 hexadecimal digits"},
		"a hash of letters":  {file(account("anna", "user", strings.Repeat("zz", 32))), "64 hexadecimal digits"},
		"no hash":            {file(account("anna", "user", "")), "64 hexadecimal digits"},
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "accounts.json")
			f := open(t, path)
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, openErr := Open(path)
			_, authErr := f.Authenticate(t.Context(), auth.NewToken())
			_, addErr := f.Add(t.Context(), "carl", auth.RoleUser)
			for call, err := range map[string]error{"Open": openErr, "Authenticate": authErr, "Add": addErr} {
				switch {
				case err == nil:
					t.Errorf("%s takes it", call)
				case errors.Is(err, auth.ErrInvalid):
					t.Errorf("%s blames the token: %v", call, err)
				case !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.want):
					t.Errorf("%s: got %q, want it to name %s and %q", call, err, path, c.want)
				case strings.Contains(err.Error(), hash):
					t.Errorf("%s: the error has a hash: %v", call, err)
				}
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != c.content {
				t.Errorf("the file changed: %v\n%s", err, got)
			}
			leftOvers(t, path)
		})
	}
}

func TestARepairedFileIsReadAgain(t *testing.T) {
	path := newPath(t)
	f := open(t, path)
	token := add(t, f, "anna", auth.RoleUser)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Authenticate(t.Context(), token); err == nil {
		t.Error("a damaged file proves a session")
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := f.Authenticate(t.Context(), token); err != nil || s.User != "anna" {
		t.Errorf("got %v, %v, want anna", s.User, err)
	}
}

func TestAFileThatCannotBeWrittenIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "deeper", "accounts.json")
	f := open(t, path)
	if _, err := f.Add(t.Context(), "anna", auth.RoleUser); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("got %v, want an error that names the folder", err)
	}
}

func FuzzParse(f *testing.F) {
	hash := strings.Repeat("0f", 32)
	f.Add([]byte(`{"version":1,"accounts":[]}`))
	f.Add([]byte(`{"version":1,"accounts":[{"user":"anna","role":"admin","created":"2026-01-02T15:04:05Z","token_sha256":"` + hash + `"}]}`))
	f.Add([]byte(`{"version":1,"accounts":[{"user":"a/b","role":"user","created":"2026-01-02T15:04:05+02:00","token_sha256":"` + hash + `"}]}`))
	f.Add([]byte(`{"version":1,"accounts":[{"user":"a","USER":"b","role":"user","created":"0001-01-01T00:00:00Z","token_sha256":"` + strings.ToUpper(hash) + `"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parse(data)
		if err != nil {
			return
		}
		seen := map[auth.UserID]bool{}
		for _, a := range list {
			if err := a.User.Check(); err != nil || seen[a.User] {
				t.Errorf("user %q is taken: %v", a.User, err)
			}
			seen[a.User] = true
			if _, err := auth.ParseRole(string(a.Role)); err != nil {
				t.Error(err)
			}
		}
		encoded, err := encode(list)
		if err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		again, err := parse(encoded)
		if err != nil || !slices.Equal(again, list) {
			t.Errorf("got %v, %v, want %v", again, err, list)
		}
	})
}
