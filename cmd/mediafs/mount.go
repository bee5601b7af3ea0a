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

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/fusefs"
)

const (
	// memoryLimit is what the program tries to stay within, in bytes, unless GOMEMLIMIT says otherwise. The buffers of
	// the stores and of FUSE are a good half of it.
	memoryLimit = 256 << 20

	// drainDeadline is how long unmounting waits for what is pending, and for files to be closed.
	drainDeadline = 60 * time.Second
)

func mountCommand() *cli.Command {
	return &cli.Command{
		Name:      "mount",
		Usage:     "mount a user's drive",
		UsageText: "mediafs mount --store STORE [--token-file FILE] [options] MOUNTPOINT",
		Description: "Mounts the drive of the user whose token it is. The token is that of an account (see `mediafs user`) or of a session of\n" +
			"Better Auth, in a file or in MEDIAFS_TOKEN; without them it is the one that `mediafs login` saved. A store of folders learns\n" +
			"from the application at --auth whose session it is. \"mounted DRIVE at MOUNTPOINT\" is printed when the drive can be used. It stays\n" +
			"until it is unmounted, or until SIGINT or SIGTERM: then what is pending is stored first. A second signal ends it at once.\n\n" +
			"Examples:\n\n" +
			"  mediafs mount --store /srv/media --token-file anna.token ~/drive\n" +
			"  mediafs mount --store /srv/media --auth https://app.example.org --token-file anna.token ~/drive\n" +
			"  MEDIAFS_STORE=postgres://app@localhost/appframes mediafs mount --token-file anna.token --daemon ~/drive\n\n" +
			"With the link /sbin/mount.mediafs to this program, mount(8) and fstab(5) know the type mediafs, with the options\n" +
			"token_file=FILE, auth=URL, ro, allow_other, timeout=DURATION, log_level=LEVEL and the usual ones:\n\n" +
			"  /srv/media  /mnt/anna  mediafs  token_file=/etc/mediafs/anna.token,nofail  0  0",
		Flags: []cli.Flag{
			storeFlag(),
			&cli.StringFlag{Name: "token-file", TakesFile: true, Usage: "`FILE` that holds the token and that nobody else can read (or " + tokenVariable + ")"},
			&cli.StringFlag{Name: "auth", Usage: "`URL` of the application to ask about the session, for a store of folders (or " + authVariable + ")"},
			&cli.BoolFlag{Name: "read-only", Usage: "refuse every change"},
			&cli.BoolFlag{Name: "allow-other", Usage: "let other users of this machine in, as far as modes and owners allow"},
			&cli.BoolFlag{Name: "daemon", Usage: "go to the background when the drive is mounted"},
			&cli.DurationFlag{Name: "timeout", Value: 30 * time.Second, Usage: "fail an operation that takes longer than this `DURATION`"},
			&cli.StringFlag{Name: "log-level", Value: "info", Usage: "`LEVEL` of what is logged: debug, info, warn or error"},
		},
		Action: runMount,
	}
}

// mountOptions are what a drive is mounted with. A daemon is passed them by the process that started it.
type mountOptions struct {
	Store      string // with password
	Token      string // the secret
	Auth       string // the application that knows it; "": the store does
	Mountpoint string // resolved
	ReadOnly   bool
	AllowOther bool
	Timeout    time.Duration
	LogLevel   slog.Level
	Log        string   // file that the daemon logs to; "": stderr
	Warnings   []string // to be logged
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
		Store:      address.raw(),
		ReadOnly:   c.Bool("read-only"),
		AllowOther: c.Bool("allow-other"),
		Timeout:    c.Duration("timeout"),
	}
	if o.Timeout <= 0 {
		return o, usageFailure(c, errors.New("--timeout must be longer than nothing"))
	}
	if err := o.LogLevel.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return o, usageFailure(c, errors.New("--log-level is debug, info, warn or error"))
	}
	found, err := credentialsOf(c, address)
	if err != nil {
		return o, err
	}
	o.Token, o.Auth = found.token.Reveal(), found.application
	if found.warning != "" {
		o.Warnings = append(o.Warnings, found.warning)
	}
	if o.Mountpoint, err = resolveMountpoint(args[0]); err != nil {
		return o, explain("mountpoint "+args[0], err, exitMountpoint)
	}
	return o, nil
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
	return serveMount(o, newLogger(c.App.ErrWriter, o.LogLevel), func(user auth.UserID) error {
		return printMounted(c, string(user), o.Mountpoint)
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

// serveMount mounts a drive, calls ready, and serves until the drive is unmounted.
func serveMount(o mountOptions, logger *slog.Logger, ready func(auth.UserID) error) (err error) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
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
	logger.Info("mounted", "drive", m.session.User, "mountpoint", o.Mountpoint, "store", m.address)
	for _, note := range m.mount.Notes() {
		logger.Warn(note)
	}
	if err := ready(m.session.User); err != nil { // nobody listens; the drive is mounted all the same
		logger.Warn("could not say that the drive is mounted", "error", err)
	}
	watch := sessionWatch{session: m.session, authenticator: m.authenticator, mount: m.mount, logger: logger.With("drive", m.session.User)}
	stopWatching := watch.start()
	l := lifecycle{mount: m.mount, drive: m.drive, requests: m.control.unmount, signals: signals, drain: drainDeadline, logger: logger}
	err = l.run()
	stopWatching()
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
		logger.Info("unmounted", "drive", m.session.User, "mountpoint", o.Mountpoint)
	}
	return err
}

// attachment is a mounted drive with all that it needs.
type attachment struct {
	address       storeAddress
	authenticator auth.Authenticator
	session       auth.Session
	store         blobstore.Store
	drive         blobstore.Drive
	mount         *fusefs.Mount
	control       *controlServer
}

// attach opens a drive and mounts it. On an error nothing of it is left.
func attach(ctx context.Context, o mountOptions, logger *slog.Logger) (_ *attachment, err error) {
	m := &attachment{}
	if m.address, err = parseStore(o.Store); err != nil {
		return nil, err
	}
	token, err := parseToken(o.Token)
	if err != nil {
		return nil, explain("token", err, exitToken)
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	store, authenticator, err := m.address.open(ctx, logger)
	if err != nil {
		return nil, err
	}
	m.store = store
	undo := func() error { return m.store.Close() }
	defer func() {
		if err != nil {
			if undone := undo(); undone != nil {
				logger.Warn("could not close what was opened", "error", undone)
			}
		}
	}()
	otherwise := exitStoreAway
	if o.Auth != "" {
		otherwise = exitApplication
		if authenticator, err = applicationAt(o.Auth); err != nil {
			return nil, err
		}
	}
	m.authenticator = authenticator
	if m.session, err = authenticator.Authenticate(ctx, token); err != nil {
		return nil, m.address.failedWith("token", err, otherwise)
	}
	if err = checkMount(o.Mountpoint); err != nil {
		return nil, err
	}
	folder, err := runtimeFolder()
	if err != nil {
		return nil, err
	}
	if m.drive, err = m.store.Open(ctx, m.session); err != nil {
		return nil, m.address.failedFor(fmt.Sprintf("drive of %s", m.session.User), err)
	}
	undo = func() error { return errors.Join(closeDrive(m.drive), m.store.Close()) }
	m.mount, err = fusefs.New(m.drive, fusefs.Options{
		Mountpoint: o.Mountpoint,
		FSName:     "mediafs:" + string(m.session.User),
		AllowOther: o.AllowOther,
		ReadOnly:   o.ReadOnly,
		Timeout:    o.Timeout,
		Logger:     logger,
	})
	if err != nil {
		return nil, explain("", err, exitMountpoint)
	}
	undo = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), drainDeadline)
		defer cancel()
		return errors.Join(m.mount.Unmount(ctx), closeDrive(m.drive), m.store.Close())
	}
	m.control, err = serveControl(folder, m.statusFunc(o), logger)
	if err != nil {
		return nil, explain("runtime folder "+filepath.Clean(folder), err, exitFailed)
	}
	return m, nil
}

func closeDrive(drive blobstore.Drive) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainDeadline)
	defer cancel()
	return drive.Close(ctx)
}

// statusFunc returns what tells how the mount is.
func (m *attachment) statusFunc(o mountOptions) func() mountStatus {
	since := time.Now().Truncate(time.Second)
	return func() mountStatus {
		stats := m.mount.Stats()
		s := mountStatus{
			Drive:      string(m.session.User),
			Mountpoint: o.Mountpoint,
			Store:      m.address.String(),
			Role:       string(m.session.Role),
			ReadOnly:   o.ReadOnly,
			OpenFiles:  stats.OpenHandles,
			Requests:   stats.Requests,
			Errors:     stats.Errors,
			Notes:      m.mount.Notes(),
			Since:      since,
			PID:        os.Getpid(),
			Version:    programVersion(),
			Log:        o.Log,
		}
		if !m.session.Expires.IsZero() {
			s.Expires = &m.session.Expires
		}
		if d, ok := m.drive.(interface{ PendingBytes() int64 }); ok {
			pending := d.PendingBytes()
			s.PendingBytes = &pending
		}
		return s
	}
}
