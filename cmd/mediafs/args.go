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
	// The words that name the command come first, after flags of the program, which take no value.
	commands := app.Commands
	var command *cli.Command
	at := 1
	for ; at < len(args); at++ {
		if command == nil && strings.HasPrefix(args[at], "-") {
			continue
		}
		i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(args[at]) })
		if i < 0 {
			break
		}
		command, commands = commands[i], commands[i].Subcommands
	}
	if command == nil {
		return args
	}
	takesValue := func(arg string) bool {
		name := strings.TrimLeft(arg, "-")
		i := slices.IndexFunc(command.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
		if i < 0 {
			return false // unknown, or with "=" and its value in it
		}
		_, isBool := command.Flags[i].(*cli.BoolFlag)
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
