package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"mediafs/auth"
)

// storeDeadline is how long a command waits for the store.
const storeDeadline = 30 * time.Second

// publicUser can't be a user: the public drive has that name.
const publicUser auth.UserID = "public"

func userCommand() *cli.Command {
	role := &cli.StringFlag{Name: "role", Value: string(auth.RoleUser), Usage: "`ROLE`: user or admin"}
	return &cli.Command{
		Name:  "user",
		Usage: "keep the users of a store that no application signs in",
		Subcommands: []*cli.Command{
			{
				Name:      "add",
				Usage:     "add a user and print their token",
				UsageText: "mediafs user add --store STORE NAME [--role admin]",
				Description: "The token alone is printed, and only this once. Keep it in a file that nobody else can read.\n\n" +
					"Examples:\n\n" +
					"  (umask 077; mediafs user add --store /srv/media anna > anna.token)\n" +
					"  mediafs user add --store /srv/media bob --role admin",
				Flags:  []cli.Flag{storeFlag(), role},
				Action: addUser,
			},
			{
				Name:        "list",
				Usage:       "list the users",
				UsageText:   "mediafs user list --store STORE",
				Description: "Example:\n\n  mediafs user list --store /srv/media",
				Flags:       []cli.Flag{storeFlag()},
				Action:      listUsers,
			},
			{
				Name:      "remove",
				Usage:     "remove a user, but not their drive",
				UsageText: "mediafs user remove --store STORE NAME",
				Description: "The user's token is worth nothing from then on. The drive stays as it is: a user who is added again has it again.\n\n" +
					"Example:\n\n  mediafs user remove --store /srv/media anna",
				Flags:  []cli.Flag{storeFlag()},
				Action: removeUser,
			},
			{
				Name:      "token",
				Usage:     "give a user a new token and print it",
				UsageText: "mediafs user token --store STORE NAME",
				Description: "The token before is worth nothing from then on.\n\n" +
					"Example:\n\n  (umask 077; mediafs user token --store /srv/media anna > anna.token)",
				Flags:  []cli.Flag{storeFlag()},
				Action: renewToken,
			},
		},
	}
}

// withAccounts does something with the accounts of the store that the command line names; what says to whom.
func withAccounts(c *cli.Context, what string, do func(context.Context, auth.Accounts) error) (err error) {
	address, err := storeOf(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, storeDeadline)
	defer cancel()
	users, err := address.accounts(ctx)
	if err != nil {
		return err
	}
	err = do(ctx, users)
	if closing := users.Close(); err == nil {
		err = closing
	}
	return address.failedFor(what, err)
}

// userName is the one argument of a command: the name of a user.
func userName(c *cli.Context) (auth.UserID, error) {
	args, err := arguments(c, "NAME")
	if err != nil {
		return "", err
	}
	user := auth.UserID(args[0])
	if err := user.Check(); err != nil {
		return "", &failure{code: exitUser, what: about(user), why: err}
	}
	return user, nil
}

func about(user auth.UserID) string { return fmt.Sprintf("user %q", user) }

// printToken shows a token to its owner.
func printToken(c *cli.Context, user auth.UserID, token auth.Token) error {
	if _, err := fmt.Fprintln(c.App.Writer, token.Reveal()); err != nil {
		return &failure{code: exitFailed, what: "print the token", why: err,
			way: "get a new one with `mediafs user token " + string(user) + "`"}
	}
	return nil
}

func addUser(c *cli.Context) error {
	user, err := userName(c)
	if err != nil {
		return err
	}
	if user == publicUser {
		return &failure{code: exitUser, what: about(user),
			why: errors.New("the public drive has that name"), way: "choose another"}
	}
	role, err := auth.ParseRole(c.String("role"))
	if err != nil {
		return usageFailure(c, err)
	}
	return withAccounts(c, about(user), func(ctx context.Context, users auth.Accounts) error {
		token, err := users.Add(ctx, user, role)
		if err != nil {
			return err
		}
		return printToken(c, user, token)
	})
}

func renewToken(c *cli.Context) error {
	user, err := userName(c)
	if err != nil {
		return err
	}
	return withAccounts(c, about(user), func(ctx context.Context, users auth.Accounts) error {
		token, err := users.Renew(ctx, user)
		if err != nil {
			return err
		}
		return printToken(c, user, token)
	})
}

func removeUser(c *cli.Context) error {
	user, err := userName(c)
	if err != nil {
		return err
	}
	return withAccounts(c, about(user), func(ctx context.Context, users auth.Accounts) error { return users.Remove(ctx, user) })
}

func listUsers(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	return withAccounts(c, "users", func(ctx context.Context, users auth.Accounts) error {
		list, err := users.List(ctx)
		if err != nil {
			return err
		}
		rows := [][]string{{"NAME", "ROLE", "SINCE"}}
		for _, a := range list {
			rows = append(rows, []string{string(a.User), string(a.Role), a.Created.Local().Format(time.DateTime)})
		}
		return printTable(c.App.Writer, rows)
	})
}
