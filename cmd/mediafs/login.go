package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"mediafs/auth"
	"mediafs/auth/betterauth"
)

func loginCommand() *cli.Command {
	return &cli.Command{
		Name:      "login",
		Usage:     "sign in to the web application, through a browser",
		UsageText: "mediafs login APP-URL",
		Description: "Prints a code and the address where it is entered, in a browser on any machine, and waits for that. The session is then\n" +
			"saved for you alone, and `mediafs mount` uses it when it is given no other token. Who signs in again replaces it.\n\n" +
			"The application must have the plugins bearer and deviceAuthorization of Better Auth, and let the client \"mediafs\" in.\n" +
			"APP-URL may leave out the path of Better Auth if that is /api/auth.\n\n" +
			"Examples:\n\n" +
			"  mediafs login https://app.example.org\n" +
			"  mediafs login http://localhost:3000/auth",
		Action: runLogin,
	}
}

func runLogin(c *cli.Context) error {
	args, err := arguments(c, "APP-URL")
	if err != nil {
		return err
	}
	application, err := applicationAt(args[0])
	if err != nil {
		return err
	}
	path, err := prepareLogin()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	session, err := signIn(ctx, c, application)
	if ctx.Err() != nil && err != nil {
		return &failure{code: exitSignIn, what: "login", why: errors.New("interrupted: nobody is signed in")}
	}
	if err != nil {
		return explain("login", err, exitApplication)
	}
	if err := saveLogin(path, login{application, session.Token}); err != nil {
		// A session that nobody has the token of should not live on.
		return explain("login", errors.Join(err, application.SignOut(c.Context, session.Token)), exitFailed)
	}
	_, err = fmt.Fprintf(c.App.Writer, "signed in as %s until %s\n", session.User, formatTime(session.Expires))
	return err
}

// signIn has the user sign in with a browser.
func signIn(ctx context.Context, c *cli.Context, application *betterauth.Application) (auth.Session, error) {
	s, err := application.StartSignIn(ctx)
	if err != nil {
		return auth.Session{}, err
	}
	where := s.Address
	if s.Complete != "" {
		where = s.Complete
	}
	_, err = fmt.Fprintf(c.App.Writer, "Open this address in a browser, sign in and approve the code %s within %v:\n\n  %s\n\n",
		s.UserCode, s.Lifetime.Round(time.Second), where)
	if err != nil {
		return auth.Session{}, err
	}
	token, err := s.Wait(ctx)
	if err != nil {
		return auth.Session{}, err
	}
	session, err := application.Authenticate(ctx, token)
	if errors.Is(err, auth.ErrInvalid) {
		return auth.Session{}, fmt.Errorf("%v does not take the token that it has just given: has it the plugin bearer, without requireSignature?", application)
	}
	return session, err
}

// applicationAt is the application at an address that the user gave.
func applicationAt(address string) (*betterauth.Application, error) {
	a, err := betterauth.NewApplication(address)
	if err != nil {
		return nil, explain("application", err, exitApplication)
	}
	return a, nil
}

// formatTime writes a time for people.
func formatTime(t time.Time) string { return t.Local().Format(time.DateTime) }
