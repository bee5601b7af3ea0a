package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"mediafs/auth"
	"mediafs/blobstore"
)

func lsCommand() *cli.Command {
	return &cli.Command{
		Name:      "ls",
		Usage:     "list what is in a folder of a drive, without a mount",
		UsageText: "mediafs ls --store STORE [--token-file FILE | --guest] [--auth URL] [--drive NAME] [--limit N] [--json] [FOLDER]",
		Description: "Lists the folders and then the files that are in FOLDER itself, or in the drive's root, files with size, type and when they were made. For those\n" +
			"in its folders too, see `mediafs find`. " + whoSees + "\n\n" +
			"Examples:\n\n" +
			"  mediafs ls --store /srv/media --token-file anna.token Pictures/2026\n" +
			"  mediafs ls --store /srv/media --token-file ada.token --drive anna --json | jq -r '.path // .folder'",
		Flags:  assetFlags(),
		Action: func(c *cli.Context) error { return listAssets(c, true) },
	}
}

func findCommand() *cli.Command {
	return &cli.Command{
		Name:  "find",
		Usage: "search the files of a drive, without a mount",
		UsageText: "mediafs find --store STORE [--token-file FILE | --guest] [--auth URL] [--drive NAME] [--name PATTERN] [--type TYPE]\n" +
			"   [--since TIME] [--until TIME] [--min-size SIZE] [--max-size SIZE] [--job ID] [--by-path] [--limit N] [--json] [FOLDER]",
		Description: "Lists the files in FOLDER and beneath it, or on the whole drive, that fit all that is asked for, the newest first. " + whoSees + "\n" +
			"The type of a file is what its content says, whatever its name is. In a database the newest come from an index, so that the first of them are\n" +
			"there at once; --by-path looks up all that fits before it prints the first, which takes seconds on a drive of a million files.\n\n" +
			"Examples:\n\n" +
			"  mediafs find --store /srv/media --type 'image/*' --since 7d\n" +
			"  mediafs find --store /srv/media --name '*.pdf' --min-size 10M Documents\n" +
			"  mediafs find --store postgres://app@localhost/appframes --token-file ada.token --drive anna --job import-7 --json | jq -r .sha256",
		Flags: append(assetFlags(),
			&cli.StringFlag{Name: "name", Usage: "whose names fit `PATTERN` (*, ? and [a-z]), in upper or lower case"},
			&cli.StringSliceFlag{Name: "type", Usage: "of this `TYPE`: image/jpeg, or image/* for all of a kind; may be given more than once"},
			&cli.StringFlag{Name: "since", Usage: "made at `TIME` or later: 2026-11-01, 2026-11-01T08:00:00Z, or how long ago: 90m, 24h, 7d"},
			&cli.StringFlag{Name: "until", Usage: "made before `TIME`"},
			&cli.StringFlag{Name: "min-size", Usage: "of at least `SIZE`: 500K, 64M, 2G"},
			&cli.StringFlag{Name: "max-size", Usage: "of at most `SIZE`"},
			&cli.StringFlag{Name: "job", Usage: "of the job `ID`"},
			&cli.BoolFlag{Name: "by-path", Usage: "in the order of drives and paths, not the newest first"}),
		Action: func(c *cli.Context) error { return listAssets(c, false) },
	}
}

// whoSees is what the help of both commands says of rights.
const whoSees = "A user sees their own drive, an admin all, --guest shows the public one."

func assetFlags() []cli.Flag {
	return []cli.Flag{
		storeFlag(),
		&cli.StringFlag{Name: "token-file", TakesFile: true, Usage: "`FILE` with the token (or MEDIAFS_TOKEN)"},
		&cli.StringFlag{Name: "auth", Usage: "`URL` of the application to ask whose session it is, for a store of folders (or MEDIAFS_AUTH)"},
		&cli.BoolFlag{Name: "guest", Usage: "without a token: the public drive"},
		&cli.StringFlag{Name: "drive", Usage: "only the drive `NAME`, which is the user id of its owner, or public; for admins"},
		&cli.IntFlag{Name: "limit", Usage: "at most `N` of them"},
		&cli.BoolFlag{Name: "json", Usage: "print an object a line"},
	}
}

// How many assets are asked for at once, and at first, so that whoever looks at a screen sees something in 50 ms.
const (
	firstAssetPage = 250
	assetPage      = 1000
)

func listAssets(c *cli.Context, shallow bool) error {
	query, err := assetQuery(c, time.Now())
	if err != nil {
		return usageFailure(c, err)
	}
	if query.Shallow = shallow; !shallow && !c.Bool("by-path") {
		query.Order = blobstore.ByCreation
	}
	address, err := storeOf(c)
	if err != nil {
		return err
	}
	var found credentials
	if !c.Bool("guest") {
		if found, err = credentialsOf(c, address); err != nil {
			return err
		}
		if found.warning != "" {
			tell(c.App.ErrWriter, "warning: "+found.warning)
		}
	}
	store, session, err := address.openFor(c.Context, found, c.Bool("guest"))
	if err != nil {
		return address.failedFor("list files", err)
	}
	assets, ok := store.(blobstore.Assets)
	if !ok {
		err = &failure{code: exitFailed, what: "store " + address.shown, why: errors.New("files can't be listed without a mount here"),
			way: "mount the drive and use find(1)"}
		return errors.Join(err, store.Close())
	}
	show := newAssetTable(c.App.Writer, session.Role == auth.RoleAdmin, shallow)
	if c.Bool("json") {
		show = newAssetLines(c.App.Writer)
	}
	limit := c.Int("limit")
	if shallow {
		limit, err = eachFolderPage(c.Context, assets, session, query, limit, show.folders)
	}
	if err == nil && (limit > 0 || !c.IsSet("limit")) {
		err = eachPage(c.Context, assets, session, query, limit, show.page)
	}
	if err == nil && show.empty() && query.Folder != "" { // is it there at all?
		_, err = assets.FindFolders(c.Context, session, blobstore.FolderQuery{Drives: query.Drives, Folder: query.Folder, Limit: 1})
	}
	var printing *printError
	switch {
	case errors.As(err, &printing):
		err = &failure{code: exitFailed, what: "print the list", why: printing.error}
	case errors.Is(err, blobstore.ErrNotExist):
		err = &failure{code: exitFailed, what: shownPath(query.Folder), why: errors.New("there is no such folder on the drive"), way: "see `mediafs ls` for those that there are"}
	case errors.Is(err, blobstore.ErrNotDir):
		err = &failure{code: exitFailed, what: shownPath(query.Folder), why: errors.New("is not a folder"), way: "name the folder that it is in"}
	case err != nil:
		err = address.failedFor("list files", err)
	default:
		err = show.end()
	}
	return errors.Join(err, store.Close())
}

// A printError is of what is written to, not of what is read from.
type printError struct{ error }

// eachPage calls take with one page of assets after the other, at most limit assets (0: all).
func eachPage(ctx context.Context, assets blobstore.Assets, session auth.Session, query blobstore.AssetQuery, limit int, take func([]blobstore.Asset) error) error {
	left, size := limit, firstAssetPage
	for {
		query.Limit = size
		if limit > 0 {
			query.Limit = min(left, size)
		}
		page, err := assets.FindAssets(ctx, session, query)
		if err != nil {
			return err
		}
		if err := take(page.Assets); err != nil {
			return &printError{err}
		}
		left -= len(page.Assets)
		if page.Next == "" || limit > 0 && left <= 0 {
			return nil
		}
		query.After, size = page.Next, assetPage
	}
}

// eachFolderPage calls take with one page after the other of the folders in the folder that is asked for, at most limit folders (0: all), and returns what is left
// of limit.
func eachFolderPage(ctx context.Context, assets blobstore.Assets, session auth.Session, query blobstore.AssetQuery, limit int, take func([]blobstore.Folder) error) (left int, err error) {
	folders := blobstore.FolderQuery{Drives: query.Drives, Folder: query.Folder, Limit: assetPage}
	for left = limit; ; {
		if limit > 0 {
			folders.Limit = min(left, assetPage)
		}
		page, err := assets.FindFolders(ctx, session, folders)
		if err != nil {
			return left, err
		}
		if err := take(page.Folders); err != nil {
			return left, &printError{err}
		}
		left -= len(page.Folders)
		if folders.After = page.Next; page.Next == "" || limit > 0 && left <= 0 {
			return left, nil
		}
	}
}

// openFor opens the store and signs in with what was found; as a guest with nothing.
func (a storeAddress) openFor(ctx context.Context, found credentials, guest bool) (store blobstore.Store, session auth.Session, err error) {
	store, authenticator, err := a.open(ctx, budgets{}, newLogger(io.Discard, 0))
	if err != nil {
		return nil, session, err
	}
	if guest {
		return store, auth.Guest(), nil
	}
	if found.application != "" {
		authenticator, err = applicationAt(found.application)
	}
	if err == nil {
		session, err = authenticator.Authenticate(ctx, found.token)
	}
	if err != nil {
		return nil, session, errors.Join(err, store.Close())
	}
	return store, session, nil
}

// assetQuery reads what is asked for.
func assetQuery(c *cli.Context, now time.Time) (q blobstore.AssetQuery, err error) {
	switch args := c.Args().Slice(); len(args) {
	case 0:
	case 1:
		q.Folder = strings.TrimPrefix(path.Clean("/"+args[0]), "/")
	default:
		return q, fmt.Errorf("there are %d arguments, not one folder: put it into quotes if it has spaces in it, and patterns with --name '*.jpg'", len(args))
	}
	if c.Bool("guest") && (c.String("token-file") != "" || c.String("auth") != "") {
		return q, errors.New("--guest goes without a token")
	}
	if c.IsSet("limit") && c.Int("limit") < 1 {
		return q, errors.New("--limit is how many files to list, 1 or more: leave it out to list all")
	}
	if c.IsSet("drive") {
		q.Drives = []blobstore.DriveName{blobstore.DriveName(c.String("drive"))}
	}
	q.Name, q.Job, q.Types = c.String("name"), c.String("job"), c.StringSlice("type")
	if _, err := path.Match(q.Name, ""); err != nil {
		return q, fmt.Errorf("--name %q is no pattern: * stands for any letters, ? for one, [a-z] for one of these; write \\ before one that is meant itself", q.Name)
	}
	if strings.Contains(q.Name, "/") {
		return q, fmt.Errorf("--name %q has a slash in it, and no name has: give the folder as the last argument", q.Name)
	}
	if err := blobstore.CheckJob(q.Job); err != nil {
		return q, fmt.Errorf("--job: no file can have it: %w", err)
	}
	for _, t := range q.Types {
		if kind, which, ok := strings.Cut(t, "/"); !ok || kind == "" || which == "" || strings.ContainsAny(strings.TrimSuffix(t, "/*"), "* ;") {
			return q, fmt.Errorf("--type %q is no type: write it as image/jpeg, or image/* for all of a kind", t)
		}
	}
	for flag, to := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		if s := c.String(flag); s != "" {
			if *to, err = parseTime("--"+flag, s, now); err != nil {
				return q, err
			}
		}
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until) {
		return q, errors.New("--until is not after --since, so that there is no time between them")
	}
	for flag, to := range map[string]*int64{"min-size": &q.MinSize, "max-size": &q.MaxSize} {
		if s := c.String(flag); s != "" || c.IsSet(flag) {
			if *to, err = (setting{size: true, least: 1, most: 1 << 44}).read(s); err != nil {
				return q, fmt.Errorf("--%s: %w", flag, err)
			}
		}
	}
	if q.MaxSize != 0 && q.MinSize > q.MaxSize {
		return q, errors.New("--min-size is more than --max-size, so that no file fits")
	}
	return q, nil
}

// An assetPrinter shows folders and assets, page by page.
type assetPrinter struct {
	folders func([]blobstore.Folder) error
	page    func([]blobstore.Asset) error
	empty   func() bool // nothing was shown
	end     func() error
}

// newAssetTable prints a table. Columns are as wide as those of their page need, of which the last folders are part, and what has no bound in length is the last.
// What is in one folder is shown by its name alone.
func newAssetTable(w io.Writer, drives, oneFolder bool) assetPrinter {
	empty := true
	var last [][]string // folders that are not shown yet
	show := func(rows [][]string) error {
		rows = append(last, rows...)
		last = nil
		if empty && len(rows) > 0 {
			header := []string{"SIZE", "TYPE", "CREATED", "PATH"}
			if oneFolder {
				header[3] = "NAME"
			}
			if drives {
				header = append([]string{"DRIVE"}, header...)
			}
			rows = append([][]string{header}, rows...)
			empty = false
		}
		return printTable(w, rows)
	}
	return assetPrinter{
		folders: func(folders []blobstore.Folder) error {
			var rows [][]string
			for _, f := range folders {
				row := []string{"-", "folder", "-", shownPath(path.Base(f.Path)) + "/"}
				if drives {
					row = append([]string{string(f.Drive)}, row...)
				}
				rows = append(rows, row)
			}
			err := show(nil)
			last = rows
			return err
		},
		page: func(assets []blobstore.Asset) error {
			var rows [][]string
			for i := range assets {
				a := &assets[i]
				name := a.Path
				if oneFolder {
					name = path.Base(a.Path)
				}
				row := []string{formatBytes(a.Size), a.Type, a.Created.Local().Format(time.DateTime), shownPath(name)}
				if a.Type == "" {
					row[1] = "?"
				}
				if a.Created.UnixNano() == 0 {
					row[2] = "?"
				}
				if drives {
					row = append([]string{string(a.Drive)}, row...)
				}
				rows = append(rows, row)
			}
			return show(rows)
		},
		empty: func() bool { return empty && len(last) == 0 },
		end: func() error {
			if err := show(nil); err != nil || !empty {
				return err
			}
			nothing := "there are no such files"
			if oneFolder {
				nothing = "there is nothing in it"
			}
			_, err := fmt.Fprintln(w, nothing)
			return err
		},
	}
}

// assetJSON is an asset as --json prints it. A path that is not UTF-8, which JSON can't hold, is in path_quoted in place of path: as strconv.Quote writes
// it, in double quotes, with \xff for a byte. What is not known is left out.
type assetJSON struct {
	ID           string     `json:"id"`
	Drive        string     `json:"drive"`
	Path         string     `json:"path,omitempty"`
	PathQuoted   string     `json:"path_quoted,omitempty"`
	Size         int64      `json:"size"`
	Type         string     `json:"mime_type,omitempty"`
	SHA256       string     `json:"sha256,omitempty"` // hexadecimal
	Width        int        `json:"width,omitempty"`
	Height       int        `json:"height,omitempty"`
	Taken        *time.Time `json:"taken_at,omitempty"` // RFC 3339 in UTC, as all times
	Job          string     `json:"job_id,omitempty"`
	Created      *time.Time `json:"created_at,omitempty"`
	Changed      *time.Time `json:"changed_at"`
	AccessCount  int64      `json:"access_count"`
	LastAccessed *time.Time `json:"last_accessed,omitempty"`
	Described    bool       `json:"described"`
}

// folderJSON is a folder as --json prints it; folder_quoted is to folder what path_quoted is to path of an asset.
type folderJSON struct {
	Drive        string    `json:"drive"`
	Folder       string    `json:"folder,omitempty"`
	FolderQuoted string    `json:"folder_quoted,omitempty"`
	Changed      time.Time `json:"changed_at"`
}

func newAssetLines(w io.Writer) assetPrinter {
	empty := true
	buffered := bufio.NewWriter(w)
	encoder := json.NewEncoder(buffered)
	encoder.SetEscapeHTML(false)
	at := func(t time.Time) *time.Time {
		if t.IsZero() || t.UnixNano() == 0 {
			return nil
		}
		t = t.UTC()
		return &t
	}
	return assetPrinter{
		folders: func(folders []blobstore.Folder) error {
			for _, f := range folders {
				empty = false
				line := folderJSON{Drive: string(f.Drive), Folder: f.Path, Changed: f.Changed.UTC()}
				if !utf8.ValidString(f.Path) {
					line.Folder, line.FolderQuoted = "", strconv.Quote(f.Path)
				}
				if err := encoder.Encode(&line); err != nil {
					return err
				}
			}
			return buffered.Flush()
		},
		page: func(assets []blobstore.Asset) error {
			for i := range assets {
				empty = false
				a := &assets[i]
				changed := a.Changed.UTC()
				line := assetJSON{
					ID: a.ID.String(), Drive: string(a.Drive), Size: a.Size, Type: a.Type, SHA256: hex.EncodeToString(a.SHA256), Width: a.Width, Height: a.Height,
					Taken: at(a.Taken), Job: a.Job, Created: at(a.Created), Changed: &changed, AccessCount: a.AccessCount, LastAccessed: at(a.LastAccessed),
					Described: a.Described,
				}
				if line.Path = a.Path; !utf8.ValidString(a.Path) {
					line.Path, line.PathQuoted = "", strconv.Quote(a.Path)
				}
				if err := encoder.Encode(&line); err != nil {
					return err
				}
			}
			return buffered.Flush()
		},
		empty: func() bool { return empty },
		end:   func() error { return nil },
	}
}
