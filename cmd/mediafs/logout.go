package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"
)

func logoutCommand() *cli.Command {
	return &cli.Command{
		Name:      "logout",
		Usage:     "end the session that `mediafs login` began",
		UsageText: "mediafs logout",
		Description: "Tells the application to end the session, and removes what was saved of it. That is removed too if the application can't be\n" +
			"told; the session then lasts until its end, and it says so. What is mounted with the session ends with it.\n\n" +
			"Example:\n\n  mediafs logout",
		Action: runLogout,
	}
}

func runLogout(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	l, _, err := readLogin()
	if errors.Is(err, errDamagedLogin) {
		if err := removeLogin(); err != nil {
			return err
		}
		return &failure{code: exitFailed, what: "saved sign-in", why: errors.New("it was damaged and is removed"),
			way: "end the session in the application itself"}
	}
	if err != nil {
		return err
	}
	told := l.application.SignOut(c.Context, l.token)
	if err := removeLogin(); err != nil {
		return err
	}
	if told != nil {
		return &failure{code: exitApplication, what: "the saved sign-in is removed, but the session was not ended", why: told,
			way: "end it in the application itself"}
	}
	_, err = fmt.Fprintf(c.App.Writer, "signed out of %v\n", l.application)
	return err
}
