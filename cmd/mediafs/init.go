package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"mediafs/auth/betterauth"
)

// initDeadline is how long making a store, or changing the tables of a large one, may take.
const initDeadline = 10 * time.Minute

func initCommand() *cli.Command {
	return &cli.Command{
		Name:      "init",
		Usage:     "make a store, or bring one up to date",
		UsageText: "mediafs init --store STORE [--auth-tables FILE]",
		Description: "Makes the folder or the database a store and says what to do next. Doing it again is fine: what is there stays.\n" +
			"A database needs an administrator's login for this; mounts then do with less.\n\n" +
			"The tables in which Better Auth keeps sessions and users are found by the usual names, in camelCase or snake_case. Those that\n" +
			"the application has renamed are named in a FILE of --auth-tables, all or only some of:\n\n" +
			"  {\"schema\": \"public\",\n" +
			"   \"session\": {\"table\": \"session\", \"token\": \"token\", \"userId\": \"userId\", \"expiresAt\": \"expiresAt\"},\n" +
			"   \"user\": {\"table\": \"user\", \"id\": \"id\", \"role\": \"role\", \"banned\": \"banned\", \"banExpires\": \"banExpires\"}}\n\n" +
			"The names are remembered. \"detect\" in place of FILE forgets them.\n\n" +
			"Examples:\n\n" +
			"  mediafs init --store /srv/media\n" +
			"  mediafs init --store postgres://postgres@localhost/appframes",
		Flags: []cli.Flag{
			storeFlag(),
			&cli.StringFlag{Name: "auth-tables", TakesFile: true, Usage: "`FILE` that names the tables of Better Auth"},
		},
		Action: runInit,
	}
}

func runInit(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	address, err := storeOf(c)
	if err != nil {
		return err
	}
	tables, err := authTables(c)
	if err != nil {
		return err
	}
	if tables != nil && address.database == "" {
		return usageFailure(c, errors.New("--auth-tables is for databases: a store of folders asks the application (see `mediafs mount --help`)"))
	}
	ctx, cancel := context.WithTimeout(c.Context, initDeadline)
	defer cancel()
	report, err := address.make(ctx, tables)
	if err != nil {
		return err
	}
	store := quoteShell(address.String())
	_, err = fmt.Fprintf(c.App.Writer, `%s

Next, add a user and mount their drive:

  (umask 077; mediafs user add --store %s anna > anna.token)
  mkdir -p drive
  mediafs mount --store %s --token-file anna.token --daemon drive

and later unmount it:

  mediafs umount drive
`, report, store, store)
	return err
}

// detectTables in place of a file forgets the names that were given before.
const detectTables = "detect"

// authTables reads the file of --auth-tables; nil if there is none.
func authTables(c *cli.Context) (*betterauth.Tables, error) {
	path := c.String("auth-tables")
	switch path {
	case "":
		return nil, nil
	case detectTables:
		return &betterauth.Tables{}, nil
	}
	failed := func(what string, err error) (*betterauth.Tables, error) {
		return nil, &failure{code: exitUsage, what: what, why: err, way: "see `mediafs init --help`"}
	}
	file, err := os.Open(path)
	if err != nil {
		return failed("names of tables", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, 1<<20))
	if err != nil {
		return failed("names of tables", err)
	}
	tables, err := betterauth.ParseNames(data)
	if err != nil {
		return failed("names of tables "+path, err)
	}
	return &tables, nil
}
