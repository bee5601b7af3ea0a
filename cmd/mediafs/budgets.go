package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"mediafs/blobstore/pgstore"
	"mediafs/fusefs"
)

// budgets are what a mount may take of this machine's memory and of the database. Zero is the default of each.
type budgets struct {
	Pending     int64 // bytes that are written and not stored yet
	ReadAhead   int64 // bytes that are read before they are asked for
	Requests    int64 // bytes of requests that the kernel has made and that are not answered yet
	Connections int64
	OpenDrives  int64 // of a mount of many
}

// memoryBeside is what the program may take beside these budgets: for its own work, and what the collector has not yet collected.
const memoryBeside = 96 << 20

// memory is what the program tries to stay within.
func (b budgets) memory() int64 { return memoryBeside + b.Pending + b.ReadAhead + b.Requests }

// A setting is how one budget is set: by a flag, by a variable of the environment or, for mount(8), by an option.
type setting struct {
	flag, variable string
	usage          string
	budget         func(*budgets) *int64
	value          int64 // unless it is set
	least, most    int64
	size           bool // a number of bytes
	database       bool // a store of folders has none
}

// settings are all of them. A budget has to hold what a single request may take: a chunk or a piece of a listing is at most 1 MiB.
var settings = []setting{
	{
		flag: "pending", variable: "MEDIAFS_PENDING", usage: "memory for what is written and not stored in the database yet: a `SIZE`",
		budget: func(b *budgets) *int64 { return &b.Pending }, value: pgstore.DefaultPendingBytes, least: 8 << 20, most: 1 << 40, size: true, database: true,
	},
	{
		flag: "read-ahead", variable: "MEDIAFS_READ_AHEAD", usage: "memory for what is read from the database before it is asked for: a `SIZE`",
		budget: func(b *budgets) *int64 { return &b.ReadAhead }, value: pgstore.DefaultReadAheadBytes, least: 1 << 20, most: 1 << 40, size: true, database: true,
	},
	{
		flag: "requests", variable: "MEDIAFS_REQUESTS", usage: "memory for requests that the kernel has made and that are not answered yet: a `SIZE`",
		budget: func(b *budgets) *int64 { return &b.Requests }, value: fusefs.DefaultInflightBytes, least: 8 << 20, most: 1 << 40, size: true,
	},
	{
		flag: "connections", variable: "MEDIAFS_CONNECTIONS", usage: "at most `N` connections to the database",
		budget: func(b *budgets) *int64 { return &b.Connections }, value: pgstore.DefaultConnections, least: 2, most: 1000, database: true,
	},
	{
		flag: "open-drives", variable: "MEDIAFS_OPEN_DRIVES", usage: "of many drives, keep `N` open that nobody uses",
		budget: func(b *budgets) *int64 { return &b.OpenDrives }, value: fusefs.DefaultOpenDrives, least: 1, most: 100_000,
	},
}

// budgetFlags are the flags that set the budgets.
func budgetFlags() []cli.Flag {
	var flags []cli.Flag
	for _, s := range settings {
		flags = append(flags, &cli.StringFlag{Name: s.flag, Value: s.write(s.value), Usage: s.usage + " (or " + s.variable + ")"})
	}
	return flags
}

// budgetsOf are those of a command line. A budget that the store does not have may be in the environment, for other mounts, but not be asked for here.
func budgetsOf(c *cli.Context, address storeAddress) (b budgets, err error) {
	for _, s := range settings {
		value := s.value
		text, from := os.Getenv(s.variable), s.variable
		if c.IsSet(s.flag) {
			text, from = c.String(s.flag), "--"+s.flag
		}
		missing := s.database && address.database == ""
		switch {
		case missing && c.IsSet(s.flag):
			return b, usageFailure(c, fmt.Errorf("--%s goes with a store in a database", s.flag))
		case missing:
			continue
		case text != "" || c.IsSet(s.flag):
			if value, err = s.read(text); err != nil {
				return b, usageFailure(c, fmt.Errorf("%s: %w", from, err))
			}
		}
		*s.budget(&b) = value
	}
	return b, nil
}

// settingOf is the setting that an option of mount(8) sets, or nil.
func settingOf(option string) *setting {
	for i, s := range settings {
		if strings.ReplaceAll(s.flag, "-", "_") == option {
			return &settings[i]
		}
	}
	return nil
}

// sizeUnits are the letters that a size may end with, in the order of shifts by ten bits.
const sizeUnits = "KMG"

// read reads a value.
func (s setting) read(text string) (int64, error) {
	number, shift := text, 0
	if s.size && text != "" {
		if i := strings.IndexByte(sizeUnits, text[len(text)-1]&^0x20); i >= 0 { // lower case too
			number, shift = text[:len(text)-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && n > math.MaxInt64>>shift:
		n = math.MaxInt64
	case err != nil && s.size:
		return 0, fmt.Errorf("%q is no size: write it as 500K, 64M or 2G", text)
	case err != nil:
		return 0, fmt.Errorf("%q is no number", text)
	default:
		n <<= shift
	}
	if n < s.least || n > s.most {
		return 0, fmt.Errorf("%s is not from %s to %s", text, s.write(s.least), s.write(s.most))
	}
	return n, nil
}

// write writes a value as read reads it.
func (s setting) write(n int64) string {
	unit := 0
	for s.size && unit < len(sizeUnits) && n != 0 && n%1024 == 0 {
		n >>= 10
		unit++
	}
	return strconv.FormatInt(n, 10) + sizeUnits[max(unit-1, 0):unit]
}
