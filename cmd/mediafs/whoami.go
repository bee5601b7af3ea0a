package main

import (
	"github.com/urfave/cli/v2"
)

func whoamiCommand() *cli.Command {
	return &cli.Command{
		Name:        "whoami",
		Usage:       "say who is signed in, as the application knows them",
		UsageText:   "mediafs whoami",
		Description: "Asks the application about the session that `mediafs login` saved.\n\nExample:\n\n  mediafs whoami",
		Action:      runWhoami,
	}
}

func runWhoami(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	l, warning, err := readLogin()
	if err != nil {
		return err
	}
	if warning != "" {
		tell(c.App.ErrWriter, "warning: "+warning)
	}
	session, err := l.application.Authenticate(c.Context, l.token)
	if err != nil {
		return explain("sign-in to "+l.application.String(), err, exitApplication)
	}
	return printTable(c.App.Writer, [][]string{
		{"user", string(session.User)},
		{"role", string(session.Role)},
		{"expires", formatTime(session.Expires)},
		{"application", l.application.String()},
	})
}
