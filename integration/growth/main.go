// The program growth shows how what an operation on a drive in Postgres costs grows with the drive, with the number of drives, and with what is
// in them. It fills databases of a private server by SQL, does the same operations on each size in turn, and prints tables; with -plot it draws
// them too. `make growth` runs it.
//
// Each size has a database of its own, since the drives of one share its indexes. Everything fits in this machine's memory and is read from there: what is
// measured is the work, not the disk. The server waits for no disk either (fsync=off), which would hide a difference behind a constant.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// flat is how much more than at the smallest size an operation may cost to count as flat.
const flat = 1.3

func main() {
	var p plan
	flag.StringVar(&p.unit, "axis", "", "measure one `AXIS` alone: files, drives or GB")
	flag.IntVar(&p.share, "share", 1, "leave the sizes out that are larger than 1/`N` of the largest")
	flag.IntVar(&p.rounds, "rounds", 9, "`N` rounds, of which the median counts")
	flag.DurationVar(&p.limit, "limit", 12*time.Minute, "give up after this `DURATION`")
	plot := flag.String("plot", "", "draw the tables into this `FILE`, an SVG")
	flag.Parse()
	if err := run(p, *plot); err != nil {
		progress("growth: %v", err)
		os.Exit(1)
	}
}

func run(p plan, plot string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	results, err := p.measure(ctx)
	if len(results) == 0 {
		return err
	}
	// What was measured before an error is told too, but not drawn.
	_, said := fmt.Print(report(results))
	if err == nil && plot != "" {
		err = os.WriteFile(plot, drawing(results), 0o644)
	}
	return errors.Join(err, said)
}

// progress tells whoever waits.
func progress(format string, args ...any) { _, _ = fmt.Fprintf(os.Stderr, format+"\n", args...) }
