package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
)

// A daemon is this program started once more, in a session of its own (setsid(2)). It reads its options, the token and the
// store's password among them, from one pipe, so that neither its arguments nor its environment show them, and says on
// another what came of it.
const (
	daemonVariable = "MEDIAFS_DAEMON" // set for a daemon
	optionsPipe    = 3                // descriptors of the daemon
	outcomePipe    = 4
)

// daemonOutcome is what a daemon reports when its drive is mounted, or can't be.
type daemonOutcome struct {
	Drive string
	Error string
	Code  exitCode
}

// startDaemon starts a daemon and returns when its drive is mounted, or with why it is not.
func startDaemon(c *cli.Context, o mountOptions) (err error) {
	if err := checkMountpoint(o.Mountpoint); err != nil {
		return err // without a log
	}
	for _, warning := range o.Warnings { // few look at the log of what works
		tell(c.App.ErrWriter, "warning: "+warning)
	}
	folder, err := runtimeFolder()
	if err != nil {
		return err
	}
	o.Log = filepath.Join(folder, logName(o.Mountpoint))
	ended := func(err error) error {
		return &failure{code: exitFailed, what: "daemon", why: err, way: "see its log " + o.Log}
	}
	log, err := os.OpenFile(o.Log, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return explain("log of the daemon", err, exitFailed)
	}
	defer log.Close()
	options, passOptions, err := os.Pipe()
	if err != nil {
		return explain("daemon", err, exitFailed)
	}
	defer options.Close()
	defer passOptions.Close()
	outcome, passOutcome, err := os.Pipe()
	if err != nil {
		return explain("daemon", err, exitFailed)
	}
	defer outcome.Close()
	defer passOutcome.Close()
	program, err := os.Executable()
	if err != nil {
		return explain("daemon", err, exitFailed)
	}
	cmd := exec.Command(program)
	cmd.Args = []string{"mediafs", "mount", o.Mountpoint} // to be seen in ps
	cmd.Env = daemonEnvironment(os.Environ())
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{options, passOutcome}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}

	// A signal to this process ends the daemon, as long as it is not ready. It reports that.
	ctx, stop := signal.NotifyContext(context.Background(), stopSignals()...)
	defer stop()
	if err := cmd.Start(); err != nil {
		return explain("daemon", err, exitFailed)
	}
	forward := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer forward()
	options.Close()
	passOutcome.Close()
	sent := json.NewEncoder(passOptions).Encode(o)
	passOptions.Close()

	var got daemonOutcome
	if err := json.NewDecoder(outcome).Decode(&got); err != nil {
		return ended(fmt.Errorf("it ended before the drive was mounted: %w", errors.Join(sent, cmd.Wait())))
	}
	if got.Error != "" {
		_ = cmd.Wait() // so that nothing of it is left; why it failed it has told
		return &failure{code: got.Code, why: errors.New(got.Error)}
	}
	if err := cmd.Process.Release(); err != nil {
		return explain("daemon", err, exitFailed)
	}
	tell(c.App.ErrWriter, "the log is "+o.Log)
	return printMounted(c, got.Drive, o.Mountpoint)
}

// beDaemon is the daemon's side.
func beDaemon(c *cli.Context) error {
	options, outcome := os.NewFile(optionsPipe, "options"), os.NewFile(outcomePipe, "outcome")
	var o mountOptions
	err := json.NewDecoder(options).Decode(&o)
	options.Close()
	if err != nil {
		return explain("daemon", fmt.Errorf("its options can't be read: %w", err), exitFailed)
	}
	defer outcome.Close()
	syscall.CloseOnExec(outcomePipe)
	report := func(o daemonOutcome) error {
		return errors.Join(json.NewEncoder(outcome).Encode(o), outcome.Close())
	}
	mounted := false
	logger := newLogger(c.App.ErrWriter, o.LogLevel)
	err = serveMount(o, logger, func(what string) error {
		mounted = true
		return report(daemonOutcome{Drive: what})
	})
	if err != nil && !mounted {
		f := explain("", err, exitFailed)
		if err := report(daemonOutcome{Error: oneLine(f.Error()), Code: f.code}); err != nil {
			logger.LogAttrs(context.Background(), slog.LevelWarn, "could not report", slog.Any("error", err))
		}
	}
	return err
}

// daemonEnvironment is the environment without what the daemon gets by the pipe.
func daemonEnvironment(environment []string) []string {
	environment = slices.DeleteFunc(slices.Clone(environment), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return name == tokenVariable || name == storeVariable
	})
	return append(environment, daemonVariable+"=1")
}

// logName is the name of the log of the daemon of a mountpoint.
func logName(mountpoint string) string {
	hash := sha256.Sum256([]byte(mountpoint))
	return fmt.Sprintf("mount-%x.log", hash[:6])
}
