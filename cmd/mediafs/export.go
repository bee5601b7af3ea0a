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
		if err := os.Mkdir(args[0], 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := isApart(args[0], t.drivePath); err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		folder, err := dirstore.OpenFolder(args[0])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closeDrive(ctx, folder)) }()
		source := transfer.Source{Drive: t.drive, Ino: blobstore.RootIno}
		target := transfer.Target{Drive: folder, Folder: blobstore.RootIno, Path: "/", Whole: true}
		return transfer.Run(ctx, []transfer.Source{source}, target, t.options(), &t.show.progress)
	})
}
