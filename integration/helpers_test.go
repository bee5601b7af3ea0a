package integration

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// helpers are what the test program does when it runs itself as another process, by the name in the environment variable
// helperEnv. They return what to say on stderr before exiting with 1.
var helpers = map[string]func(args []string) error{}

const helperEnv = "INTEGRATION_TEST_HELPER"

// runHelper does what this process was started for, if it was started as a helper.
func runHelper() (code int, is bool) {
	name := os.Getenv(helperEnv)
	if name == "" {
		return 0, false
	}
	if err := helpers[name](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// helper prepares this program to run as one of the helpers. It ends with the test program.
func helper(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	check(t, err)
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), helperEnv+"="+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	return cmd
}
