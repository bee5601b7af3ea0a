package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

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
			return failed("token", errors.New("none is given"), "use --token-file FILE or set "+tokenVariable)
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
	info, err := f.Stat()
	if err != nil {
		return failed("token file", err, "")
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		warn = fmt.Sprintf("others can read the token file %s: chmod 600 %s", file, quoteShell(file))
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

// parseToken reads the token of an account or of a session of Better Auth.
func parseToken(s string) (auth.Token, error) {
	if strings.HasPrefix(strings.TrimSpace(s), auth.TokenPrefix) {
		return auth.ParseToken(s)
	}
	return betterauth.ParseToken(s)
}
