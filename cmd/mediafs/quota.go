package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"

	"github.com/urfave/cli/v2"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
	"mediafs/blobstore/pgstore"
)

func quotaCommand() *cli.Command {
	return &cli.Command{
		Name:  "quota",
		Usage: "show what drives hold and may hold, and limit them",
		UsageText: "mediafs quota --store STORE [--token-file FILE] [--auth URL] [--json]\n" +
			"mediafs quota --store STORE [--token-file FILE] [--auth URL] set DRIVE [--bytes SIZE|none] [--files N|none]",
		Description: "With a token, as `mediafs mount` takes it, a user sees their own drive, and an admin sees all and limits them. Without one,\n" +
			"that is for who may do everything anyway: an administrator of the database, or whoever can write to the store of folders.\n\n" +
			"Bytes are those that content takes in the store; holes take none. Files are files, folders, links and all else that has a\n" +
			"name; a second name of a file counts nothing. Who writes or makes more is told EDQUOT, \"Disk quota exceeded\", at once. A drive\n" +
			"that holds more than it may can be read, and made smaller. df and df -i show the limits as the size of the drive. A limit that\n" +
			"is not named stays as it is; mounted drives go by a new one within two seconds.\n\n" +
			"Examples:\n\n" +
			"  mediafs quota --store /srv/media\n" +
			"  mediafs quota --store postgres://postgres@localhost/appframes set anna --bytes 10G --files 100000\n" +
			"  mediafs quota --store /srv/media set anna --files none\n" +
			"  mediafs quota --store /srv/media --token-file ada.token --json | jq -r 'select(.bytes > 1e9).drive'",
		Flags: []cli.Flag{
			storeFlag(),
			&cli.StringFlag{Name: "token-file", TakesFile: true, Usage: "`FILE` with the token (or MEDIAFS_TOKEN)"},
			&cli.StringFlag{Name: "auth", Usage: "`URL` of the application to ask whose session it is, for a store of folders (or MEDIAFS_AUTH)"},
			&cli.BoolFlag{Name: "json", Usage: "print an object a line"},
			&cli.StringFlag{Name: "bytes", Usage: "a `SIZE` like 500M or 10G, or none"},
			&cli.StringFlag{Name: "files", Usage: "a number `N`, or none"},
		},
		Action: runQuota,
	}
}

func runQuota(c *cli.Context) error {
	limiting := c.Args().First() == "set"
	if limiting {
		if _, err := arguments(c, "set", "DRIVE"); err != nil {
			return err
		}
		if !c.IsSet("bytes") && !c.IsSet("files") {
			return usageFailure(c, errors.New("no limit is given: use --bytes, --files or both"))
		}
	} else {
		if c.Args().Present() {
			return usageFailure(c, fmt.Errorf("%q can't be done with quotas: leave it out to see them, or use set", c.Args().First()))
		}
		if c.IsSet("bytes") || c.IsSet("files") {
			return usageFailure(c, errors.New("whose limit it is, is missing: use set DRIVE"))
		}
	}
	maxBytes, err := limitOf(c, "bytes")
	if err != nil {
		return err
	}
	maxFiles, err := limitOf(c, "files")
	if err != nil {
		return err
	}
	address, err := storeOf(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, storeDeadline)
	defer cancel()
	quotas := address.allQuotas()
	if c.String("token-file") != "" || os.Getenv(tokenVariable) != "" || hasLogin() {
		found, err := credentialsOf(c, address)
		if err != nil {
			return err
		}
		if found.warning != "" {
			tell(c.App.ErrWriter, "warning: "+found.warning)
		}
		quotas = address.quotasOf(found)
	}
	if limiting {
		drive := blobstore.DriveName(c.Args().Get(1))
		return quotas.failed(address, fmt.Sprintf("quota of %q", string(drive)), quotas.set(ctx, drive, maxBytes, maxFiles))
	}
	list, err := quotas.list(ctx)
	if err != nil {
		return quotas.failed(address, "quotas", err)
	}
	show := printQuotas
	if c.Bool("json") {
		show = printQuotasJSON
	}
	if err := show(c.App.Writer, list); err != nil {
		return &failure{code: exitFailed, what: "print the quotas", why: err}
	}
	return nil
}

// limitOf is what a flag says of a limit.
func limitOf(c *cli.Context, flag string) (int64, error) {
	if !c.IsSet(flag) {
		return blobstore.KeepLimit, nil
	}
	if c.String(flag) == "none" {
		return 0, nil
	}
	limit := setting{size: flag == "bytes", least: 1, most: math.MaxInt64}
	n, err := limit.read(c.String(flag))
	if err != nil {
		return 0, usageFailure(c, fmt.Errorf("--%s: %w; or write none", flag, err))
	}
	return n, nil
}

// quotaAccess is how the quotas of a store are read and set.
type quotaAccess struct {
	list func(context.Context) ([]blobstore.Quota, error)
	set  func(ctx context.Context, drive blobstore.DriveName, maxBytes, maxFiles int64) error
	way  string // out, if it may not be
}

// failed is an error about what.
func (q quotaAccess) failed(address storeAddress, what string, err error) error {
	if err == nil {
		return nil
	}
	f := explain(what, err, exitStoreAway)
	f.hide = address.secrets()
	switch {
	case errors.Is(err, blobstore.ErrNotExist):
		f.what, f.why, f.way = what, errors.New("there is no such drive"), "see `mediafs quota`; a drive is made when its user first mounts it"
	case errors.Is(err, pgstore.ErrPrivilege) || errors.Is(err, os.ErrPermission) || errors.Is(err, blobstore.ErrAccess):
		f.way = q.way
	}
	return f
}

// allQuotas are those of the administrator of a store, who has no token.
func (a storeAddress) allQuotas() quotaAccess {
	way := "show who you are with --token-file FILE or " + tokenVariable
	if a.database != "" {
		return quotaAccess{
			list: func(ctx context.Context) ([]blobstore.Quota, error) { return pgstore.Quotas(ctx, a.database) },
			set: func(ctx context.Context, drive blobstore.DriveName, maxBytes, maxFiles int64) error {
				return pgstore.SetQuota(ctx, a.database, drive, maxBytes, maxFiles)
			},
			way: way,
		}
	}
	return quotaAccess{
		list: func(ctx context.Context) ([]blobstore.Quota, error) { return dirstore.Quotas(ctx, a.folder) },
		set: func(ctx context.Context, drive blobstore.DriveName, maxBytes, maxFiles int64) error {
			return dirstore.SetQuota(ctx, a.folder, drive, maxBytes, maxFiles)
		},
		way: way,
	}
}

// quotasOf are those that a session may see and set.
func (a storeAddress) quotasOf(found credentials) quotaAccess {
	as := func(ctx context.Context, do func(blobstore.Quotas, auth.Session) error) error {
		store, authenticator, err := a.open(ctx, budgets{}, newLogger(io.Discard, 0))
		if err != nil {
			return err
		}
		defer store.Close()
		if found.application != "" {
			if authenticator, err = applicationAt(found.application); err != nil {
				return err
			}
		}
		who, err := authenticator.Authenticate(ctx, found.token)
		if err != nil {
			return err
		}
		return do(store.(blobstore.Quotas), who)
	}
	return quotaAccess{
		list: func(ctx context.Context) (list []blobstore.Quota, err error) {
			err = as(ctx, func(q blobstore.Quotas, who auth.Session) error {
				list, err = q.Quotas(ctx, who)
				return err
			})
			return list, err
		},
		set: func(ctx context.Context, drive blobstore.DriveName, maxBytes, maxFiles int64) error {
			return as(ctx, func(q blobstore.Quotas, who auth.Session) error {
				return q.SetQuota(ctx, who, drive, maxBytes, maxFiles)
			})
		},
		way: "use the token of an admin",
	}
}

func printQuotas(w io.Writer, list []blobstore.Quota) error {
	rows := [][]string{{"DRIVE", "USED", "LIMIT", "FILES", "LIMIT"}}
	for _, q := range list {
		maxBytes, maxFiles := "none", "none"
		if q.MaxBytes > 0 {
			maxBytes = formatBytes(q.MaxBytes)
		}
		if q.MaxFiles > 0 {
			maxFiles = strconv.FormatInt(q.MaxFiles, 10)
		}
		rows = append(rows, []string{string(q.Drive), formatBytes(q.UsedBytes), maxBytes, strconv.FormatInt(q.UsedFiles, 10), maxFiles})
	}
	return printTable(w, rows)
}

// A quotaLine is a quota as programs read it.
type quotaLine struct {
	Drive    string `json:"drive"`
	Owner    string `json:"owner,omitempty"` // of the public drive: none
	Bytes    int64  `json:"bytes"`
	MaxBytes *int64 `json:"max_bytes"` // null: no limit
	Files    int64  `json:"files"`
	MaxFiles *int64 `json:"max_files"`
}

func printQuotasJSON(w io.Writer, list []blobstore.Quota) error {
	encoder := json.NewEncoder(w)
	for _, q := range list {
		line := quotaLine{Drive: string(q.Drive), Owner: string(q.Owner), Bytes: q.UsedBytes, Files: q.UsedFiles}
		if q.MaxBytes > 0 {
			line.MaxBytes = &q.MaxBytes
		}
		if q.MaxFiles > 0 {
			line.MaxFiles = &q.MaxFiles
		}
		if err := encoder.Encode(line); err != nil {
			return err
		}
	}
	return nil
}
