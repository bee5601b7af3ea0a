package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// clientCounts are how many clients use a mount at a time.
var clientCounts = []int{1, 2, 4, 8, 16}

// starves is how many times the median an operation may take that one of a hundred takes longer than.
const starves = 10

// An operation is what clients do over and over, each with names of its own in one folder.
type operation struct {
	name string
	n    int // how many all clients do together
	do   func(w *work, folder string, i int) error
}

var operations = []operation{
	{"create a small file", 1600, func(w *work, folder string, i int) error {
		return w.write(filepath.Join(folder, strconv.Itoa(i)), smallBytes, false)
	}},
	{"stat it", 4800, func(w *work, folder string, i int) error {
		_, err := os.Lstat(w.path(filepath.Join(folder, strconv.Itoa(i%max(1600/w.scale, 16)))))
		return err
	}},
	{"read it", 1600, func(w *work, folder string, i int) error {
		return w.read(filepath.Join(folder, strconv.Itoa(i)), smallBytes)
	}},
	{"rename it", 1600, func(w *work, folder string, i int) error {
		return os.Rename(w.path(filepath.Join(folder, strconv.Itoa(i))), w.path(filepath.Join(folder, "r"+strconv.Itoa(i))))
	}},
	{"remove it", 1600, func(w *work, folder string, i int) error {
		return os.Remove(w.path(filepath.Join(folder, "r"+strconv.Itoa(i))))
	}},
	{"write 8 MB", 32, func(w *work, folder string, i int) error {
		return w.write(filepath.Join(folder, "big"+strconv.Itoa(i)), 8<<20, false)
	}},
	{"read 8 MB", 32, func(w *work, folder string, i int) error {
		return w.read(filepath.Join(folder, "big"+strconv.Itoa(i)), 8<<20)
	}},
}

// spell is how long each of some operations took, and all of them together.
type spell struct {
	took []time.Duration // sorted
	all  time.Duration
}

func (s spell) rate() float64 { return float64(len(s.took)) / s.all.Seconds() }
func (s spell) quantile(q float64) time.Duration {
	return s.took[min(int(q*float64(len(s.took))), len(s.took)-1)]
}

// many has clients do an operation, as many at a time, spread over the folders.
func many(ctx context.Context, o operation, n, clients int, works []*work, folder string) (spell, error) {
	var mu sync.Mutex
	var s spell
	began := time.Now()
	var group errgroup.Group
	for k := range clients {
		w := works[k%len(works)]
		own := &work{dir: w.dir, random: rand.New(rand.NewPCG(rand.Uint64(), uint64(k))), noise: w.noise, scale: w.scale}
		group.Go(func() error {
			var took []time.Duration
			for i := k; i < n && ctx.Err() == nil; i += clients {
				at := time.Now()
				if err := o.do(own, folder, i); err != nil {
					return err
				}
				took = append(took, time.Since(at))
			}
			mu.Lock()
			defer mu.Unlock()
			s.took = append(s.took, took...)
			return context.Cause(ctx)
		})
	}
	err := group.Wait()
	s.all = time.Since(began)
	slices.Sort(s.took)
	return s, err
}

// clients measures each operation with more and more clients on one mount, then with two on two mounts of two drives, and says where more clients
// get less done, or one of them waits for long.
func (p *plan) clients(ctx context.Context, out io.Writer) (err error) {
	targets, cluster, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll(targets, cluster)) }()
	var b strings.Builder
	fmt.Fprintf(&b, "| target | operation | a second, with 1, 2, 4, 8, 16 clients | median, ms | 99 of 100, ms | two drives, 2 clients | |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, t := range targets {
		var second *target
		switch t.name {
		case "folders":
			second, err = p.mount(ctx, t.name, "file://"+filepath.Join(p.dir, t.name+"-store"), "bob")
		case "postgres":
			second, err = p.mount(ctx, t.name, cluster.URL("postgres"), "bob")
		default:
			continue
		}
		if second != nil {
			targets = append(targets, second)
		}
		if err != nil {
			return err
		}
		works := make([]*work, 2)
		for i, mounted := range []*target{t, second} {
			seed := rand.Uint64()
			works[i] = &work{dir: filepath.Join(mounted.dir, "clients"), random: rand.New(rand.NewPCG(seed, 0)), noise: newNoise(seed), scale: p.scale}
			if err := os.Mkdir(works[i].dir, 0o755); err != nil {
				return err
			}
		}
		results := make([][]spell, len(operations)) // of each operation: for each count, the middle of the runs; then two drives
		for c, clients := range append(slices.Clone(clientCounts), 2) {
			used := works[:1]
			if c == len(clientCounts) {
				used = works
			}
			runs := make([][]spell, len(operations))
			for n := range p.runs {
				folder := fmt.Sprintf("%d-%d", c, n)
				for _, w := range used {
					if err := os.Mkdir(w.path(folder), 0o755); err != nil {
						return err
					}
				}
				for i, o := range operations {
					total := max(o.n/p.scale, 16)
					s, err := many(ctx, o, total, clients, used, folder)
					if err != nil {
						return fmt.Errorf("%s on %s, %d at a time: %w", o.name, t.name, clients, err)
					}
					runs[i] = append(runs[i], s)
				}
			}
			for i, all := range runs {
				slices.SortFunc(all, func(a, b spell) int { return int(a.all - b.all) })
				results[i] = append(results[i], all[len(all)/2])
			}
			progress("%s: %d clients done", t.name, clients)
		}
		for i, o := range operations {
			writeClients(&b, t.name, o.name, results[i])
		}
	}
	_, err = io.WriteString(out, b.String())
	return err
}

// writeClients is the row of one operation.
func writeClients(b *strings.Builder, target, name string, results []spell) {
	var rates, medians, slow, remarks []string
	best := 0.0
	for i, s := range results {
		middle, long := s.quantile(0.5), s.quantile(0.99)
		if i < len(clientCounts) {
			rates = append(rates, number(s.rate()))
			medians = append(medians, fmt.Sprintf("%.2f", middle.Seconds()*1000))
			slow = append(slow, fmt.Sprintf("%.2f", long.Seconds()*1000))
			if s.rate() < 0.9*best {
				remarks = append(remarks, fmt.Sprintf("%d get less done than fewer", clientCounts[i]))
			}
			best = max(best, s.rate())
		}
		if len(s.took) >= 100 && long > starves*middle {
			remarks = append(remarks, fmt.Sprintf("%.0f× the median with %d", float64(long)/float64(middle), append(slices.Clone(clientCounts), 2)[i]))
		}
	}
	fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s |\n", target, name, strings.Join(rates, ", "), strings.Join(medians, ", "), strings.Join(slow, ", "),
		number(results[len(results)-1].rate()), strings.Join(remarks, "; "))
}
