package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"mediafs/auth"
	"mediafs/auth/betterauth"
)

// tokenVariable is the variable of the environment that stands in for --token-file.
const tokenVariable = "MEDIAFS_TOKEN"

// maxTokenFile is how much of a token file is read, in bytes: more than any token has.
const maxTokenFile = 8 << 10

// readToken reads the token from a file or, if none is named, from the environment, which programs started from here then
// no longer get. warn is what the user should know of the file.
func readToken(file string) (token auth.Token, warn string, err error) {
	failed := func(what string, err error, way string) (auth.Token, string, error) {
		return auth.Token{}, "", &failure{code: exitToken, what: what, why: err, way: way}
	}
	if file == "" {
		text := os.Getenv(tokenVariable)
		if err := os.Unsetenv(tokenVariable); err != nil {
			return failed(tokenVariable, err, "")
		}
		if strings.TrimSpace(text) == "" {
			return failed("token", errors.New("none is given"), "use --token-file FILE or set "+tokenVariable+", or sign in with `mediafs login`")
		}
		token, err := parseToken(text)
		if err != nil {
			return failed(tokenVariable, err, "")
		}
		return token, "", nil
	}
	f, err := os.Open(file)
	if err != nil {
		return failed("token file", err, "name the file that `mediafs user add` or `mediafs user token` wrote")
	}
	defer f.Close()
	if warn, err = openToOthers(f); err != nil {
		return failed("token file", err, "")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxTokenFile))
	if err != nil {
		return failed("token file", err, "")
	}
	if strings.TrimSpace(string(text)) == "" {
		return failed("token file "+file, errors.New("is empty"), "get a new token with `mediafs user token`")
	}
	if token, err = parseToken(string(text)); err != nil {
		return failed("token file "+file, err, "")
	}
	return token, warn, nil
}

// authVariable is the variable of the environment that stands in for --auth.
const authVariable = "MEDIAFS_AUTH"

// credentials are what a drive is opened with.
type credentials struct {
	token       auth.Token
	file        string // that it was read from; "": the environment
	saved       bool   // the file is that of `mediafs login`
	application string // that knows the token; "": the store does
	warning     string // what the user should know
}

// credentialsOf finds the token, in the file, the environment or what `mediafs login` saved, and who is asked whose it is.
func credentialsOf(c *cli.Context, address storeAddress) (found credentials, err error) {
	if found.application, err = applicationOf(c, address); err != nil {
		return found, err
	}
	file := c.String("token-file")
	if file == "" && strings.TrimSpace(os.Getenv(tokenVariable)) == "" {
		saved, warning, err := readLogin()
		if err == nil {
			return found.from(saved, warning, address)
		}
		if !errors.Is(err, errNotSignedIn) {
			return found, err
		}
	}
	found.file = file
	found.token, found.warning, err = readToken(file)
	if err == nil && found.application != "" && strings.HasPrefix(found.token.Reveal(), auth.TokenPrefix) {
		return credentials{}, &failure{code: exitToken, what: "token", why: errors.New("it is that of an account of the store, and no application's"),
			way: "leave out --auth and " + authVariable}
	}
	return found, err
}

// from takes the token of a saved login, which is sent to no other application than the one that gave it.
func (found credentials) from(saved login, warning string, address storeAddress) (credentials, error) {
	of := saved.application.String()
	if found.application != "" && found.application != of {
		return credentials{}, &failure{code: exitToken, what: "saved sign-in", why: fmt.Errorf("it is one to %s, not to %s", of, found.application),
			way: "sign in there with `mediafs login`, or use --token-file FILE"}
	}
	if address.database == "" {
		found.application = of
	}
	found.token, found.warning, found.saved = saved.token, warning, true
	var err error
	found.file, err = loginPath()
	return found, err
}

// applicationOf is the application that the command line or the environment names; "" if they name none.
func applicationOf(c *cli.Context, address storeAddress) (string, error) {
	given := cmp.Or(c.String("auth"), os.Getenv(authVariable))
	if given == "" {
		return "", nil
	}
	if address.database != "" {
		return "", usageFailure(c, errors.New("--auth and MEDIAFS_AUTH are for stores of folders: "+
			"a database checks the owner itself, so it must have the sessions of the application in it (see `mediafs init --help`)"))
	}
	application, err := applicationAt(given)
	if err != nil {
		return "", err
	}
	return application.String(), nil
}

// parseToken reads the token of an account or of a session of Better Auth.
func parseToken(s string) (auth.Token, error) {
	if strings.HasPrefix(strings.TrimSpace(s), auth.TokenPrefix) {
		return auth.ParseToken(s)
	}
	return betterauth.ParseToken(s)
}
