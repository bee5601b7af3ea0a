package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"mediafs/auth"
	"mediafs/auth/accounts"
	"mediafs/auth/betterauth"
	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
	"mediafs/blobstore/pgstore"
)

// A storeAddress says where a store is. It prints without password.
type storeAddress struct {
	folder   string // absolute, of a store of folders; or
	database string // the URL of a database, as given
	shown    string // the same without password
}

func (a storeAddress) String() string { return a.shown }

func (a storeAddress) hasPassword() bool { return a.database != "" && a.database != a.shown }

// raw is the address as parseStore takes it, password included.
func (a storeAddress) raw() string {
	if a.database != "" {
		return a.database
	}
	return a.folder
}

// knownStores ends the error of an address that is none.
const knownStores = "use a folder, file:///folder or postgres://user@host/database"

// scheme matches the scheme of a URL, RFC 3986 section 3.1.
var scheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:`)

// secretParameters are the parameters of a database's URL that are not shown.
var secretParameters = []string{"password", "sslpassword"}

// parseStore reads an address. Its errors have no password in them.
func parseStore(s string) (storeAddress, error) {
	bad := func(shown, why, way string) (storeAddress, error) {
		return storeAddress{}, &failure{code: exitStoreAddress, what: shown, why: errors.New(why), way: way}
	}
	kind := strings.ToLower(strings.TrimSuffix(scheme.FindString(s), ":"))
	switch kind {
	case "":
		folder, err := filepath.Abs(s)
		if err != nil {
			return storeAddress{}, &failure{code: exitStoreAddress, what: "store " + s, why: err, way: "use an absolute path"}
		}
		return storeAddress{folder: folder, shown: folder}, nil
	case "file":
		u, err := url.Parse(s)
		shown := "store " + s
		if strings.Contains(s, "@") { // what is before it could be a password
			shown = "store file:…"
		}
		switch {
		case err != nil:
			return bad(shown, "is not a URL", "use a plain path")
		case u.User != nil:
			return bad(shown, "has a user in it", "use a plain path")
		case u.Host != "" && u.Host != "localhost":
			return bad(shown, fmt.Sprintf("names the machine %q", u.Host), "write file:/// and the folder's absolute path")
		case !filepath.IsAbs(u.Path):
			return bad(shown, "is not absolute", "write file:/// and the folder's absolute path, or use a plain path")
		case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
			return bad(shown, "has a '?' or '#' in it", "use a plain path")
		}
		folder := filepath.Clean(u.Path)
		return storeAddress{folder: folder, shown: folder}, nil
	case "postgres", "postgresql":
		u, err := url.Parse(s)
		if err != nil || !strings.HasPrefix(s[len(kind):], "://") || strings.Contains(u.EscapedPath(), "@") || strings.Contains(s, "#") {
			// What url.Parse says would show parts of the password; and behind a '/', '?' or '#' of its own it is taken for
			// something else.
			return bad("store "+kind+"://…", "is not a URL", "write "+kind+"://user@host/database, with special characters of the user and the password as %XX")
		}
		return storeAddress{database: s, shown: withoutPassword(u)}, nil
	}
	return bad("store "+kind+":…", fmt.Sprintf("there is no kind of store %q", kind), knownStores)
}

// withoutPassword returns the URL of a database as it may be shown.
func withoutPassword(u *url.URL) string {
	shown := *u
	if _, ok := u.User.Password(); ok {
		shown.User = url.User(u.User.Username())
	}
	var public []string
	for _, parameter := range strings.Split(u.RawQuery, "&") {
		if !isSecret(parameter) {
			public = append(public, parameter)
		}
	}
	shown.RawQuery = strings.Join(public, "&")
	return shown.String()
}

// parameterName matches the name of a parameter of a connection.
var parameterName = regexp.MustCompile(`^[A-Za-z_.]+$`)

// isSecret says whether a parameter, as it is written, is not to be shown: it is a password, or can't be read as what is none.
func isSecret(parameter string) bool {
	name, _, _ := strings.Cut(parameter, "=")
	name, err := url.QueryUnescape(name)
	return err != nil || !parameterName.MatchString(name) || strings.Contains(parameter, ";") || slices.Contains(secretParameters, name)
}

// failed is an error of this store. Whatever the driver wrote into it, the password is not.
func (a storeAddress) failed(err error) error { return a.failedFor("store "+a.shown, err) }

// failedFor is an error of this store about one thing.
func (a storeAddress) failedFor(what string, err error) error {
	return a.failedWith(what, err, exitStoreAway)
}

// failedWith is the same with another code for an error that is of no known kind.
func (a storeAddress) failedWith(what string, err error, otherwise exitCode) error {
	if err == nil {
		return nil
	}
	f := explain(what, err, otherwise)
	f.hide = a.secrets()
	return f
}

// secrets are what of the address must not be shown, longest first.
func (a storeAddress) secrets() []string {
	if !a.hasPassword() {
		return nil
	}
	u, err := url.Parse(a.database)
	if err != nil {
		return []string{a.database}
	}
	secrets := []string{a.database, u.User.String() + "@"}
	for _, parameter := range strings.Split(u.RawQuery, "&") { // as written, and decoded
		_, value, _ := strings.Cut(parameter, "=")
		if isSecret(parameter) && value != "" {
			secrets = append(secrets, parameter)
		}
	}
	for _, name := range secretParameters {
		if value := u.Query().Get(name); value != "" {
			secrets = append(secrets, name+"="+value)
		}
	}
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	return secrets
}

// open opens the store and what checks its sessions. What can't be stored is put aside on disk.
func (a storeAddress) open(ctx context.Context, b budgets, logger *slog.Logger) (blobstore.Store, auth.Authenticator, error) {
	spool := ""
	if a.database != "" {
		var err error
		if spool, err = spoolFolder(); err != nil {
			logger.Warn("what can't be stored will not be put aside on disk", "error", err)
		}
	}
	return a.openWith(ctx, b, spool, logger)
}

// openWith opens it with a folder where what can't be stored is put aside; "": nothing is, for whoever has it elsewhere.
func (a storeAddress) openWith(ctx context.Context, b budgets, spool string, logger *slog.Logger) (blobstore.Store, auth.Authenticator, error) {
	if a.database != "" {
		store, err := pgstore.Open(ctx, a.database, pgstore.Options{
			Logger: logger, Spool: spool, Connections: int(b.Connections), PendingBytes: b.Pending, ReadAheadBytes: b.ReadAhead,
		})
		if err != nil {
			return nil, nil, a.failed(err)
		}
		return store, store, nil
	}
	store, err := dirstore.Open(a.folder, logger)
	if err != nil {
		return nil, nil, a.failed(err)
	}
	users, err := accounts.Open(dirstore.AccountsPath(a.folder))
	if err != nil {
		return nil, nil, a.failed(errors.Join(err, store.Close()))
	}
	return store, users, nil
}

// accounts opens the accounts of the store.
func (a storeAddress) accounts(ctx context.Context) (auth.Accounts, error) {
	if a.database != "" {
		users, err := pgstore.OpenAccounts(ctx, a.database)
		return users, a.failed(err)
	}
	store, err := dirstore.Open(a.folder, slog.New(slog.DiscardHandler)) // says whether it is one
	if err != nil {
		return nil, a.failed(err)
	}
	if err := store.Close(); err != nil {
		return nil, a.failed(err)
	}
	users, err := accounts.Open(dirstore.AccountsPath(a.folder))
	return users, a.failed(err)
}

// make makes the store, or brings it up to date, and says what was done. tables are the names that were given for those of an
// application in the same database; nil: none.
func (a storeAddress) make(ctx context.Context, tables *betterauth.Tables) (string, error) {
	if a.database != "" {
		report, err := pgstore.InitWith(ctx, a.database, pgstore.InitOptions{Tables: tables})
		if err != nil {
			return "", a.failed(err)
		}
		return a.describe(report), nil
	}
	if err := dirstore.Init(a.folder); err != nil {
		return "", a.failed(err)
	}
	return "the store " + a.shown + " is ready", nil
}

// describe says what was done to a database.
func (a storeAddress) describe(r pgstore.InitReport) string {
	var b strings.Builder
	switch r.Before {
	case 0:
		fmt.Fprintf(&b, "the store %s is ready (version %d)\n", a.shown, r.After)
	case r.After:
		fmt.Fprintf(&b, "the store %s was ready already (version %d)\n", a.shown, r.After)
	default:
		fmt.Fprintf(&b, "the store %s is of version %d now; it was of version %d\n", a.shown, r.After, r.Before)
	}
	if s := r.Sessions; s != nil {
		fmt.Fprintf(&b, "sessions of the application are read from %s and %s in the schema %s", s.Session.Table, s.User.Table, s.Schema)
		if s.User.Role == "" {
			b.WriteString("; it has no roles, so nobody is an admin")
		}
		if s.User.Banned == "" {
			b.WriteString("; it has no bans")
		}
	} else {
		b.WriteString("there are no sessions of Better Auth in this database: users are added with `mediafs user add`")
	}
	return b.String()
}

// quoteShell writes a word as a shell reads it.
func quoteShell(s string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_-./:@+=,%", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
