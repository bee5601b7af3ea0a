package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// completionFlag is what a shell's completion puts at the end of the command line.
const completionFlag = "--generate-bash-completion"

func completing(args []string) bool { return len(args) > 0 && args[len(args)-1] == completionFlag }

// flagsFirst moves the flags of the command before its arguments, so that they may be written in any order: the library ends
// flags at the first argument. What follows "--" are arguments.
func flagsFirst(app *cli.App, args []string) []string {
	if completing(args) || len(args) < 2 {
		return args
	}
	// The words that name the command come first; those before it are flags of the program, which take no value.
	commands, flags := app.Commands, app.Flags
	at := 1
	for at < len(args) {
		if strings.HasPrefix(args[at], "-") {
			if len(flags) > 0 { // of a command found already
				break
			}
			at++
			continue
		}
		i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(args[at]) })
		if i < 0 {
			break
		}
		commands, flags = commands[i].Subcommands, commands[i].Flags
		at++
	}
	takesValue := func(arg string) bool {
		name := strings.TrimLeft(arg, "-")
		i := slices.IndexFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
		if i < 0 {
			return false // unknown, or with "=" and its value in it
		}
		_, isBool := flags[i].(*cli.BoolFlag)
		return !isBool
	}
	ordered := slices.Clone(args[:at])
	var positional []string
	for rest := args[at:]; len(rest) > 0; rest = rest[1:] {
		arg := rest[0]
		switch {
		case arg == "--":
			positional = append(positional, rest[1:]...)
			rest = rest[len(rest)-1:]
		case len(arg) < 2 || arg[0] != '-':
			positional = append(positional, arg)
		case takesValue(arg) && len(rest) > 1:
			ordered = append(ordered, arg, rest[1])
			rest = rest[1:]
		default:
			ordered = append(ordered, arg)
		}
	}
	if len(positional) > 0 {
		ordered = append(append(ordered, "--"), positional...)
	}
	return ordered
}
