package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
	"mediafs/blobstore/pgstore"
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "look whether a store is whole, and repair it",
		UsageText: "mediafs check --store STORE [--repair] [--json]",
		Description: "Looks at all drives: counts, sizes and links, what belongs to nothing, whose what is, and what protects it. It may be run while\n" +
			"drives are mounted. A database needs an administrator's login that sees all rows: a superuser's, or one with BYPASSRLS.\n\n" +
			"Of each kind of finding the first " + strconv.Itoa(blobstore.ShownFindings) + " are shown, and all are counted. The last line says how much was looked at. The exit code is 0\n" +
			"only if the store is whole.\n\n" +
			"--repair sets right what it can and looks again. It drops neither content nor names: what has no place any more goes to the\n" +
			"folder lost+found of its drive. In a database one drive after the other is locked for writing meanwhile, for seconds.\n" +
			"Better unmount drives before: what is open may have to be opened again.\n\n" +
			"Examples:\n\n" +
			"  mediafs check --store /srv/media\n" +
			"  mediafs check --store postgres://postgres@localhost/appframes --repair",
		Flags: []cli.Flag{
			storeFlag(),
			&cli.BoolFlag{Name: "repair", Usage: "set right what can be"},
			&cli.BoolFlag{Name: "json", Usage: "print an object a line, the last with the counts"},
		},
		Action: runCheck,
	}
}

// errBroken is a store that is not whole.
var errBroken = errors.New("is not whole")

// errCheckInterrupted is a check that did not come to its end. A drive is repaired whole or not at all.
var errCheckInterrupted = errors.New("interrupted")

func runCheck(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	address, err := storeOf(c)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	show := checkPrinter{w: c.App.Writer, json: c.Bool("json")}
	report, err := address.check(ctx, c.Bool("repair"), show.finding)
	if ctx.Err() != nil {
		return &failure{code: exitFailed, what: "check", why: errCheckInterrupted}
	}
	if err != nil {
		return address.failedFor("check", err)
	}
	show.report(&report)
	if show.failed != nil {
		return &failure{code: exitFailed, what: "print the findings", why: show.failed}
	}
	if report.Whole() {
		return nil
	}
	way := "run `mediafs check --repair`"
	if report.Repaired {
		way = "what is left needs an administrator"
	}
	return &failure{code: exitFailed, what: "store " + address.String(), why: errBroken, way: way}
}

func (a storeAddress) check(ctx context.Context, repair bool, take func(blobstore.Finding)) (blobstore.CheckReport, error) {
	if a.database != "" {
		return pgstore.Check(ctx, a.database, repair, take)
	}
	return dirstore.Check(ctx, a.folder, repair, take)
}

// A checkPrinter prints findings as they come.
type checkPrinter struct {
	w      io.Writer
	json   bool
	failed error // the first, in printing
}

func (p *checkPrinter) print(line string) {
	if p.failed == nil {
		_, p.failed = fmt.Fprintln(p.w, line)
	}
}

func (p *checkPrinter) object(v any) {
	if p.failed == nil {
		encoder := json.NewEncoder(p.w)
		encoder.SetEscapeHTML(false)
		p.failed = encoder.Encode(v)
	}
}

// finding prints a line like `anna: orphan: ino 17: it is in no folder`.
func (p *checkPrinter) finding(f blobstore.Finding) {
	if p.json {
		quoted := "" // a name that is not UTF-8
		if !utf8.ValidString(f.Name) {
			f.Name, quoted = "", strconv.Quote(f.Name)
		}
		p.object(struct {
			blobstore.Finding
			NameQuoted string `json:"name_quoted,omitempty"`
		}{f, quoted})
		return
	}
	parts := []string{"the store", f.Kind}
	if f.Drive != "" {
		parts[0] = oneLine(string(f.Drive))
	}
	if f.Ino != 0 {
		parts = append(parts, "ino "+strconv.FormatUint(uint64(f.Ino), 10))
	}
	if f.Name != "" {
		parts = append(parts, shownPath(f.Name))
	}
	line := strings.Join(append(parts, oneLine(f.Says)), ": ")
	if f.Repaired {
		line += " (repaired)"
	}
	p.print(line)
}

// report prints how much was looked at and what was found of each kind.
func (p *checkPrinter) report(r *blobstore.CheckReport) {
	if p.json {
		p.object(struct {
			*blobstore.CheckReport
			Whole bool `json:"whole"`
		}{r, r.Whole()})
		return
	}
	line := fmt.Sprintf("%d drives, %d nodes, %s: ", r.Drives, r.Nodes, formatBytes(r.Bytes))
	switch {
	case len(r.Found) == 0:
		line += "whole"
	case r.Whole():
		line += "whole now, repaired: " + counts(r.Found)
	case r.Repaired:
		line += "found: " + counts(r.Found) + "; left: " + counts(r.Left)
	default:
		line += "found: " + counts(r.Found)
	}
	p.print(line)
}

// counts says how many there are of each kind.
func counts(kinds map[string]int64) string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		parts = append(parts, fmt.Sprintf("%s %d", kind, kinds[kind]))
	}
	return strings.Join(parts, ", ")
}
