// The program bench does what people do with a library, on every kind of drive there is and on whatever else is given, and prints how fast each was,
// side by side. `make bench` runs it; docs/benchmarks.md says what each step does and keeps the last table.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
)

// A plan is what is to be measured.
type plan struct {
	program  string // the built mediafs
	runs     int
	scale    int // the data is so many times smaller
	steps    *regexp.Regexp
	targets  []string
	peers    []string // name=/dir
	peerCold string   // a command that makes a peer cold: its name and folder are its arguments
	dir      string   // where everything is kept
}

var targetNames = []string{"ext4", "loopback", "folders", "passthrough", "postgres", "raw"}

func main() {
	if len(os.Args) == 4 && os.Args[1] == loopbackCommand {
		exit(serveLoopback(os.Args[2], os.Args[3]))
	}
	p := plan{}
	steps, targets, mode := "", "", ""
	flag.StringVar(&p.program, "program", "bin/mediafs", "the built `PROGRAM`")
	flag.IntVar(&p.runs, "runs", 3, "`N` runs, of which the median is given and the least and the most")
	flag.IntVar(&p.scale, "scale", 1, "1/`N` of the data, for a quick look")
	flag.StringVar(&steps, "steps", "", "only steps that match this `REGEXP`")
	flag.StringVar(&targets, "targets", strings.Join(targetNames, ","), "`LIST` of what is measured, besides PEERS")
	flag.StringVar(&mode, "mode", "table", "`MODE`: table, clients (1 to 16 at a time) or cpu (where the time of each step goes)")
	flag.Parse()
	p.steps = regexp.MustCompile(steps)
	p.targets = strings.Split(targets, ",")
	p.peers = strings.Fields(os.Getenv("PEERS"))
	p.peerCold = os.Getenv("PEER_COLD")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if p.dir, err = os.MkdirTemp("", "mediafs-bench"); err != nil {
		exit(err)
	}
	err = os.Chmod(p.dir, 0o755)
	if err == nil {
		switch mode {
		case "table":
			err = p.table(ctx, os.Stdout)
		case "clients":
			err = p.clients(ctx, os.Stdout)
		case "cpu":
			err = p.cpu(ctx, os.Stdout)
		default:
			err = fmt.Errorf("there is no mode %q", mode)
		}
	}
	if removing := os.RemoveAll(p.dir); err == nil {
		err = removing
	}
	exit(err)
}

func exit(err error) {
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// progress tells whoever waits.
func progress(format string, args ...any) { _, _ = fmt.Fprintf(os.Stderr, format+"\n", args...) }
