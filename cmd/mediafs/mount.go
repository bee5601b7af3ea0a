package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
)

const (
	// garbage is how much of what is in use there may be of what no longer is, in percent, before it is collected. Most of the memory is
	// buffers, which the collector needn't look into, so that half of the usual costs next to nothing.
	garbage = 50

	// drainDeadline is how long unmounting waits for what is pending, and for files to be closed.
	drainDeadline = 60 * time.Second
)

func mountCommand() *cli.Command {
	return &cli.Command{
		Name:      "mount",
		Usage:     "mount a user's drive; an admin's token mounts all drives",
		UsageText: "mediafs mount --store STORE [--token-file FILE | --guest | --all-users] [options] MOUNTPOINT",
		Description: "Mounts the drive of the user whose token it is. The token is that of an account (see `mediafs user`) or of a session of\n" +
			"Better Auth, in a file or in MEDIAFS_TOKEN; without them it is the one that `mediafs login` saved. A store of folders learns\n" +
			"from the application at --auth whose session it is. \"mounted DRIVE at MOUNTPOINT\" is printed when the drive can be used. It stays\n" +
			"until it is unmounted, or until SIGINT or SIGTERM: then what is pending is stored first. A second signal ends it at once.\n\n" +
			"When the session ends, the drive answers nothing any more. It goes on as soon as the token file holds a new token of the same\n" +
			"user. What was written and not stored is kept meanwhile, on the disk of this machine.\n\n" +
			"An admin's token mounts all drives: a folder each, named by the owner's user id, and the folder public.\n" +
			"With --guest there is no token, and the public drive is mounted read-only.\n\n" +
			"With --all-users, root mounts a folder for each user of this machine that the users file names, which nobody else can enter.\n" +
			"Each is the drive of a token of the user's own, and stands and falls with that session. A line of the users file is a user and\n" +
			"the path of a token file, which must belong to that user or to root, with mode 600:\n\n" +
			"  anna   /home/anna/.config/mediafs/token\n" +
			"  1002   /etc/mediafs/ben.token\n\n" +
			"Examples:\n\n" +
			"  mediafs mount --store /srv/media --token-file anna.token ~/drive\n" +
			"  mediafs mount --store /srv/media --auth https://app.example.org --token-file anna.token ~/drive\n" +
			"  MEDIAFS_STORE=postgres://app@localhost/appframes mediafs mount --token-file anna.token --daemon ~/drive\n" +
			"  mediafs mount --store /srv/media --guest ~/public\n" +
			"  mediafs mount --store /srv/media --all-users --daemon /media/drives\n" +
			"  mediafs mount --store /srv/media --token-file anna.token --metrics 127.0.0.1:9900 ~/drive\n\n" +
			"With the link /sbin/mount.mediafs to this program, mount(8) and fstab(5) know the type mediafs, with the options\n" +
			"token_file=FILE, auth=URL, guest, all_users, users_file=FILE, passthrough, ro, allow_other, timeout=DURATION, log_level=LEVEL,\n" +
			"metrics=ADDRESS, pending=SIZE, read_ahead=SIZE, requests=SIZE, connections=N, open_drives=N and the usual ones:\n\n" +
			"  /srv/media  /mnt/anna  mediafs  token_file=/etc/mediafs/anna.token,nofail  0  0",
		Flags: append([]cli.Flag{
			storeFlag(),
			&cli.StringFlag{Name: "token-file", TakesFile: true, Usage: "`FILE` that holds the token and that nobody else can read (or " + tokenVariable + ")"},
			&cli.StringFlag{Name: "auth", Usage: "`URL` of the application to ask about the session, for a store of folders (or " + authVariable + ")"},
			&cli.BoolFlag{Name: "guest", Usage: "mount the public drive, read-only, without a token"},
			&cli.BoolFlag{Name: "all-users", Usage: "mount the drives of the users of this machine, a folder each (root only)"},
			&cli.StringFlag{Name: "users-file", TakesFile: true, Value: usersFile, Usage: "`FILE` that names those users and their token files"},
			&cli.BoolFlag{Name: "read-only", Usage: "refuse every change"},
			&cli.BoolFlag{Name: "allow-other", Usage: "let other users of this machine in, as far as modes and owners allow"},
			&cli.BoolFlag{Name: "passthrough", Usage: "have the kernel read and write the files of a store of folders itself (root only): faster, but what is open stays readable when the session ends"},
			&cli.StringFlag{Name: "metrics", Usage: "tell Prometheus how the mount is, at an `ADDRESS` of this machine: 127.0.0.1:PORT, [::1]:PORT or unix:PATH; port 0 is any that is free (or " + metricsVariable + ")"},
			&cli.BoolFlag{Name: "daemon", Usage: "go to the background when the drive is mounted"},
			&cli.DurationFlag{Name: "timeout", Value: 30 * time.Second, Usage: "fail an operation that takes longer than this `DURATION`"},
			&cli.StringFlag{Name: "log-level", Value: "info", Usage: "`LEVEL` of what is logged: debug, info, warn or error"},
		}, budgetFlags()...),
		Action: runMount,
	}
}

// mountOptions are what is mounted, and how. A daemon is passed them by the process that started it.
type mountOptions struct {
	Store       string // with password
	Token       string // the secret; "": a guest, or AllUsers
	TokenFile   string // where a new token is looked for; "": nowhere
	Login       bool   // TokenFile is what `mediafs login` saved
	Auth        string // the application that knows the token; "": the store does
	AllUsers    bool
	UsersFile   string
	Mountpoint  string // resolved
	ReadOnly    bool
	AllowOther  bool
	Passthrough bool
	Timeout     time.Duration
	Budgets     budgets
	Metrics     metricsAddress
	LogLevel    slog.Level
	Log         string   // file that the daemon logs to; "": stderr
	Warnings    []string // to be logged
}

// source is where a new token comes from.
func (o *mountOptions) source() tokenSource {
	switch {
	case o.TokenFile == "":
		return tokenEnvironment{}
	case o.Login:
		return savedLogin{path: o.TokenFile, application: o.Auth}
	}
	return tokenFile(o.TokenFile)
}

// mountOptionsOf reads the command line and the token.
func mountOptionsOf(c *cli.Context) (o mountOptions, err error) {
	args, err := arguments(c, "MOUNTPOINT")
	if err != nil {
		return o, err
	}
	address, err := storeOf(c)
	if err != nil {
		return o, err
	}
	o = mountOptions{
		Store:       address.raw(),
		AllUsers:    c.Bool("all-users"),
		ReadOnly:    c.Bool("read-only") || c.Bool("guest"),
		AllowOther:  c.Bool("allow-other") || c.Bool("all-users"),
		Passthrough: c.Bool("passthrough"),
		Timeout:     c.Duration("timeout"),
	}
	if o.Timeout <= 0 {
		return o, usageFailure(c, errors.New("--timeout must be longer than nothing"))
	}
	if err := o.LogLevel.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return o, usageFailure(c, errors.New("--log-level is debug, info, warn or error"))
	}
	if o.Budgets, err = budgetsOf(c, address); err != nil {
		return o, err
	}
	if o.Metrics, err = metricsAddressOf(c); err != nil {
		return o, err
	}
	switch {
	case c.Bool("guest") && c.Bool("all-users"), c.Bool("guest") && c.IsSet("token-file"), c.Bool("all-users") && c.IsSet("token-file"):
		return o, usageFailure(c, errors.New("only one of --token-file, --guest and --all-users can be given"))
	case c.IsSet("users-file") && !o.AllUsers:
		return o, usageFailure(c, errors.New("--users-file goes with --all-users"))
	case o.AllUsers && os.Geteuid() != 0:
		return o, usageFailure(c, errors.New("--all-users is for root"))
	case o.AllUsers:
		if o.UsersFile, err = filepath.Abs(c.String("users-file")); err == nil {
			_, err = readUsersFile(o.UsersFile)
		}
		if err == nil {
			o.Auth, err = applicationOf(c, address)
		}
	case !c.Bool("guest"):
		err = o.takeToken(c, address)
	}
	if err != nil {
		return o, err
	}
	if o.Mountpoint, err = resolveMountpoint(args[0]); err != nil {
		return o, explain("mountpoint "+args[0], err, exitMountpoint)
	}
	return o, nil
}

// takeToken finds the token, and where a new one is to be looked for.
func (o *mountOptions) takeToken(c *cli.Context, address storeAddress) error {
	found, err := credentialsOf(c, address)
	if err != nil {
		return err
	}
	o.Token, o.Auth = found.token.Reveal(), found.application
	if found.warning != "" {
		o.Warnings = append(o.Warnings, found.warning)
	}
	if found.file != "" {
		o.TokenFile, err = filepath.Abs(found.file)
		o.Login = found.saved
	}
	return err
}

func runMount(c *cli.Context) error {
	if os.Getenv(daemonVariable) != "" {
		return beDaemon(c)
	}
	o, err := mountOptionsOf(c)
	if err != nil {
		return err
	}
	if c.Bool("daemon") {
		return startDaemon(c, o)
	}
	return serveMount(o, newLogger(c.App.ErrWriter, o.LogLevel), func(what string) error {
		return printMounted(c, what, o.Mountpoint)
	})
}

func printMounted(c *cli.Context, drive, mountpoint string) error {
	_, err := fmt.Fprintf(c.App.Writer, "mounted %s at %s\n", drive, mountpoint)
	return err
}

// stopSignals end a mount.
func stopSignals() []os.Signal {
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup(1)
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// serveMount mounts what the options say, calls ready with the name of it, and serves until it is unmounted.
func serveMount(o mountOptions, logger *slog.Logger, ready func(what string) error) (err error) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(o.Budgets.memory())
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	for _, warning := range o.Warnings {
		logger.Warn(warning)
	}
	// A signal ends the preparations through the context, and what comes after them through the channel.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, stopSignals()...)
	defer signal.Stop(signals)
	ctx, stop := signal.NotifyContext(context.Background(), stopSignals()...)
	defer stop()

	m, err := attach(ctx, o, logger)
	if ctx.Err() != nil && err != nil {
		return &failure{code: exitFailed, what: "mount", why: errors.New("interrupted before the drive was mounted")}
	}
	if err != nil {
		return err
	}
	stop()
	logger.Info("mounted", "drive", m.shows, "mountpoint", o.Mountpoint, "store", m.address)
	for _, note := range m.mount.Notes() {
		logger.Warn(note)
	}
	if err := ready(m.shows); err != nil { // nobody listens; the drive is mounted all the same
		logger.Warn("could not say that the drive is mounted", "error", err)
	}
	stopWatching := m.watch(logger)
	l := lifecycle{mount: m.mount, drive: m, requests: m.control.unmount, signals: signals, drain: drainDeadline, logger: logger}
	err = l.run()
	stopWatching()
	m.metrics.close()
	var f *failure
	if errors.As(err, &f) && f.code == exitInterrupted {
		return err
	}
	err = errors.Join(err, m.store.Close())
	ctx, cancel := context.WithTimeout(context.Background(), drainDeadline)
	defer cancel()
	if closing := m.control.close(ctx, err); closing != nil {
		logger.Warn("could not end the control socket", "error", closing)
	}
	if err == nil {
		logger.Info("unmounted", "drive", m.shows, "mountpoint", o.Mountpoint)
	}
	return err
}
