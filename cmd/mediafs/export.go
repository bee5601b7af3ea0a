package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/urfave/cli/v2"

	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
	"mediafs/blobstore/transfer"
)

func exportCommand() *cli.Command {
	return &cli.Command{
		Name:      "export",
		Usage:     "copy a drive into a folder of this machine",
		UsageText: "mediafs export --store STORE [--token-file FILE] [--auth URL] [--json] FOLDER",
		Description: "Copies all that is on the drive of the token's user into FOLDER, which is made if it is missing and gets the mode and the times\n" +
			"of the drive. What is copied and how, and what becomes of what is there already, is as with `mediafs import`: each file is read\n" +
			"back and compared, nothing is replaced, and run again it goes on where it was.\n\n" +
			"Examples:\n\n" +
			"  mediafs export --store /srv/media --token-file anna.token ~/backup\n" +
			"  mediafs export --store postgres://app@localhost/appframes --json /mnt/disk/anna | jq -c .",
		Flags:  append(transferFlags(), jsonFlag()),
		Action: runExport,
	}
}

func runExport(c *cli.Context) error {
	args, err := arguments(c, "FOLDER")
	if err != nil {
		return err
	}
	return withDrive(c, func(ctx context.Context, t *transferring) (err error) {
		folder, err := openTarget(args[0], t.drivePath)
		if err != nil {
			return &failure{code: exitFailed, what: "export", why: err, way: "choose another folder"}
		}
		defer func() { err = errors.Join(err, closeDrive(ctx, folder)) }()
		source := transfer.Source{Drive: t.drive, Ino: blobstore.RootIno}
		target := transfer.Target{Drive: folder, Folder: blobstore.RootIno, Path: "/", Whole: true}
		return transfer.Run(ctx, []transfer.Source{source}, target, t.options(), &t.show.progress)
	})
}

// openTarget opens a folder of this machine, which is made if it is missing. away is a folder that must be neither in it nor around it.
func openTarget(path, away string) (_ blobstore.Drive, err error) {
	made := os.Mkdir(path, 0o700)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return nil, made
	}
	defer func() {
		if err != nil && made == nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	if err := isApart(path, away); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return dirstore.OpenFolder(path)
}
