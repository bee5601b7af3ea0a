package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A usage is processor time that was used, in seconds.
type usage struct{ user, system float64 }

func (u usage) minus(v usage) usage { return usage{u.user - v.user, u.system - v.system} }
func (u usage) plus(v usage) usage  { return usage{u.user + v.user, u.system + v.system} }

// ticks a second, in which the kernel tells processor time (proc_pid_stat(5), sysconf(_SC_CLK_TCK)): the same on every Linux that Go runs on.
const ticks = 100

// processUsage is what a process has used, and those of its children that have ended. It also gives the process's parent.
func processUsage(pid string) (u usage, parent string) {
	line, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return usage{}, "" // it has ended
	}
	_, after, _ := strings.Cut(string(line), ") ")
	fields := strings.Fields(after)
	at := func(i int) float64 { n, _ := strconv.ParseFloat(fields[i], 64); return n / ticks }
	return usage{at(11) + at(13), at(12) + at(14)}, fields[1]
}

// serverUsage is what a process and all its children have used.
func serverUsage(postmaster int) usage {
	total, _ := processUsage(strconv.Itoa(postmaster))
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		if u, parent := processUsage(filepath.Base(process)); parent == strconv.Itoa(postmaster) {
			total = total.plus(u)
		}
	}
	return total
}

// ownUsage is what this program has used, and the commands that it has run.
func ownUsage() usage {
	var total usage
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var r unix.Rusage
		if unix.Getrusage(who, &r) == nil {
			total = total.plus(usage{float64(r.Utime.Nano()) / 1e9, float64(r.Stime.Nano()) / 1e9})
		}
	}
	return total
}

// cpu does each step once on each target and prints whose processor time it took: of the client, of the daemon, of Postgres, each in the program and in
// the kernel, in hundredths of the time that the step took. Of two processors there are 200.
func (p *plan) cpu(ctx context.Context, out io.Writer) (err error) {
	targets, cluster, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll(targets, cluster)) }()
	postmaster := 0
	if cluster != nil {
		postmaster = cluster.Pid()
	}
	var b strings.Builder
	b.WriteString("| step | target | seconds | client | its kernel | daemon | its kernel | Postgres | its kernel |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, t := range targets {
		seed := rand.Uint64()
		w := &work{dir: filepath.Join(t.dir, fmt.Sprintf("cpu-%d", os.Getpid())), random: rand.New(rand.NewPCG(seed, 0)), noise: newNoise(seed), scale: p.scale}
		if err := os.Mkdir(w.dir, 0o755); err != nil {
			return err
		}
		for _, s := range steps {
			if !p.steps.MatchString(s.name) {
				continue
			}
			if s.cold {
				if err := t.makeCold(ctx); err != nil {
					return err
				}
			}
			all := func() (u [3]usage) {
				u[0] = ownUsage()
				if t.daemon != 0 {
					u[1], _ = processUsage(strconv.Itoa(t.daemon))
				}
				if postmaster != 0 {
					u[2] = serverUsage(postmaster)
				}
				return u
			}
			before, began := all(), time.Now()
			if _, err := s.do(ctx, w); err != nil {
				return fmt.Errorf("%s on %s: %w", s.name, t.name, err)
			}
			took, after := time.Since(began).Seconds(), all()
			fmt.Fprintf(&b, "| %s | %s | %.2f |", s.name, t.name, took)
			for i := range after {
				used := after[i].minus(before[i])
				fmt.Fprintf(&b, " %.0f | %.0f |", 100*used.user/took, 100*used.system/took)
			}
			b.WriteString("\n")
			progress("%s on %s: %.2f s", s.name, t.name, took)
		}
		if err := os.RemoveAll(w.dir); err != nil {
			return err
		}
	}
	_, err = io.WriteString(out, b.String())
	return err
}
