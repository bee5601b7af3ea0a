package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
	"mediafs/blobstore/pgstore"
)

func auditCommand() *cli.Command {
	return &cli.Command{
		Name:      "audit",
		Usage:     "tell who did what on the drives of a store",
		UsageText: "mediafs audit --store STORE [--token-file FILE] [--auth URL] [--user USER] [--path PATH] [--since TIME] [--denied] [--json]",
		Description: "With a token, as `mediafs mount` takes it, a user sees the log of their own drive, and an admin that of all. Without one,\n" +
			"all is shown to who may read everything anyway: an administrator of the database, or whoever can read the log in a\n" +
			"store of folders. Paths are as on the drive. Events alike within a second are one line: COUNT says how many.\n\n" +
			"Examples:\n\n" +
			"  mediafs audit --store /srv/media --since 24h\n" +
			"  mediafs audit --store /srv/media --token-file anna.token --path /Reisen --denied\n" +
			"  mediafs audit --store postgres://postgres@localhost/appframes --user anna --since 2026-11-01 --json | jq -c .",
		Flags: []cli.Flag{
			storeFlag(),
			&cli.StringFlag{Name: "token-file", TakesFile: true, Usage: "`FILE` with the token (or MEDIAFS_TOKEN)"},
			&cli.StringFlag{Name: "auth", Usage: "`URL` of the application to ask whose session it is, for a store of folders (or MEDIAFS_AUTH)"},
			&cli.StringFlag{Name: "user", Usage: "only what `USER` did"},
			&cli.StringFlag{Name: "path", Usage: "only what was done to `PATH` and below it"},
			&cli.StringFlag{Name: "since", Usage: "only from `TIME` on: 2026-11-01, 2026-11-01T08:00:00Z, or how long ago: 90m, 24h"},
			&cli.BoolFlag{Name: "denied", Usage: "only what was denied"},
			&cli.BoolFlag{Name: "json", Usage: "print an object a line"},
		},
		Action: runAudit,
	}
}

func runAudit(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	query, err := auditQuery(c, time.Now())
	if err != nil {
		return err
	}
	address, err := storeOf(c)
	if err != nil {
		return err
	}
	read := address.auditLog
	if c.String("token-file") != "" || os.Getenv(tokenVariable) != "" || hasLogin() {
		found, err := credentialsOf(c, address)
		if err != nil {
			return err
		}
		if found.warning != "" {
			tell(c.App.ErrWriter, "warning: "+found.warning)
		}
		read = func(ctx context.Context, query blobstore.AuditQuery, take func(*blobstore.AuditRecord) bool) error {
			return address.auditLogOf(ctx, found, query, take)
		}
	}
	show := newAuditTable(c.App.Writer)
	if c.Bool("json") {
		encoder := json.NewEncoder(c.App.Writer)
		encoder.SetEscapeHTML(false)
		show = auditPrinter{line: func(r *blobstore.AuditRecord) error { return encoder.Encode(r) }, end: func() error { return nil }}
	}
	var failed error // in printing
	err = read(c.Context, query, func(r *blobstore.AuditRecord) bool {
		failed = show.line(r)
		return failed == nil
	})
	if err != nil {
		return address.failedFor("audit log", err)
	}
	if failed == nil {
		failed = show.end()
	}
	if failed != nil {
		return &failure{code: exitFailed, what: "print the log", why: failed}
	}
	return nil
}

// auditQuery reads the flags that say what is wanted.
func auditQuery(c *cli.Context, now time.Time) (query blobstore.AuditQuery, err error) {
	query = blobstore.AuditQuery{User: auth.UserID(c.String("user")), Denied: c.Bool("denied")}
	if p := c.String("path"); p != "" {
		query.Path = path.Clean("/" + p)
	}
	if since := c.String("since"); since != "" {
		if query.Since, err = parseTime("--since", since, now); err != nil {
			return query, usageFailure(c, err)
		}
	}
	return query, nil
}

// parseTime reads a point in time that a flag gives, in this machine's time zone unless it names one, or how long ago that is.
func parseTime(flag, s string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", time.DateTime, "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s %q is neither a time, like 2026-11-01 or 2026-11-01T08:00:00Z, nor how long ago, like 90m, 24h or 7d", flag, s)
}

// hasLogin says whether `mediafs login` saved a session, usable or not.
func hasLogin() bool {
	_, _, err := readLogin()
	return !errors.Is(err, errNotSignedIn)
}

// auditLog reads the log of all drives for the administrator of a store, who has no token.
func (a storeAddress) auditLog(ctx context.Context, query blobstore.AuditQuery, take func(*blobstore.AuditRecord) bool) error {
	var err error
	if a.database != "" {
		err = pgstore.AuditLog(ctx, a.database, query, take)
	} else {
		err = dirstore.AuditLog(ctx, a.folder, query, take)
	}
	if errors.Is(err, pgstore.ErrPrivilege) || errors.Is(err, os.ErrPermission) || errors.Is(err, blobstore.ErrAccess) {
		f := explain("audit log", err, exitStoreAway)
		f.way, f.hide = "show whose log you want with --token-file FILE or "+tokenVariable, a.secrets()
		return f
	}
	return err
}

// auditLogOf reads what a session may see.
func (a storeAddress) auditLogOf(ctx context.Context, found credentials, query blobstore.AuditQuery, take func(*blobstore.AuditRecord) bool) error {
	store, session, err := a.openFor(ctx, found, false)
	if err != nil {
		return err
	}
	defer store.Close()
	return store.AuditLog(ctx, session, query, take)
}

// An auditPrinter shows records, one after the other.
type auditPrinter struct {
	line func(*blobstore.AuditRecord) error
	end  func() error
}

// auditWidths are those of the table's columns but the last: it is printed as it is read, however long the log is.
var auditWidths = []int{19, 12, 7, 5, 12, 12, 6}

// newAuditTable prints a table, its header with the first line.
func newAuditTable(w io.Writer) auditPrinter {
	row := func(cells ...string) error {
		var line strings.Builder
		for i, cell := range cells {
			if i < len(auditWidths) {
				fmt.Fprintf(&line, "%-*s  ", auditWidths[i], cell)
			} else {
				line.WriteString(cell)
			}
		}
		_, err := fmt.Fprintln(w, line.String())
		return err
	}
	empty := true
	return auditPrinter{
		line: func(r *blobstore.AuditRecord) error {
			if empty {
				if err := row("TIME", "USER", "ACTION", "COUNT", "RESULT", "HOST", "UID", "PATH"); err != nil {
					return err
				}
				empty = false
			}
			user, where := string(r.User), shownPath(r.Path)
			if user == "" {
				user = "(guest)"
			}
			if r.NewPath != "" {
				where += " -> " + shownPath(r.NewPath)
			}
			if string(r.Drive) != string(r.User) {
				where = oneLine(string(r.Drive)) + ":" + where
			}
			if r.Bytes > 0 {
				where += " (" + formatBytes(r.Bytes) + ")"
			}
			return row(r.Time.Local().Format(time.DateTime), oneLine(user), oneLine(string(r.Action)), strconv.Itoa(r.Count),
				oneLine(r.Result), oneLine(r.Host), strconv.FormatUint(uint64(r.UID), 10), where)
		},
		end: func() error {
			if !empty {
				return nil
			}
			_, err := fmt.Fprintln(w, "nothing is recorded")
			return err
		},
	}
}

// shownPath is a path as a terminal may show it: if it has other than printable characters it is quoted as in Go.
func shownPath(p string) string {
	if quoted := strconv.Quote(p); quoted != `"`+p+`"` {
		return quoted
	}
	return p
}
