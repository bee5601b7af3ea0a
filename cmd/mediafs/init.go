package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"
)

// initDeadline is how long making a store, or changing the tables of a large one, may take.
const initDeadline = 10 * time.Minute

func initCommand() *cli.Command {
	return &cli.Command{
		Name:      "init",
		Usage:     "make a store, or bring one up to date",
		UsageText: "mediafs init --store STORE",
		Description: "Makes the folder or the database a store and says what to do next. Doing it again is fine: what is there stays.\n" +
			"A database needs an administrator's login for this; mounts then do with less.\n\n" +
			"Examples:\n\n" +
			"  mediafs init --store /srv/media\n" +
			"  mediafs init --store postgres://postgres@localhost/appframes",
		Flags:  []cli.Flag{storeFlag()},
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
	ctx, cancel := context.WithTimeout(c.Context, initDeadline)
	defer cancel()
	report, err := address.make(ctx)
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
