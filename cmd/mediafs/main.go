// The program mediafs mounts a person's media library as a drive: see README.md for what that is good for, and `mediafs help`
// for its commands.
package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// version is set when the program is built: -ldflags '-X main.version=1.2.3'.
var version string

func main() {
	if err := shield(); err != nil {
		tell(os.Stderr, err.Error())
		os.Exit(int(exitFailed))
	}
	os.Exit(int(run(os.Args, os.Stdout, os.Stderr)))
}

// run is the program: it does what the arguments say and tells an error as one line on stderr.
func run(args []string, stdout, stderr io.Writer) exitCode {
	if calledAsHelper(args) {
		return runHelper(args, stdout, stderr)
	}
	if completing(args) && slices.Contains(args, "--") {
		return exitOK // the library would take it for a command to be carried out
	}
	app := newApp(stdout, stderr)
	err := app.Run(flagsFirst(app, args))
	if err == nil {
		return exitOK
	}
	var unknownTopic cli.ExitCoder // of `mediafs help TOPIC`; the library has no other of its own
	if errors.As(err, &unknownTopic) {
		err = &failure{code: exitUsage, why: err, way: "see `mediafs --help`"}
	}
	f := explain("", err, exitFailed)
	tell(stderr, f.Error())
	return f.code
}

// tell writes a line for the user. There is nobody to tell if that fails.
func tell(stderr io.Writer, line string) { _, _ = fmt.Fprintf(stderr, "mediafs: %s\n", oneLine(line)) }

func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:                 "mediafs",
		HelpName:             "mediafs",
		Usage:                "a person's media library, mounted as a drive",
		UsageText:            "mediafs COMMAND [options] [arguments]",
		Version:              programVersion(),
		Description:          description(),
		EnableBashCompletion: true,
		Writer:               stdout,
		ErrWriter:            stderr,
		Action:               noCommand,
		OnUsageError:         onUsageError,
		// The error is told by run, and the process ended by main.
		ExitErrHandler: func(*cli.Context, error) {},
		Commands: []*cli.Command{initCommand(), userCommand(), loginCommand(), logoutCommand(), whoamiCommand(),
			mountCommand(), umountCommand(), statusCommand(), lsCommand(), findCommand(), importCommand(), exportCommand(), migrateCommand(),
			auditCommand(), quotaCommand(), checkCommand(), completionCommand()},
	}
	for _, command := range app.Commands {
		prepare(command)
	}
	return app
}

// prepare gives a command, and those in it, what all have.
func prepare(command *cli.Command) {
	command.OnUsageError = onUsageError
	if command.Subcommands == nil {
		// Otherwise a user named "help", or a folder, could not be an argument.
		command.HideHelpCommand = true
		return
	}
	command.Action = noCommand
	for _, sub := range command.Subcommands {
		prepare(sub)
	}
}

// noCommand is carried out where a command is missing or unknown.
func noCommand(c *cli.Context) error {
	if c.Args().Present() {
		return usageFailure(c, fmt.Errorf("there is no command %q", c.Args().First()))
	}
	if c.Command.Name == c.App.Name {
		return cli.ShowAppHelp(c)
	}
	return cli.ShowSubcommandHelp(c)
}

func onUsageError(c *cli.Context, err error, _ bool) error { return usageFailure(c, err) }

// usageFailure is a command line that can't be understood.
func usageFailure(c *cli.Context, err error) error {
	command := c.Command.HelpName
	return &failure{code: exitUsage, what: strings.TrimPrefix(strings.TrimPrefix(command, "mediafs"), " "), why: err, way: "see `" + command + " --help`"}
}

// arguments returns the arguments of a command, which must be as many as there are names for them.
func arguments(c *cli.Context, names ...string) ([]string, error) {
	args := c.Args().Slice()
	switch {
	case len(args) < len(names):
		return nil, usageFailure(c, fmt.Errorf("%s is missing", names[len(args)]))
	case len(args) > len(names): // not repeated: one could be a secret
		return nil, usageFailure(c, fmt.Errorf("there are %d arguments, not %d", len(args), len(names)))
	}
	return args, nil
}

// programVersion is the version set when the program was built or, failing that, what the Go toolchain knows of it.
func programVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return setting.Value
		}
	}
	return cmp.Or(info.Main.Version, "unknown")
}

func description() string {
	var b strings.Builder
	b.WriteString("STORE says where drives are kept: a folder (/srv/media or file:///srv/media) or a\n" +
		"database (postgres://user@host/database). MEDIAFS_STORE stands in for --store.\n\n" +
		"Exit codes:\n\n")
	for _, e := range exitCodes {
		fmt.Fprintf(&b, "%3d  %s\n", e.code, e.meaning)
	}
	return b.String()
}

// storeVariable is the variable of the environment that stands in for --store.
const storeVariable = "MEDIAFS_STORE"

// storeFlag is --store.
func storeFlag() cli.Flag {
	return &cli.StringFlag{Name: "store", Usage: "`STORE`: a folder, file:///folder or postgres://user@host/database (or " + storeVariable + ")"}
}

// storeOf is the store that a command line names.
func storeOf(c *cli.Context) (storeAddress, error) {
	s := cmp.Or(c.String("store"), os.Getenv(storeVariable))
	if s == "" {
		return storeAddress{}, usageFailure(c, fmt.Errorf("no store is given: use --store STORE or set MEDIAFS_STORE"))
	}
	address, err := parseStore(s)
	if err == nil && c.IsSet("store") && address.hasPassword() {
		tell(c.App.ErrWriter, "warning: ps shows the password in --store: set MEDIAFS_STORE or PGPASSWORD, or use ~/.pgpass")
	}
	return address, err
}

// newLogger writes what happens to w, a line each.
func newLogger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
