package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/fusefs"
)

// What a mount of many drives is called.
const (
	allDrives = "all drives" // of a store, for an admin
	allUsers  = "all users"  // of this machine
)

// attachment is what is mounted, with all that it needs.
type attachment struct {
	options       mountOptions
	address       storeAddress
	authenticator auth.Authenticator
	store         blobstore.Store
	shows         string      // the drive, or allDrives or allUsers
	local         localDrives // with allUsers
	seats         []*seat     // one, or with allUsers one for each user
	mount         *fusefs.Mount
	control       *controlServer
	metrics       *metricsServer // nil: there is none
}

// attach opens what the options say and mounts it. On an error nothing of it is left.
func attach(ctx context.Context, o mountOptions, logger *slog.Logger) (_ *attachment, err error) {
	m := &attachment{options: o}
	if m.address, err = parseStore(o.Store); err != nil {
		return nil, err
	}
	if m.metrics, err = listenMetrics(o.Metrics); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.metrics.close()
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	if m.store, m.authenticator, err = m.address.open(ctx, o.Budgets, logger); err != nil {
		return nil, err
	}
	undo := func() error { return m.store.Close() }
	defer func() {
		if err != nil {
			if undone := undo(); undone != nil {
				logger.Warn("could not close what was opened", "error", undone)
			}
		}
	}()
	if o.Auth != "" {
		if m.authenticator, err = applicationAt(o.Auth); err != nil {
			return nil, err
		}
	}
	session, err := m.signIn(ctx, logger)
	if err != nil {
		return nil, err
	}
	if err = checkMount(o.Mountpoint); err != nil {
		return nil, err
	}
	folder, err := runtimeFolder()
	if err != nil {
		return nil, err
	}
	undo = func() error { return errors.Join(m.closeDrives(), m.store.Close()) }
	if err = m.open(ctx, session, logger); err != nil {
		return nil, err
	}
	undo = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), drainDeadline)
		defer cancel()
		return errors.Join(m.mount.Unmount(ctx), m.closeDrives(), m.store.Close())
	}
	m.control, err = serveControl(folder, m.statusFunc(), logger)
	if err != nil {
		return nil, explain("runtime folder "+filepath.Clean(folder), err, exitFailed)
	}
	m.metrics.serve(mountMetrics{m}, logger)
	return m, nil
}

// signIn finds out whose session it is, or with allUsers whose sessions.
func (m *attachment) signIn(ctx context.Context, logger *slog.Logger) (session auth.Session, err error) {
	o := &m.options
	switch {
	case o.AllUsers:
		users, err := readUsersFile(o.UsersFile)
		if err != nil {
			return session, err
		}
		m.shows, m.local = allUsers, signInAll(ctx, users, m.store, m.authenticator, logger)
		for _, drive := range m.local {
			m.seats = append(m.seats, drive.seat)
		}
		return session, nil
	case o.Token == "":
		session = auth.Guest()
		m.shows = string(blobstore.PublicDrive)
	default:
		token, err := parseToken(o.Token)
		if err != nil {
			return session, explain("token", err, exitToken)
		}
		otherwise := exitStoreAway
		if o.Auth != "" {
			otherwise = exitApplication
		}
		if session, err = m.authenticator.Authenticate(ctx, token); err != nil {
			return session, m.address.failedWith("token", err, otherwise)
		}
		m.shows = string(session.User)
		if session.Role == auth.RoleAdmin {
			m.shows = allDrives
		}
	}
	m.seats = []*seat{newSeat(m.store, session)}
	return session, nil
}

// open mounts the drive of the session, all drives for an admin's, or the users' with allUsers.
func (m *attachment) open(ctx context.Context, session auth.Session, logger *slog.Logger) (err error) {
	o := &m.options
	options := fusefs.Options{
		Mountpoint:  o.Mountpoint,
		FSName:      "mediafs:" + m.shows,
		AllowOther:  o.AllowOther,
		ReadOnly:    o.ReadOnly,
		Locks:       m.address.database != "",
		Passthrough: o.Passthrough,
		Timeout:     o.Timeout,
		Logger:      logger,

		InflightBytes: o.Budgets.Requests,
		OpenDrives:    int(o.Budgets.OpenDrives),
	}
	switch {
	case m.local != nil:
		options.RootMode = 0o755
		m.mount, err = fusefs.NewMany(m.local, options)
	case session.Role == auth.RoleAdmin:
		m.mount, err = fusefs.NewMany(adminDrives{m.seats[0]}, options)
	default:
		var drive blobstore.Drive
		if drive, err = m.seats[0].openOwn(ctx); err != nil {
			return m.address.failedFor(fmt.Sprintf("drive of %s", m.shows), err)
		}
		m.mount, err = fusefs.New(drive, options)
	}
	if err != nil {
		return explain("", err, exitMountpoint)
	}
	return nil
}

// Close closes what is open when it is unmounted: the drives that the mount opened, and then the one that was opened for it.
func (m *attachment) Close(ctx context.Context) error {
	var err error
	if m.mount != nil {
		err = m.mount.CloseDrives(ctx)
	}
	for _, s := range m.seats {
		err = errors.Join(err, s.close(ctx))
	}
	return err
}

func (m *attachment) closeDrives() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainDeadline)
	defer cancel()
	return m.Close(ctx)
}

// watch watches the sessions until stop is called. A guest has none.
func (m *attachment) watch(logger *slog.Logger) (stop func()) {
	var stops []func()
	start := func(s *seat, source tokenSource, mount suspended, logger *slog.Logger) {
		w := sessionWatch{seat: s, source: source, authenticator: m.authenticator, mount: mount, logger: logger}
		stops = append(stops, w.start())
	}
	for i, user := range m.local {
		start(user.seat, user.localUser, driveOf{m.mount, blobstore.DriveID(i + 1)}, logger.With("user", user.name))
	}
	if m.local == nil && m.options.Token != "" {
		start(m.seats[0], m.options.source(), m.mount, logger.With("drive", m.shows))
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// pendingBytes is how much is written and not yet stored; false: the store keeps nothing back.
func (m *attachment) pendingBytes() (n int64, known bool) {
	for _, seat := range m.seats {
		if pending, keepsBack := seat.pendingBytes(); keepsBack {
			n, known = n+pending, true
		}
	}
	return n, known
}

// statusFunc returns what tells how the mount is.
func (m *attachment) statusFunc() func() mountStatus {
	since := time.Now().Truncate(time.Second)
	return func() mountStatus {
		stats := m.mount.Stats()
		s := mountStatus{
			Drive:      m.shows,
			Mountpoint: m.options.Mountpoint,
			Store:      m.address.String(),
			ReadOnly:   m.options.ReadOnly,
			OpenFiles:  stats.OpenHandles,
			Requests:   stats.Requests,
			Errors:     stats.Errors,
			figures:    figuresOf(stats, m.store),
			Metrics:    m.metrics.address(),
			resources:  ownResources(),
			Notes:      m.mount.Notes(),
			Since:      since,
			PID:        os.Getpid(),
			Version:    programVersion(),
			Log:        m.options.Log,
		}
		for _, user := range m.local {
			s.Users = append(s.Users, userStatus{Folder: user.name, sessionStatus: user.seat.status()})
		}
		if m.local == nil {
			s.sessionStatus = m.seats[0].status()
		}
		if pending, known := m.pendingBytes(); known {
			s.PendingBytes = &pending
		}
		return s
	}
}
