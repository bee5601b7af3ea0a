package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
	"mediafs/blobstore/transfer"
)

func importCommand() *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "copy folders and files of this machine into a drive",
		UsageText: "mediafs import --store STORE [--token-file FILE] [--auth URL] [--into FOLDER] [--job ID] [--move] [--json] SOURCE...",
		Description: "Copies each SOURCE, a folder with all that is in it or a file, into the drive of the token's user, with times, modes, owners,\n" +
			"extended attributes, links and holes; no drive need be mounted. Of \"SOURCE/.\" only what is in the folder is copied, as by cp -a.\n" +
			"Each file is read back and compared by its checksum before it gets its name.\n\n" +
			"Interrupted or killed, it goes on where it was when it is run again: what is there already, with the same size, time and content, is\n" +
			"passed over. Nothing on the drive is replaced. What is not copied is told, a line each with the reason, and the rest goes on;\n" +
			"the exit code is then 1.\n\n" +
			"--move removes a file from its source once its copy is verified and durable, unless it has changed meanwhile.\n\n" +
			"Examples:\n\n" +
			"  mediafs import --store /srv/media --token-file anna.token ~/Pictures\n" +
			"  mediafs import --store /srv/media --token-file anna.token --into Imports/2026 --job card-17 --move /media/card/DCIM\n" +
			"  mediafs import --store postgres://app@localhost/appframes ~/Videos/. --json | jq -c .",
		Flags: append(transferFlags(),
			&cli.StringFlag{Name: "into", Usage: "the `FOLDER` of the drive, which is made if it is missing; the whole drive if not given"},
			&cli.StringFlag{Name: "job", Usage: "`ID` of the job that the files belong to (user.mediafs.job_id)"},
			&cli.BoolFlag{Name: "move", Usage: "remove from the source what was copied"},
			jsonFlag(),
		),
		Action: runImport,
	}
}

// transferFlags say whose drive of which store it is.
func transferFlags() []cli.Flag {
	return []cli.Flag{
		storeFlag(),
		&cli.StringFlag{Name: "token-file", TakesFile: true, Usage: "`FILE` with the token (or " + tokenVariable + ")"},
		&cli.StringFlag{Name: "auth", Usage: "`URL` of the application to ask whose session it is, for a store of folders (or " + authVariable + ")"},
	}
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print an object a line, the last with the counts"}
}

func runImport(c *cli.Context) error {
	args := c.Args().Slice()
	if len(args) == 0 {
		return usageFailure(c, errors.New("SOURCE is missing"))
	}
	job := c.String("job")
	if err := blobstore.CheckJob(job); err != nil {
		return usageFailure(c, fmt.Errorf("--job: %w", err))
	}
	into, err := folderInDrive(c.String("into"))
	if err != nil {
		return usageFailure(c, err)
	}
	return withDrive(c, func(ctx context.Context, t *transferring) (err error) {
		target := transfer.Target{Drive: t.drive, Path: into}
		if target.Folder, err = makeFolders(ctx, t.drive, into); err != nil {
			return fmt.Errorf("make %s on the drive: %w", shownPath(into), err)
		}
		local := localSources{drives: make(map[string]blobstore.Drive)}
		defer func() { err = errors.Join(err, local.close(ctx)) }()
		for _, arg := range args {
			if err := local.add(arg, t.drivePath); err != nil {
				t.show.problem(transfer.Problem{Path: arg, Why: err})
			}
		}
		o := t.options()
		o.Job, o.Move = job, c.Bool("move")
		if err := transfer.Run(ctx, local.sources, target, o, &t.show.progress); err != nil {
			return err
		}
		if o.Move {
			local.removeEmptied()
		}
		return nil
	})
}

// folderInDrive reads the path of a folder on a drive.
func folderInDrive(s string) (string, error) {
	for element := range strings.SplitSeq(s, "/") {
		if element == ".." || strings.ContainsRune(element, 0) {
			return "", fmt.Errorf("--into %q is not a path on the drive", s)
		}
	}
	return path.Clean("/" + s), nil
}

// makeFolders returns a folder of a drive, which is made with those above it.
func makeFolders(ctx context.Context, drive blobstore.Drive, folder string) (blobstore.Ino, error) {
	ctx, cancel := context.WithTimeout(ctx, storeDeadline)
	defer cancel()
	node := blobstore.NewNode{Mode: unix.S_IFDIR | 0o755}
	node.UID, node.GID = drive.Owner()
	at := blobstore.RootIno
	for name := range strings.FieldsFuncSeq(folder, func(r rune) bool { return r == '/' }) {
		attr, err := drive.Make(ctx, at, name, node)
		if errors.Is(err, blobstore.ErrExist) {
			attr, err = drive.Lookup(ctx, at, name)
			if err == nil && !attr.IsDir() {
				err = blobstore.ErrNotDir
			}
		}
		if err != nil {
			return 0, err
		}
		at = attr.Ino
	}
	return at, nil
}

// localSources are folders and files of this machine.
type localSources struct {
	sources []transfer.Source
	folders []string // that are copied whole
	drives  map[string]blobstore.Drive
	opened  []blobstore.Drive
}

// add adds what a path names: a folder as itself, or with "/." at its end only what is in it; anything else, links included, in its folder. away is a folder that
// must be neither in it nor around it.
func (l *localSources) add(arg, away string) error {
	info, err := os.Lstat(arg)
	if err != nil {
		return errors.Unwrap(err)
	}
	source := transfer.Source{Shown: strings.TrimRight(arg, "/"), Device: info.Sys().(*syscall.Stat_t).Dev}
	if err := isApart(arg, away); err != nil {
		return err
	}
	if !info.IsDir() {
		folder := filepath.Dir(arg)
		if l.drives[folder] == nil {
			if l.drives[folder], err = l.open(folder); err != nil {
				return err
			}
		}
		source.Drive, source.Parent, source.ParentName = l.drives[folder], blobstore.RootIno, filepath.Base(arg)
		l.sources = append(l.sources, source)
		return nil
	}
	if source.Drive, err = l.open(arg); err != nil {
		return err
	}
	source.Ino = blobstore.RootIno
	switch last := source.Shown[strings.LastIndexByte(source.Shown, '/')+1:]; last {
	case "", "..":
	case ".":
		source.Shown = strings.TrimSuffix(source.Shown, "/.")
	default:
		source.Name = last
		l.folders = append(l.folders, arg)
	}
	l.sources = append(l.sources, source)
	return nil
}

func (l *localSources) open(folder string) (blobstore.Drive, error) {
	drive, err := dirstore.OpenFolder(folder)
	if err == nil {
		l.opened = append(l.opened, drive)
	}
	return drive, err
}

func (l *localSources) close(ctx context.Context) error {
	var errs []error
	for _, drive := range l.opened {
		errs = append(errs, drive.Close(context.WithoutCancel(ctx)))
	}
	return errors.Join(errs...)
}

// removeEmptied removes the folders from which everything was moved. One that has something left in it stays.
func (l *localSources) removeEmptied() {
	for _, folder := range l.folders {
		_ = os.Remove(folder)
	}
}

// isApart gives an error if one of two folders is the other, or in it: a copy would be copied too, without end. "" is none.
func isApart(one, other string) error {
	if other == "" {
		return nil
	}
	var resolved [2]string
	for i, p := range []string{one, other} {
		absolute, err := filepath.Abs(p)
		if err == nil {
			absolute, err = filepath.EvalSymlinks(absolute)
		}
		if err != nil {
			return nil //nolint:nilerr // one that is not there is in no other
		}
		resolved[i] = strings.TrimSuffix(absolute, "/") + "/"
	}
	if strings.HasPrefix(resolved[0], resolved[1]) || strings.HasPrefix(resolved[1], resolved[0]) {
		return fmt.Errorf("the drive is kept in %s: copy from or to another place", other)
	}
	return nil
}

// A transferring is an import, an export or a migration that goes on.
type transferring struct {
	drive     blobstore.Drive
	drivePath string // of its folder on this machine; "": it is in a database
	show      *transferPrinter
}

// options are those that all have.
func (t *transferring) options() transfer.Options {
	return transfer.Options{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Problem: t.show.problem}
}

// withDrive opens the drive of whoever's token it is, does something with it, and reports.
func withDrive(c *cli.Context, do func(context.Context, *transferring) error) error {
	address, err := storeOf(c)
	if err != nil {
		return err
	}
	found, err := credentialsOf(c, address)
	if err != nil {
		return err
	}
	if found.warning != "" {
		tell(c.App.ErrWriter, "warning: "+found.warning)
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	store, authenticator, err := address.openWith(ctx, budgets{}, "", newLogger(c.App.ErrWriter, slog.LevelWarn))
	if err != nil {
		return err
	}
	defer store.Close()
	if found.application != "" {
		if authenticator, err = applicationAt(found.application); err != nil {
			return err
		}
	}
	session, err := authenticator.Authenticate(ctx, found.token)
	if err != nil {
		return address.failedFor(c.Command.Name, err)
	}
	drive, err := store.Open(ctx, session)
	if err != nil {
		return address.failed(err)
	}
	t := &transferring{drive: drive, show: newTransferPrinter(c)}
	if address.folder != "" {
		t.drivePath = filepath.Join(address.folder, string(session.User))
	}
	signedIn, leave := whileSignedIn(ctx, authenticator, session)
	err = t.show.during(func() error { return do(signedIn, t) })
	leave()
	return t.report(ctx, c, address, errors.Join(err, closeDrive(ctx, drive)))
}

// closeDrive stores what is pending, also when the command is interrupted.
func closeDrive(ctx context.Context, drive blobstore.Drive) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainDeadline)
	defer cancel()
	return drive.Close(ctx)
}

// errTransferInterrupted is a command that was ended by a signal.
var errTransferInterrupted = errors.New("interrupted")

// report prints what was done and gives the error that the command ends with.
func (t *transferring) report(ctx context.Context, c *cli.Context, address storeAddress, err error) error {
	const again = "run it again to go on"
	printed := t.show.report(err == nil)
	switch {
	case ctx.Err() != nil:
		return &failure{code: exitFailed, what: c.Command.Name, why: errTransferInterrupted, way: again}
	case err != nil:
		f := explain(c.Command.Name, err, exitStoreAway)
		f.hide = address.secrets()
		if t.show.skipped > 0 && errors.Is(err, blobstore.ErrNoSpace) {
			f.code = exitFailed // for whatever the disk had no room, files or, at the end, notes of what is given up
		}
		if f.way == "" {
			f.way = again
		}
		return f
	case printed != nil:
		return &failure{code: exitFailed, what: "print the report", why: printed}
	}
	if n := t.show.skipped; n > 0 {
		return &failure{code: exitFailed, what: c.Command.Name, why: fmt.Errorf("not all was copied: %s skipped", formatCount(n)), way: "see the reasons above"}
	}
	return nil
}

// sessionInterval is how often a command that takes long asks whether its session lasts.
const sessionInterval = 10 * time.Second

// whileSignedIn returns a context that ends with the session. stop waits for the end of watching it.
func whileSignedIn(ctx context.Context, authenticator auth.Authenticator, session auth.Session) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(sessionInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			asking, end := context.WithTimeout(ctx, sessionInterval)
			_, err := authenticator.Authenticate(asking, session.Token)
			end()
			for _, over := range []error{auth.ErrInvalid, auth.ErrExpired, auth.ErrRevoked, auth.ErrBanned} {
				if errors.Is(err, over) {
					cancel(err)
				}
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}
