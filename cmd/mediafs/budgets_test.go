package main

import (
	"io"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// optionsOf is what a command line of mount comes to.
func optionsOf(t *testing.T, args ...string) mountOptions {
	t.Helper()
	app := newApp(io.Discard, io.Discard)
	var o mountOptions
	for _, command := range app.Commands {
		if command.Name == "mount" {
			command.Action = func(c *cli.Context) (err error) {
				o, err = mountOptionsOf(c)
				return err
			}
		}
	}
	if err := app.Run(flagsFirst(app, append([]string{"mediafs", "mount", "--guest", t.TempDir()}, args...))); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestBudgetsAreThoseOfTheFlagsElseOfTheEnvironmentElseTheDefaults(t *testing.T) {
	isolate(t)
	database := []string{"--store", "postgres://app@localhost/media"}
	want := budgets{Pending: 64 << 20, ReadAhead: 32 << 20, Requests: 64 << 20, Connections: 6, OpenDrives: 64}
	if got := optionsOf(t, database...).Budgets; got != want {
		t.Errorf("by default: got %+v, want %+v", got, want)
	}
	if got := want.memory(); got != 256<<20 {
		t.Errorf("with them the program keeps within %d MiB, want 256", got>>20)
	}
	for variable, value := range map[string]string{
		"MEDIAFS_PENDING": "8m", "MEDIAFS_READ_AHEAD": "1048576", "MEDIAFS_REQUESTS": "16384K", "MEDIAFS_CONNECTIONS": "2", "MEDIAFS_OPEN_DRIVES": "1000",
	} {
		t.Setenv(variable, value)
	}
	want = budgets{Pending: 8 << 20, ReadAhead: 1 << 20, Requests: 16 << 20, Connections: 2, OpenDrives: 1000}
	if got := optionsOf(t, database...).Budgets; got != want {
		t.Errorf("of the environment: got %+v, want %+v", got, want)
	}
	want = budgets{Pending: 2 << 30, ReadAhead: 1 << 20, Requests: 16 << 20, Connections: 20, OpenDrives: 1}
	if got := optionsOf(t, append(database, "--pending", "2G", "--connections=20", "--open-drives", "1")...).Budgets; got != want {
		t.Errorf("of the flags: got %+v, want %+v", got, want)
	}
	// What is in the environment may be meant for other mounts.
	want = budgets{Requests: 16 << 20, OpenDrives: 1000}
	if got := optionsOf(t, "--store", newStore(t)).Budgets; got != want {
		t.Errorf("of a store of folders: got %+v, want %+v", got, want)
	}
}

func TestABudgetThatCannotBeIsRefused(t *testing.T) {
	isolate(t)
	const database = "postgres://app@localhost/media"
	mount := func(args ...string) outcome {
		return mediafs(t, append([]string{"mount", "--guest", t.TempDir()}, args...)...)
	}
	for _, c := range []struct{ option, value, want string }{
		{"pending", "", `"" is no size: write it as 500K, 64M or 2G`},
		{"pending", "much", `"much" is no size`},
		{"pending", "M", `"M" is no size`},
		{"pending", "64MB", `"64MB" is no size`},
		{"pending", "1.5G", `"1.5G" is no size`},
		{"pending", "64 M", `"64 M" is no size`},
		{"pending", "-64M", "-64M is not from 8M to 1024G"},
		{"pending", "64", "64 is not from 8M to 1024G"},
		{"pending", "99999999999999999999", "is not from 8M to 1024G"},
		{"pending", "9999999999999999999G", "is not from 8M to 1024G"},
		{"pending", "9223372036854775807K", "is not from 8M to 1024G"},
		{"read-ahead", "0", "0 is not from 1M to 1024G"},
		{"requests", "1M", "1M is not from 8M to 1024G"},
		{"connections", "1", "1 is not from 2 to 1000"},
		{"connections", "8M", `"8M" is no number`},
		{"connections", "many", `"many" is no number`},
		{"open-drives", "0", "0 is not from 1 to 100000"},
	} {
		wantError(t, mount("--store", database, "--"+c.option+"="+c.value), exitUsage, "mount: --"+c.option+": ", c.want, "see `mediafs mount --help`")
		variable := settingOf(strings.ReplaceAll(c.option, "-", "_")).variable
		if c.value != "" { // which is not set
			t.Setenv(variable, c.value)
			wantError(t, mount("--store", database), exitUsage, "mount: "+variable+": ", c.want)
			t.Setenv(variable, "")
		}
		option := strings.ReplaceAll(c.option, "-", "_") + "=" + c.value
		got := helper(t, database, "/mnt", "-o", "guest,"+option)
		if got.code != helperUsage || !strings.Contains(got.stderr, c.want) {
			t.Errorf("mount -o %s: got %+v, want code %d and %q", option, got, helperUsage, c.want)
		}
	}
	for _, flag := range []string{"--pending=64M", "--read-ahead=64M", "--connections=8"} {
		name, _, _ := strings.Cut(flag, "=")
		wantError(t, mount("--store", newStore(t), flag), exitUsage, name+" goes with a store in a database")
	}
}
