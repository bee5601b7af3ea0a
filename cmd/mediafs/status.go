package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "list the mounted drives and how they are",
		UsageText: "mediafs status [--json]",
		Description: "PENDING is what is written and not yet stored; ERRORS are operations that the store or the session failed. Below the table is\n" +
			"what each mount has done: its operations and how long they took, its errors by their numbers (errno), what was read and\n" +
			"written, and how often its database was asked. With --json all of it is there in figures, and Prometheus is told the same by\n" +
			"`mediafs mount --metrics`.\n\n" +
			"Examples:\n\n  mediafs status\n  mediafs status --json | jq '.[].pending_bytes'\n  mediafs status --json | jq '.[] | {mountpoint, errors_by_errno}'",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print an array of objects"}},
		Action: runStatus,
	}
}

func runStatus(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	folder, err := runtimeFolder()
	if err != nil {
		return err
	}
	found, err := findMounts(c.Context, folder)
	if err != nil {
		return explain("runtime folder "+folder, err, exitFailed)
	}
	mounts, err := ourMounts()
	if err != nil {
		return explain("", err, exitFailed)
	}
	list := withUnanswered(slices.Collect(maps.Values(found)), mounts)
	if c.Bool("json") {
		encoder := json.NewEncoder(c.App.Writer)
		encoder.SetIndent("", "  ")
		return encoder.Encode(list)
	}
	return printStatus(c.App.Writer, list)
}

// withUnanswered adds the mounts of the kernel's table that nobody answered for, and sorts by mountpoint.
func withUnanswered(list []mountStatus, mounts map[string]string) []mountStatus {
	list = append([]mountStatus{}, list...) // an empty array in JSON, not null
	for mountpoint, name := range mounts {
		if slices.ContainsFunc(list, func(s mountStatus) bool { return s.Mountpoint == mountpoint }) {
			continue
		}
		list = append(list, mountStatus{
			Drive:      strings.TrimPrefix(name, "mediafs:"),
			Mountpoint: mountpoint,
			Problem:    "no mediafs of yours answers for it: if its process is gone, run `mediafs umount " + quoteShell(mountpoint) + "`",
		})
	}
	slices.SortFunc(list, func(a, b mountStatus) int {
		return cmp.Or(cmp.Compare(a.Mountpoint, b.Mountpoint), cmp.Compare(a.PID, b.PID))
	})
	return list
}

// printStatus writes a table, and beneath it what else there is to say.
func printStatus(w io.Writer, list []mountStatus) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "nothing is mounted")
		return err
	}
	rows := [][]string{{"DRIVE", "MOUNTPOINT", "STORE", "SESSION ENDS", "OPEN", "PENDING", "ERRORS", "SINCE"}}
	var remarks []string
	for _, s := range list {
		where := cmp.Or(s.Mountpoint, fmt.Sprintf("process %d", s.PID))
		if s.Problem != "" {
			rows = append(rows, []string{cmp.Or(s.Drive, "?"), where, "?", "?", "?", "?", "?", "?"})
			remarks = append(remarks, where+": "+s.Problem)
			continue
		}
		pending := "0"
		if s.PendingBytes != nil {
			pending = formatBytes(*s.PendingBytes)
		}
		rows = append(rows, []string{s.Drive, where, s.Store, s.ends(),
			strconv.Itoa(s.OpenFiles), pending, strconv.FormatUint(s.Errors, 10), s.Since.Local().Format(time.DateTime)})
		for _, words := range s.inWords() {
			remarks = append(remarks, where+": "+words)
		}
		if s.Ended != "" {
			remarks = append(remarks, where+": "+s.Ended)
		}
		for _, user := range s.Users {
			remark := fmt.Sprintf("%s: %s is signed in as %s, session ends: %s", where, user.Folder, user.User, user.ends())
			if user.Ended != "" {
				remark = fmt.Sprintf("%s: %s is not signed in: %s", where, user.Folder, user.Ended)
			}
			remarks = append(remarks, remark)
		}
		for _, note := range s.Notes {
			remarks = append(remarks, where+": "+note)
		}
		if s.Log != "" {
			remarks = append(remarks, where+": its log is "+s.Log)
		}
	}
	if err := printTable(w, rows); err != nil {
		return err
	}
	for _, remark := range remarks {
		if _, err := fmt.Fprintln(w, oneLine(remark)); err != nil {
			return err
		}
	}
	return nil
}

// ends is when a session ends, for people.
func (s *sessionStatus) ends() string {
	switch {
	case s.Ended != "":
		return "ended"
	case s.Expires != nil:
		return s.Expires.Local().Format(time.DateTime)
	}
	return "never"
}

// printTable writes rows with their columns beneath each other.
func printTable(w io.Writer, rows [][]string) error {
	buffered := bufio.NewWriter(w) // a table writes each cell and each gap by itself
	table := tabwriter.NewWriter(buffered, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = oneLine(cell) // names may have tabs and line feeds in them
		}
		if _, err := fmt.Fprintln(table, strings.Join(cells, "\t")); err != nil {
			return err
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return buffered.Flush()
}

// formatBytes writes a number of bytes for people.
func formatBytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, unit := float64(n), 0
	for f >= 1024 && unit < len(units)-1 {
		f, unit = f/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[unit])
}
