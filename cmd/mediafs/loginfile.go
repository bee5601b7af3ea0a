package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/auth/betterauth"
)

// A login is what `mediafs login` saves, for its user alone, in $XDG_CONFIG_HOME/mediafs/login.json (~/.config without the
// variable):
//
//	{"application": "https://app.example.org/api/auth", "token": "…"}
type login struct {
	application *betterauth.Application
	token       auth.Token
}

// loginFields are those of the file.
type loginFields struct {
	Application string `json:"application"`
	Token       string `json:"token"`
}

// maxLogin is more than any login takes, in bytes.
const maxLogin = 16 << 10

var (
	errNotSignedIn  = errors.New("nobody is signed in")
	errDamagedLogin = errors.New("is damaged")
)

// notSignedIn is errNotSignedIn for the user.
func notSignedIn() error {
	return &failure{code: exitToken, why: errNotSignedIn, way: "sign in with `mediafs login APP-URL`"}
}

// loginPath is where the login is saved.
func loginPath() (string, error) {
	folder, err := os.UserConfigDir()
	if err != nil {
		return "", &failure{code: exitFailed, what: "saved sign-in", why: err, way: "set HOME or XDG_CONFIG_HOME to a folder of yours"}
	}
	return filepath.Join(folder, "mediafs", "login.json"), nil
}

// prepareLogin makes the folder of the login and returns the path of the file, so that what is in the way is told before
// anybody signs in.
func prepareLogin() (string, error) {
	path, err := loginPath()
	if err != nil {
		return "", err
	}
	err = os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = unix.Access(filepath.Dir(path), unix.W_OK)
	}
	if err != nil {
		return "", &failure{code: exitFailed, what: "folder of the saved sign-in " + filepath.Dir(path), why: err, way: "make it yours"}
	}
	return path, nil
}

// saveLogin puts a login in the place of the file, whole: after a crash it is the one before or the one after.
func saveLogin(path string, l login) (err error) {
	data, err := json.Marshal(loginFields{l.application.String(), l.token.Reveal()})
	if err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	file, err := os.CreateTemp(folder.Name(), ".login.*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.Remove(file.Name())))
		}
	}()
	defer file.Close()
	if _, err := file.Write(append(data, '\n')); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return folder.Sync()
}

// readLogin reads the saved login. errNotSignedIn if there is none. warn is what the user should know of the file.
func readLogin() (l login, warn string, err error) {
	path, err := loginPath()
	if err != nil { // a service, for one, has no home
		return l, "", notSignedIn()
	}
	failed := func(err error) (login, string, error) {
		return login{}, "", &failure{code: exitToken, what: "saved sign-in " + path, why: err, way: "sign in again with `mediafs login APP-URL`"}
	}
	file, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR):
		return l, "", notSignedIn()
	case err != nil:
		return failed(errors.Unwrap(err)) // without the path
	}
	defer file.Close()
	warn, err = openToOthers(file)
	if err != nil {
		return failed(err)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxLogin))
	if err != nil {
		return failed(err)
	}
	if l, err = parseLogin(data); err != nil {
		return failed(err)
	}
	return l, warn, nil
}

// parseLogin reads the file of a login. Its only error is errDamagedLogin, which repeats nothing of it.
func parseLogin(data []byte) (login, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var fields loginFields
	if err := decoder.Decode(&fields); err != nil {
		return login{}, errDamagedLogin
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return login{}, errDamagedLogin
	}
	application, err := betterauth.NewApplication(fields.Application)
	if err != nil {
		return login{}, errDamagedLogin
	}
	token, err := betterauth.ParseToken(fields.Token)
	if err != nil {
		return login{}, errDamagedLogin
	}
	return login{application, token}, nil
}

// removeLogin removes the saved login. errNotSignedIn if there is none.
func removeLogin() error {
	path, err := loginPath()
	if err != nil {
		return err
	}
	err = os.Remove(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return notSignedIn()
	case err != nil:
		return &failure{code: exitFailed, what: "saved sign-in", why: err, way: "remove that file yourself"}
	}
	return nil
}

// openToOthers says what to do if others can read a file with a token.
func openToOthers(file *os.File) (warn string, err error) {
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		name := file.Name()
		return fmt.Sprintf("others can read the token file %s: chmod 600 %s", name, quoteShell(name)), nil
	}
	return "", nil
}
