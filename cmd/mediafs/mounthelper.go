package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// helperName is the name by which mount(8) calls the program for a file system of type mediafs, in fstab(5) or after -t. It
// is a symbolic link in /sbin, and the call is that of mount(8), section "EXTERNAL HELPERS":
//
//	mount.mediafs SOURCE DIR [-sfnv] [-N namespace] [-t type] [-o options]
const helperName = "mount.mediafs"

// What a helper exits with: mount(8), section "EXIT STATUS", hands it on.
const (
	helperUsage  exitCode = 1
	helperFailed exitCode = 32
)

// A helperCall is what mount(8) asks for.
type helperCall struct {
	source, dir string
	options     []string
	fake        bool // check everything, mount nothing
	sloppy      bool // pass over options that are not known
	verbose     bool
}

// ignoredOptions are those that mount(8) itself carries out, and those that hold for every drive: nothing on a drive is
// set-user-ID or a device, and times of access are the store's to keep.
var ignoredOptions = map[string]bool{
	"": true, "defaults": true, "auto": true, "noauto": true, "nofail": true, "_netdev": true, "comment": true,
	"user": true, "users": true, "nouser": true, "owner": true, "group": true,
	"nosuid": true, "nodev": true, "async": true, "silent": true, "loud": true,
	"atime": true, "noatime": true, "diratime": true, "nodiratime": true, "relatime": true, "norelatime": true,
	"strictatime": true, "nostrictatime": true, "lazytime": true, "nolazytime": true,
}

// calledAsHelper says whether mount(8) called the program.
func calledAsHelper(args []string) bool { return len(args) > 0 && filepath.Base(args[0]) == helperName }

// runHelper does what mount(8) asks for, as `mediafs mount --daemon` does it. It prints nothing when all is well, unless
// asked to be verbose.
func runHelper(args []string, stdout, stderr io.Writer) exitCode {
	failed := func(err error, code exitCode) exitCode {
		tell(stderr, err.Error())
		return code
	}
	call, err := parseHelperCall(args[1:])
	if err != nil {
		return failed(err, helperUsage)
	}
	command, noexec, err := call.command()
	if err != nil {
		return failed(err, helperUsage)
	}
	if call.fake {
		return exitOK
	}
	if !call.verbose {
		stdout = io.Discard
	}
	switch run(command, stdout, stderr) {
	case exitOK:
	case exitUsage:
		return helperUsage
	default:
		return helperFailed
	}
	if noexec {
		if err := forbidPrograms(call.dir); err != nil {
			return failed(err, helperFailed)
		}
	}
	return exitOK
}

func helperFailure(why, way string) error {
	return &failure{code: exitUsage, what: helperName, why: errors.New(why), way: way}
}

// parseHelperCall reads the arguments after the name.
func parseHelperCall(args []string) (c helperCall, err error) {
	var positional []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if len(arg) < 2 || arg[0] != '-' {
			positional = append(positional, arg)
			continue
		}
	letters:
		for i, letter := range arg[1:] {
			switch letter {
			case 's':
				c.sloppy = true
			case 'f':
				c.fake = true
			case 'n': // there is no mtab to leave alone
			case 'v':
				c.verbose = true
			case 'o', 't', 'N':
				value := arg[1+i+1:]
				if value == "" {
					if len(args) == 0 {
						return c, helperFailure(fmt.Sprintf("-%c lacks its value", letter), "")
					}
					value, args = args[0], args[1:]
				}
				switch {
				case letter == 'o':
					c.options = append(c.options, strings.Split(value, ",")...)
				case letter == 'N':
					return c, helperFailure("can't mount in another namespace", "enter it first: nsenter --mount=FILE mount ...")
				case value != "mediafs":
					return c, helperFailure(fmt.Sprintf("there is no type %q", value), "use mediafs")
				}
				break letters
			default:
				return c, helperFailure(fmt.Sprintf("there is no flag -%c", letter), "use mount.mediafs STORE MOUNTPOINT -o token_file=FILE,...")
			}
		}
	}
	if len(positional) != 2 {
		return c, helperFailure(fmt.Sprintf("there are %d arguments, not 2", len(positional)), "use mount.mediafs STORE MOUNTPOINT -o token_file=FILE,...")
	}
	c.source, c.dir = positional[0], positional[1]
	return c, nil
}

// command is the command line of `mediafs mount` that does the same, and whether programs on the drive must not be run.
func (c helperCall) command() (args []string, noexec bool, err error) {
	if _, err := parseStore(c.source); err != nil {
		return nil, false, err
	}
	args = []string{"mediafs", "mount", "--daemon", "--store", c.source}
	bad := func(option, why string) ([]string, bool, error) {
		return nil, false, helperFailure(fmt.Sprintf("option %q: %s", option, why), "")
	}
	hasToken := os.Getenv(tokenVariable) != ""
	var readOnly, allowOther bool
	for _, option := range c.options {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "token_file":
			if !filepath.IsAbs(value) {
				return bad(option, "write the file's absolute path")
			}
			args, hasToken = append(args, "--token-file", value), true
		case "guest", "all_users":
			args, hasToken = append(args, "--"+strings.ReplaceAll(name, "_", "-")), true
		case "users_file":
			if !filepath.IsAbs(value) {
				return bad(option, "write the file's absolute path")
			}
			args = append(args, "--users-file", value)
		case "passthrough":
			args = append(args, "--passthrough")
		case "auth":
			if value == "" {
				return bad(option, "write the application's address")
			}
			args = append(args, "--auth", value)
		case "timeout":
			if d, err := time.ParseDuration(value); err != nil || d <= 0 {
				return bad(option, "write a duration, as 30s or 2m")
			}
			args = append(args, "--timeout", value)
		case "log_level":
			if err := new(slog.Level).UnmarshalText([]byte(value)); err != nil {
				return bad(option, "the levels are debug, info, warn and error")
			}
			args = append(args, "--log-level", value)
		case "metrics":
			if _, err := parseMetricsAddress(value); err != nil {
				return bad(option, err.Error())
			}
			if path, ok := strings.CutPrefix(value, "unix:"); ok && !filepath.IsAbs(path) {
				return bad(option, "write the socket's absolute path")
			}
			args = append(args, "--metrics", value)
		case "allow_other":
			allowOther = true
		case "ro", "rw":
			readOnly = name == "ro"
		case "noexec", "exec":
			noexec = name == "noexec"
		default:
			if s := settingOf(name); s != nil {
				if _, err := s.read(value); err != nil {
					return bad(option, err.Error())
				}
				args = append(args, "--"+s.flag, value)
				continue
			}
			if !ignoredOptions[name] && !strings.HasPrefix(strings.ToLower(name), "x-") && !c.sloppy {
				return bad(option, "is not known")
			}
		}
	}
	switch {
	case !hasToken:
		return nil, false, helperFailure("no token is given", "add the option token_file=FILE, guest or all_users")
	case noexec && os.Geteuid() != 0:
		return nil, false, helperFailure("only root can mount a drive noexec", "write exec after user in the options")
	}
	if readOnly {
		args = append(args, "--read-only")
	}
	if allowOther {
		args = append(args, "--allow-other")
	}
	return append(args, "--", c.dir), noexec, nil
}

// forbidPrograms makes a mounted drive noexec. If that can't be done it is unmounted again.
func forbidPrograms(mountpoint string) error {
	var st unix.Statfs_t
	err := unix.Statfs(mountpoint, &st)
	if err == nil {
		kept := uintptr(st.Flags) & unix.ST_RDONLY // a remount sets all flags; those of statfs(2) have the numbers of mount(2)
		err = unix.Mount("", mountpoint, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|kept, "")
	}
	if err == nil {
		return nil
	}
	return &failure{code: exitMountpoint, what: "noexec on " + mountpoint, why: errors.Join(err, unix.Unmount(mountpoint, unix.UMOUNT_NOFOLLOW))}
}
