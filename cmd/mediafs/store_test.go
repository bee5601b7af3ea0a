package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mediafs/auth"
	"mediafs/blobstore/dirstore"
	"mediafs/blobstore/pgstore"
	"mediafs/fusefs"
)

func TestParseStoreTakesFoldersAndDatabases(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for s, want := range map[string]storeAddress{
		"/srv/media":                               {folder: "/srv/media", shown: "/srv/media"},
		"/srv//media/../x/":                        {folder: "/srv/x", shown: "/srv/x"},
		"media":                                    {folder: here + "/media", shown: here + "/media"},
		"./a:b":                                    {folder: here + "/a:b", shown: here + "/a:b"},
		"/srv/a b?c#d%20":                          {folder: "/srv/a b?c#d%20", shown: "/srv/a b?c#d%20"},
		"file:///srv/media":                        {folder: "/srv/media", shown: "/srv/media"},
		"FILE:///srv/media/":                       {folder: "/srv/media", shown: "/srv/media"},
		"file:/srv/media":                          {folder: "/srv/media", shown: "/srv/media"},
		"file://localhost/srv/x":                   {folder: "/srv/x", shown: "/srv/x"},
		"file:///srv/my%20media":                   {folder: "/srv/my media", shown: "/srv/my media"},
		"postgres://h/d":                           {database: "postgres://h/d", shown: "postgres://h/d"},
		"postgresql://u@h:5433/d":                  {database: "postgresql://u@h:5433/d", shown: "postgresql://u@h:5433/d"},
		"postgres://u:p%40w@h/d":                   {database: "postgres://u:p%40w@h/d", shown: "postgres://u@h/d"},
		"postgres:///d?host=/tmp/x":                {database: "postgres:///d?host=/tmp/x", shown: "postgres:///d?host=/tmp/x"},
		"postgres:///d?host=/t&password=pw&user=u": {database: "postgres:///d?host=/t&password=pw&user=u", shown: "postgres:///d?host=/t&user=u"},
	} {
		got, err := parseStore(s)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", s, got, err, want)
		}
		if again, err := parseStore(got.raw()); err != nil || again != got {
			t.Errorf("%s: what a daemon is passed gives %+v, %v, want %+v", s, again, err, got)
		}
	}
}

func TestParseStoreNamesWhatIsWrongAndTheWayOut(t *testing.T) {
	for s, want := range map[string]string{
		"mysql://u:hunter2@h/d":            `there is no kind of store "mysql": use a folder, file:///folder or postgres://`,
		"s3:bucket":                        `there is no kind of store "s3"`,
		"file://srv/media":                 `names the machine "srv": write file:///`,
		"file:media":                       "is not absolute",
		"file://":                          "is not absolute",
		"file:///srv/a?b":                  "has a '?' or '#' in it: use a plain path",
		"file:///srv/%zz":                  "is not a URL: use a plain path",
		"postgres:db":                      "is not a URL: write postgres://user@host/database",
		"postgres://u:hunter2%zz@h/d":      "is not a URL",
		"postgresql://u:hunter2@h:port/d":  "is not a URL",
		"postgres://u:hunter2/x@h:5432/d ": "is not a URL",
	} {
		_, err := parseStore(s)
		var f *failure
		if !errors.As(err, &f) || f.code != exitStoreAddress || !strings.Contains(f.Error(), want) {
			t.Errorf("%s: got %v, want %q with exit code %d", s, err, want, exitStoreAddress)
		} else if strings.Contains(f.Error(), "hunter2") {
			t.Errorf("%s: the error has the password: %v", s, err)
		}
	}
}

func TestAPasswordIsNeverShown(t *testing.T) {
	for _, s := range []string{
		"postgres://anna:hunter2@db:5432/media",
		"postgres://anna:hunter2%2F%40@db/media?sslmode=disable",
		"postgresql://db/media?user=anna&password=hunter2",
		"postgres://db/media?password=a%20hunter2&sslpassword=hunter2b",
	} {
		a, err := parseStore(s)
		if err != nil {
			t.Fatal(err)
		}
		if !a.hasPassword() {
			t.Errorf("%s: the password is not seen", s)
		}
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{
			"the address":       errors.New("can't use " + s),
			"the user":          fmt.Errorf("can't sign in %s@db", u.User),
			"the parameters":    fmt.Errorf("can't use ?%s", u.RawQuery),
			"decoded":           fmt.Errorf("can't use password=%s", u.Query().Get("password")),
			"a kind of its own": &failure{code: exitStoreAway, why: errors.New(s)},
		} {
			if got := a.failed(err).Error(); strings.Contains(got, "hunter2") {
				t.Errorf("%s, %s: got %q", s, what, got)
			}
		}
		for what, got := range map[string]string{"%v": fmt.Sprintf("%v", a), "String": a.String()} {
			if strings.Contains(got, "hunter2") {
				t.Errorf("%s, %s: got %q", s, what, got)
			}
		}
	}
}

func FuzzParseStore(f *testing.F) {
	for _, around := range [][2]string{
		{"postgres://anna:", "@db/media"}, {"postgres://anna:1/", "@db/media"}, {"postgres://anna:a@", "@db/media"}, {"postgres://anna:%zz", "@db/media"},
		{"postgres://db/media?password=", ""}, {"postgres://db/media?%70assword=", "&a=b"}, {"postgres://db/media?password=", ";a"},
		{"postgres://db/media?password=a#", ""}, {"postgres:anna:", "@db"}, {"mysql://root:", "@db"}, {"file://anna:", "@host/x"}, {"POSTGRES://a:?", "@b"},
	} {
		f.Add(around[0], around[1])
	}
	const password = "hunter2Secret"
	// What is before it makes it a password, or part of one: as libpq would read the whole, up to the last @ of what is no query.
	before := regexp.MustCompile(`^(?i:postgres|postgresql|mysql|file):(//)?[a-z]*:[^?&@]*$|^(?i:postgres|postgresql)://[a-z]*/[a-z]*\?([a-z]*=[a-z]*&)*(%70|p)assword=[^&]*$`)
	f.Fuzz(func(t *testing.T, head, tail string) {
		if !before.MatchString(head) || !strings.Contains(head, "assword=") && !strings.Contains(tail, "@") || strings.Contains(tail, password) {
			return
		}
		s := head + password + tail
		a, err := parseStore(s)
		if err != nil {
			if strings.Contains(err.Error(), password) {
				t.Errorf("%q: got %v", s, err)
			}
			return
		}
		for what, got := range map[string]string{"shown": a.String(), "an error": a.failed(errors.New("can't use " + s)).Error()} {
			if strings.Contains(got, password) {
				t.Errorf("%q, %s: got %q", s, what, got)
			}
		}
		if again, err := parseStore(a.raw()); err != nil || again != a {
			t.Errorf("%q: read again it is %+v, %v", s, again, err)
		}
	})
}

func TestAWarningSaysThatPsShowsThePassword(t *testing.T) {
	isolate(t)
	const store = "postgres://anna:hunter2@127.0.0.1:1/media"
	got := mediafs(t, "user", "list", "--store", store)
	if got.code != exitStoreAway || !strings.Contains(got.stderr, "ps shows the password") || strings.Contains(got.stderr, "hunter2") {
		t.Errorf("got %+v, want a warning and exit code %d", got, exitStoreAway)
	}
	t.Setenv(storeVariable, store)
	wantError(t, mediafs(t, "user", "list"), exitStoreAway, "postgres://anna@127.0.0.1:1/media", "can't be reached")
}

func TestEachKindOfErrorHasItsExitCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want exitCode
	}{
		{pgstore.ErrAddress, exitStoreAddress},
		{dirstore.ErrNotInitialised, exitStoreSchema},
		{pgstore.ErrNotInitialised, exitStoreSchema},
		{pgstore.ErrOlderSchema, exitStoreSchema},
		{pgstore.ErrNewerSchema, exitStoreSchema},
		{pgstore.ErrUnreachable, exitStoreAway},
		{pgstore.ErrPrivilege, exitStoreAway},
		{auth.ErrInvalid, exitToken},
		{auth.ErrExpired, exitToken},
		{auth.ErrRevoked, exitToken},
		{auth.ErrBanned, exitToken},
		{auth.ErrUserID, exitUser},
		{auth.ErrUserExists, exitUser},
		{auth.ErrNoUser, exitUser},
		{fusefs.ErrMountpointMissing, exitMountpoint},
		{fusefs.ErrMountpointNotDir, exitMountpoint},
		{fusefs.ErrMountpointNotEmpty, exitMountpoint},
		{fusefs.ErrMounted, exitMountpoint},
		{fusefs.ErrStaleMount, exitMountpoint},
		{fusefs.ErrNoFuse, exitFUSE},
		{fusefs.ErrNotMounter, exitFUSE},
		{errors.New("something else"), exitFailed},
	} {
		f := explain("widget", fmt.Errorf("open it: %w", c.err), exitFailed)
		if f.code != c.want || !errors.Is(f, c.err) || !strings.HasPrefix(f.Error(), "widget: open it: ") {
			t.Errorf("%v: got %q with exit code %d, want %d", c.err, f, f.code, c.want)
		}
	}
}

func TestAnErrorIsOneLineWhateverIsInIt(t *testing.T) {
	got := oneLine("connect:\n\thost a: refused\r\n\n\x1b[2Jhost b\x00\u0085")
	if strings.ContainsAny(got, "\n\r\t\x1b\x00\u0085") || !strings.HasPrefix(got, "connect:;  host a: refused; ") {
		t.Errorf("got %q", got)
	}
}

func TestAFolderThatIsNoStoreIsRefusedAndLeftAsItIs(t *testing.T) {
	isolate(t)
	folder := t.TempDir()
	missing := filepath.Join(folder, "missing")
	token := auth.NewToken().Reveal()
	for _, store := range []string{folder, missing, "file://" + missing} {
		for _, args := range [][]string{
			{"user", "add", "--store", store, "anna"},
			{"user", "list", "--store", store},
			{"user", "remove", "--store", store, "anna"},
			{"mount", "--store", store, t.TempDir()},
		} {
			t.Setenv(tokenVariable, token)
			wantError(t, mediafs(t, args...), exitStoreSchema, strings.TrimPrefix(store, "file://"), "mediafs init --store")
		}
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 0 {
		t.Errorf("got %v, %v, want an empty folder", entries, err)
	}
}

func TestInitSaysWhatToDoNextAndMayBeDoneAgain(t *testing.T) {
	isolate(t)
	store := filepath.Join(t.TempDir(), "my media")
	for range 2 {
		got := mediafs(t, "init", "--store", store)
		if got.code != exitOK || got.stderr != "" {
			t.Fatalf("got %+v", got)
		}
		for _, want := range []string{"mediafs user add --store '" + store + "' anna", "mediafs mount --store '" + store + "' --token-file", "mediafs umount"} {
			if !strings.Contains(got.stdout, want) {
				t.Errorf("got %q, want %q in it", got.stdout, want)
			}
		}
	}
	newUser(t, store, "anna")
	mediafs(t, "init", "--store", store)
	if got := mediafs(t, "user", "list", "--store", store); !strings.Contains(got.stdout, "anna") {
		t.Errorf("init again lost a user: %+v", got)
	}
}

func TestInitWhereNothingCanBeWrittenIsExitCode5(t *testing.T) {
	isolate(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, mediafs(t, "init", "--store", file), exitStoreAway, file)
	wantError(t, mediafs(t, "init", "--store", "/proc/media"), exitStoreAway, "/proc/media")
	wantError(t, mediafs(t, "init", "--store", "ftp://h/x"), exitStoreAddress, "ftp")
}

func TestQuoteShellWritesWhatAShellReads(t *testing.T) {
	for s, want := range map[string]string{
		"":                    "''",
		"/srv/media":          "/srv/media",
		"postgres://u@h:1/d":  "postgres://u@h:1/d",
		"/srv/my media":       "'/srv/my media'",
		"it's":                `'it'\''s'`,
		"$(reboot)":           "'$(reboot)'",
		"postgres:///d?a=b&c": "'postgres:///d?a=b&c'",
	} {
		if got := quoteShell(s); got != want {
			t.Errorf("%s: got %s, want %s", s, got, want)
		}
	}
}
