package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/transfer"
)

func migrateCommand() *cli.Command {
	return &cli.Command{
		Name:      "migrate",
		Usage:     "copy all drives of a store into another store",
		UsageText: "mediafs migrate --from STORE --to STORE [--from-token-file FILE] [--to-token-file FILE] [--json]",
		Description: "Copies one drive after the other, the public one too, into the drive of the same name: whoever signs in at the other store as the\n" +
			"user whose id that is has it. Drives that are not there are made. Nothing is taken from the store that is copied, and accounts and\n" +
			"tokens stay where they are: users that no application signs in are added with `mediafs user add`.\n\n" +
			"On a database it is done with an admin's token, of an account (`mediafs user add NAME --role admin`) or of a session of the\n" +
			"application, from a file or MEDIAFS_TOKEN. A store of folders is read and written with the rights of whoever runs the command:\n" +
			"run it as root, or as the user of the web application. Run `mediafs init` on both before.\n\n" +
			"What lies at the top of a store of folders and is in no drive, and what can't be read, is told, a line each, and the rest goes on;\n" +
			"the exit code is then 1. Each file is read back and compared. Run again, it goes on where it was: what is there already, with the same\n" +
			"size, time and content, is passed over, and nothing is replaced. So run it while the application works, and once more without it.\n\n" +
			"Examples:\n\n" +
			"  mediafs migrate --from file:///srv/appframes/media --to postgres://app@localhost/appframes --to-token-file admin.token\n" +
			"  mediafs migrate --from postgres://app@localhost/appframes --from-token-file admin.token --to /srv/media",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "`STORE` that is copied: a folder, file:///folder or postgres://user@host/database"},
			&cli.StringFlag{Name: "to", Usage: "`STORE` that it is copied into"},
			&cli.StringFlag{Name: "from-token-file", TakesFile: true, Usage: "`FILE` with an admin's token, if it is a database (or " + tokenVariable + ")"},
			&cli.StringFlag{Name: "to-token-file", TakesFile: true, Usage: "the same for the other store: a `FILE`"},
			jsonFlag(),
		},
		Action: runMigrate,
	}
}

// migrator is who does it in the log of a store of folders, which needs no token for it.
const migrator auth.UserID = "mediafs-migrate"

// A migratedStore is a store that is copied, or copied into.
type migratedStore struct {
	blobstore.Store
	address       storeAddress
	authenticator auth.Authenticator // nil: nobody has to be asked
	session       auth.Session
}

func runMigrate(c *cli.Context) (err error) {
	if _, err := arguments(c); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	inEnvironment := os.Getenv(tokenVariable)
	from, err := openMigrated(ctx, c, "from", inEnvironment)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := openMigrated(ctx, c, "to", inEnvironment)
	if err != nil {
		return err
	}
	defer to.Close()
	if from.address == to.address {
		return usageFailure(c, errors.New("--from and --to are the same store"))
	}
	if from.address.folder != "" {
		if err := isApart(from.address.folder, to.address.folder); err != nil {
			return usageFailure(c, errors.New("one store is in the other"))
		}
	}
	t := &transferring{show: newTransferPrinter(c)}
	working, leaveFrom := from.whileSignedIn(ctx)
	defer leaveFrom()
	working, leaveTo := to.whileSignedIn(working)
	defer leaveTo()
	err = t.show.during(func() error { return t.migrate(working, from, to) })
	for _, side := range []*migratedStore{from, to} {
		err = side.address.failedFor(c.Command.Name, err)
	}
	return t.report(ctx, c, to.address, err)
}

// openMigrated opens the store that a flag names, as an admin.
func openMigrated(ctx context.Context, c *cli.Context, flag, inEnvironment string) (*migratedStore, error) {
	if c.String(flag) == "" {
		return nil, usageFailure(c, fmt.Errorf("--%s STORE is missing", flag))
	}
	address, err := parseStore(c.String(flag))
	if err != nil {
		return nil, err
	}
	if address.hasPassword() {
		tell(c.App.ErrWriter, "warning: ps shows the password in --"+flag+": set PGPASSWORD, or use ~/.pgpass")
	}
	store, authenticator, err := address.openWith(ctx, budgets{}, "", newLogger(c.App.ErrWriter, slog.LevelWarn))
	if err != nil {
		return nil, err
	}
	side := &migratedStore{Store: store, address: address, session: auth.Session{User: migrator, Role: auth.RoleAdmin}}
	if address.database == "" {
		return side, nil
	}
	side.authenticator = authenticator
	if err := side.signIn(ctx, c, flag+"-token-file", inEnvironment); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return side, nil
}

// signIn signs in with the token of a flag, or else of the environment, which serves both stores.
func (s *migratedStore) signIn(ctx context.Context, c *cli.Context, flag, inEnvironment string) error {
	var token auth.Token
	var warning string
	var err error
	switch file := c.String(flag); {
	case file != "":
		token, warning, err = readToken(file)
	case strings.TrimSpace(inEnvironment) != "":
		token, err = parseToken(inEnvironment)
		err = errors.Join(err, os.Unsetenv(tokenVariable))
	default:
		err = errors.New("none is given")
	}
	if err != nil {
		return &failure{code: exitToken, what: "token for " + s.address.String(), why: err, way: "name a file with an admin's with --" + flag + " or set " + tokenVariable}
	}
	if warning != "" {
		tell(c.App.ErrWriter, "warning: "+warning)
	}
	if s.session, err = s.authenticator.Authenticate(ctx, token); err != nil {
		return s.address.failed(err)
	}
	if s.session.Role != auth.RoleAdmin {
		return &failure{code: exitToken, what: s.address.String(), why: fmt.Errorf("%s is not an admin", s.session.User),
			way: "use an admin's token: only an admin sees all drives"}
	}
	return nil
}

// whileSignedIn returns a context that ends with the session, if there is one that can end.
func (s *migratedStore) whileSignedIn(ctx context.Context) (context.Context, func()) {
	if s.authenticator == nil {
		return ctx, func() {}
	}
	return whileSignedIn(ctx, s.authenticator, s.session)
}

// migrate copies all drives.
func (t *transferring) migrate(ctx context.Context, from, to *migratedStore) error {
	if s, ok := from.Store.(interface {
		Strays(context.Context, auth.Session) ([]string, error)
	}); ok {
		strays, err := s.Strays(ctx, from.session)
		if err != nil {
			return err
		}
		for _, name := range strays {
			t.show.problem(transfer.Problem{Path: name, Why: errors.New("it is in no drive: at the top of a store are folders that are called as users are")})
		}
	}
	var drives []blobstore.DriveName
	err := from.Drives(ctx, from.session, 0, func(info blobstore.DriveInfo) bool {
		drives = append(drives, info.Name)
		return true
	})
	if err != nil {
		return err
	}
	for i, name := range drives {
		t.show.drive(i, len(drives))
		if err := t.migrateDrive(ctx, from, to, name); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// migrateDrive copies one drive. Its error is why the others can't be copied either.
func (t *transferring) migrateDrive(ctx context.Context, from, to *migratedStore, name blobstore.DriveName) (err error) {
	failed := func(err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		t.show.problem(transfer.Problem{Path: string(name) + ":", Why: err})
		return nil
	}
	source, err := from.OpenDrive(ctx, from.session, name)
	if err != nil {
		return failed(err)
	}
	defer func() { err = errors.Join(err, closeDrive(ctx, source)) }()
	target, err := to.OpenDrive(ctx, to.session, name)
	if errors.Is(err, blobstore.ErrNotExist) && name != blobstore.PublicDrive {
		if err = to.MakeDrive(ctx, to.session, auth.UserID(name)); err == nil {
			target, err = to.OpenDrive(ctx, to.session, name)
		}
	}
	if err != nil {
		return failed(err)
	}
	defer func() {
		if closing := closeDrive(ctx, target); closing != nil {
			err = errors.Join(err, failed(closing))
		}
	}()
	return transfer.Run(ctx,
		[]transfer.Source{{Drive: source, Ino: blobstore.RootIno, Shown: string(name) + ":"}},
		transfer.Target{Drive: target, Folder: blobstore.RootIno, Path: "/", Whole: true}, t.options(), &t.show.progress)
}
