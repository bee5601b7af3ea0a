// The program growth shows how what an operation on a drive in Postgres costs grows with the drive, with the number of drives, and with what is
// in them. It fills databases of a private server by SQL, does the same operations on each size in turn, and prints tables; with -plot it draws
// them too. `make growth` runs it.
//
// Each size has a database of its own, since the drives of one share its indexes. Everything fits in this machine's memory and is read from there: what is
// measured is the work, not the disk. The server waits for no disk either (fsync=off), which would hide a difference behind a constant.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// flat is how much more than at the smallest size an operation may cost to count as flat.
const flat = 1.3

func main() {
	var p plan
	flag.IntVar(&p.share, "share", 1, "leave the sizes out that are larger than 1/`N` of the largest")
	flag.IntVar(&p.rounds, "rounds", 9, "`N` rounds, of which the median counts")
	flag.DurationVar(&p.limit, "limit", 12*time.Minute, "give up after this `DURATION`")
	plot := flag.String("plot", "", "draw the tables into this `FILE`, an SVG")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, p, *plot); err != nil {
		fmt.Fprintln(os.Stderr, "growth:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, p plan, plot string) error {
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	results, err := p.measure(ctx)
	if err != nil {
		return err
	}
	for _, r := range results {
		if err := r.print(os.Stdout); err != nil {
			return err
		}
	}
	printSteep(os.Stdout, results)
	if plot == "" {
		return nil
	}
	return os.WriteFile(filepath.Clean(plot), drawing(results), 0o644)
}

// printSteep says which operations cost more than flat allows.
func printSteep(to *os.File, results []result) {
	var steep []string
	for _, r := range results {
		for _, l := range r.lines {
			if most := slices.Max(l.relative()); most > flat {
				steep = append(steep, fmt.Sprintf("%s, %s, %s: %.2f", r.axis.name, r.state, l.operation, most))
			}
		}
	}
	if len(steep) == 0 {
		fmt.Fprintf(to, "Every operation is flat: no size costs more than %.1f times the smallest.\n", flat)
		return
	}
	fmt.Fprintf(to, "Above %.1f times the smallest:\n\n", flat)
	for _, s := range steep {
		fmt.Fprintf(to, "- %s\n", s)
	}
}
