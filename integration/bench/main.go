// Bench measures how fast drives are, beside what they are compared with: a plain folder, go-fuse's loopback, the raw database, and
// other file systems that are mounted. docs/benchmarks.md says what each step does and how to repeat the table.
//
//	go run ./integration/bench [flags]               the table
//	go run ./integration/bench concurrency [flags]   1 to 16 clients on one mount, and two mounts
//	go run ./integration/bench cpu [flags]           where each step's time goes
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

// loopbackArgument makes the program the process that serves go-fuse's loopback.
const loopbackArgument = "serve-loopback"

func main() {
	if len(os.Args) == 4 && os.Args[1] == loopbackArgument {
		exit(serveLoopback(os.Args[2], os.Args[3]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends us at once, and the kernel what we have started
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	exit(err)
}

func exit(err error) {
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// options are what the command line says.
type options struct {
	mode     string
	runs     int
	scale    float64
	seed     uint64
	targets  *regexp.Regexp
	steps    *regexp.Regexp
	json     string
	mediafs  string
	profiles string
	caches   caches
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	o.mode = "table"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		o.mode, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.runs, "runs", 3, "how often each step is done")
	flags.Float64Var(&o.scale, "scale", 1, "part of the data and of the files, for a quick try")
	flags.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "of the data")
	targets := flags.String("targets", "", "regular `expression` of the targets to measure: plain, loopback, folders, passthrough, postgres, raw, and those of PEERS")
	steps := flags.String("steps", "", "regular `expression` of the steps to report; what they need is done too")
	flags.StringVar(&o.json, "json", "", "`file` for all samples")
	flags.StringVar(&o.mediafs, "mediafs", "bin/mediafs", "the built `program`")
	flags.StringVar(&o.profiles, "profiles", "", "`folder` for what perf says of each step (cpu)")
	flags.BoolVar(&o.caches.ours, "drop-caches", true, "write out and drop the kernel's caches, which slows everything else on the machine")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	if o.runs < 1 || o.scale <= 0 {
		return o, errors.New("-runs and -scale are more than nothing")
	}
	if o.targets, err = regexp.Compile(*targets); err != nil {
		return o, fmt.Errorf("-targets: %w", err)
	}
	if o.steps, err = regexp.Compile(*steps); err != nil {
		return o, fmt.Errorf("-steps: %w", err)
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	w, err := newWorkshop(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if !o.caches.dropped() {
		progress{stderr}.say("the kernel's caches are not dropped (that takes root), so what is read cold comes from them on plain folders")
	}
	switch o.mode {
	case "table":
		return table(ctx, w, o, stdout, stderr)
	case "cpu":
		return cpu(ctx, w, o, stdout, stderr)
	case "concurrency":
		return concurrency(ctx, w, o, stdout, stderr)
	}
	return fmt.Errorf("unknown mode %q", o.mode)
}

func table(ctx context.Context, w *workshop, o options, stdout, stderr io.Writer) error {
	columns, err := w.columns(ctx)
	if err != nil {
		return err
	}
	p := &plan{columns: columns, wanted: o.steps.MatchString, runs: o.runs, scale: o.scale, seed: o.seed, settle: w.settle, progress: progress{stderr}}
	if len(p.selected()) == 0 {
		return fmt.Errorf("-steps %v selects none", o.steps)
	}
	samples, err := p.measure(ctx)
	if saving := save(o.json, samples); err != nil || saving != nil {
		return errors.Join(err, saving)
	}
	r := &results{samples}
	_, err = fmt.Fprintf(stdout, "%s\n\n%s\n%s", w.machine(o), r.rateTable(p), r.demandTable(p))
	return err
}

// save writes the samples to a file, if there is to be one.
func save(path string, samples any) error {
	if path == "" {
		return nil
	}
	text, err := json.MarshalIndent(samples, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
