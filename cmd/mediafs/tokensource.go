package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"mediafs/auth"
)

// A tokenSource is where a token can change while what it opened is mounted.
type tokenSource interface {
	// version changes when the token may have changed.
	version() string
	// read reads the token as it is now.
	read() (auth.Token, error)
}

// fileVersion changes when a file does; "" if it is not there.
func fileVersion(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d:%d:%d", st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano())
}

// tokenEnvironment is a token from the environment, which can't change.
type tokenEnvironment struct{}

func (tokenEnvironment) version() string { return "" }

func (tokenEnvironment) read() (auth.Token, error) {
	return auth.Token{}, errors.New("it came from the environment, which can't change: use --token-file")
}

// tokenFile is the path of the file that --token-file named.
type tokenFile string

func (f tokenFile) version() string { return fileVersion(string(f)) }

func (f tokenFile) read() (auth.Token, error) {
	token, _, err := readToken(string(f))
	return token, err
}

// savedLogin is what `mediafs login` saves, as far as it is a login to an application.
type savedLogin struct{ path, application string }

func (l savedLogin) version() string { return fileVersion(l.path) }

func (l savedLogin) read() (auth.Token, error) {
	saved, _, err := readLogin()
	if err == nil && l.application != saved.application.String() {
		err = fmt.Errorf("it is one to %s, not to %s", saved.application, l.application)
	}
	return saved.token, err
}
