package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// clientCounts are how many clients work on one mount.
var clientCounts = []int{1, 2, 4, 8, 16}

// shared is how many clients there are on one mount, and then on two together.
const shared = 8

// clientFolders are shared out evenly among the clients, so that folders are as large for few as for many.
const clientFolders = 16

// slower is how much of the best rate of fewer clients more of them have to reach; what is missing to 1 is noise.
const slower = 0.9

// starved is how many times the median the p99 of a client may be.
const starved = 10

// A clientStep is what several clients do at the same time, each in folders of its own.
type clientStep struct {
	name  string
	unit  string
	total int // operations of all clients together: as much is done by few as by many
	cold  bool
	big   bool // an operation is as many units as the big file has megabytes, else one
	do    func(ctx context.Context, folder string, i int, d *data) error
}

// clientSteps are done in this order: each finds the files that one before it has made.
var clientSteps = []clientStep{
	{name: "create, write and close 4 KB", unit: "files/s", total: 8000, do: func(ctx context.Context, folder string, i int, d *data) error {
		return copyIn(ctx, filepath.Join(folder, fileName(filePrefix, i)), d.small[i%len(d.small)], false)
	}},
	{name: "write 16 MB", unit: "MB/s", total: 32, big: true, do: func(ctx context.Context, folder string, i int, d *data) error {
		return copyIn(ctx, filepath.Join(folder, fileName("big", i)), d.big, false)
	}},
	{name: "read 4 KB files, cold", unit: "files/s", total: 8000, cold: true, do: func(ctx context.Context, folder string, i int, d *data) error {
		return readBack(ctx, filepath.Join(folder, fileName(filePrefix, i)), d.small[i%len(d.small)], make([]byte, 2*blockSize))
	}},
	{name: "stat, cold", unit: "ops/s", total: 8000, cold: true, do: func(_ context.Context, folder string, i int, _ *data) error {
		_, err := os.Stat(filepath.Join(folder, fileName(filePrefix, i)))
		return err
	}},
	{name: "rename", unit: "ops/s", total: 8000, do: func(_ context.Context, folder string, i int, _ *data) error {
		return os.Rename(filepath.Join(folder, fileName(filePrefix, i)), filepath.Join(folder, fileName(newPrefix, i)))
	}},
	{name: "unlink", unit: "ops/s", total: 8000, do: func(_ context.Context, folder string, i int, _ *data) error {
		return os.Remove(filepath.Join(folder, fileName(newPrefix, i)))
	}},
}

// A clientSample is one step of several clients, done once.
type clientSample struct {
	Step    string      `json:"step"`
	Target  string      `json:"target"`
	Clients int         `json:"clients"`
	Mounts  int         `json:"mounts"`
	Run     int         `json:"run"`
	Unit    string      `json:"unit"`
	Amount  float64     `json:"amount"`
	Seconds float64     `json:"seconds"`
	Each    [][]float64 `json:"each"` // seconds of each operation, by client
}

func (s *clientSample) rate() float64 { return s.Amount / s.Seconds }

// all are the times of all operations.
func (s *clientSample) all() []float64 { return slices.Concat(s.Each...) }

// enough is how many operations of a client have a p99 that says something.
const enough = 100

// starves says whether a client waits much longer for some operations than for others.
func starves(s *clientSample) bool {
	return len(s.Each[0]) >= enough && s.worst() > starved
}

// worst is the largest ratio of p99 to median that a client has.
func (s *clientSample) worst() (ratio float64) {
	for _, each := range s.Each {
		ratio = max(ratio, percentile(each, 0.99)/median(each))
	}
	return ratio
}

// evenness is how much of the faster mount's rate the slower has, where there are two.
func (s *clientSample) evenness() float64 {
	half := len(s.Each) / 2
	var took [2]float64
	for i, each := range s.Each {
		sum := 0.0
		for _, seconds := range each {
			sum += seconds
		}
		took[i/half] = max(took[i/half], sum)
	}
	return min(took[0], took[1]) / max(took[0], took[1])
}

func countOf(samples []clientSample, is func(*clientSample) bool) (n int) {
	for i := range samples {
		if is(&samples[i]) {
			n++
		}
	}
	return n
}

// percentile is the smallest value that is not exceeded by this part of them.
func percentile(values []float64, part float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(float64(len(sorted))*part))]
}

// concurrency measures clients on one mount and on two, on each target that is selected. What is no drive, and shows what the machine itself does, is
// measured with one alone.
func concurrency(ctx context.Context, w *workshop, o options, stdout, stderr io.Writer) error {
	columns, err := w.columns(ctx)
	if err != nil {
		return err
	}
	columns = slices.DeleteFunc(columns, func(c column) bool {
		_, isDrive := c.target.(*library)
		_, isPlace := c.target.(clientPlace)
		return !isDrive && !isPlace
	})
	var samples []clientSample
	for run := range o.runs {
		for _, c := range columns {
			got, err := w.clients(ctx, c, run, o, progress{stderr})
			samples = append(samples, got...)
			if err != nil {
				return errors.Join(fmt.Errorf("%s: %w", c.heading, err), save(o.json, samples))
			}
		}
	}
	if err := save(o.json, samples); err != nil {
		return err
	}
	text := w.machine(o) + "\n"
	for _, c := range columns {
		text += clientTables(c, o, samples)
	}
	_, err = io.WriteString(stdout, text)
	return err
}

// A clientPlace is where clients have their folders.
type clientPlace interface {
	target
	path() string // of the folder that fresh has made
}

// clients makes a store with two drives, if the target is one, and measures.
func (w *workshop) clients(ctx context.Context, c column, run int, o options, progress progress) (samples []clientSample, err error) {
	var places []clientPlace
	switch t := c.target.(type) {
	case clientPlace:
		places = append(places, t)
	case *library:
		store, err := t.open(ctx)
		if err != nil {
			return nil, err
		}
		defer func() {
			for _, p := range places {
				err = errors.Join(err, p.close())
			}
			if err == nil {
				err = t.clear(ctx)
			}
		}()
		for _, user := range []string{"alice", "bob"} {
			m, err := store.drive(ctx, user, t.options...)
			if err != nil {
				return nil, err
			}
			places = append(places, m)
		}
	}
	d := newData(o.seed+uint64(run), o.scale)
	measure := func(places []clientPlace, number, clients int) error {
		got, err := w.measureClients(ctx, places, number, clients, d, o, func(s clientSample) {
			progress.say("run %d  %-28s %-30s %2d clients on %d: %10s %s", run+1, c.heading, s.Step, s.Clients, s.Mounts, figure(s.rate()), s.Unit)
		})
		for i := range got {
			got[i].Target, got[i].Run = c.key, run
		}
		samples = append(samples, got...)
		return err
	}
	for i, n := range clientCounts {
		if err := measure(places[:1], run*(len(clientCounts)+1)+i, n); err != nil {
			return samples, err
		}
	}
	if len(places) == 1 {
		return samples, nil
	}
	return samples, measure(places, run*(len(clientCounts)+1)+len(clientCounts), shared)
}

// measureClients does all steps with so many clients, who are shared out among the mounts.
func (w *workshop) measureClients(ctx context.Context, places []clientPlace, number, clients int, d *data, o options, report func(clientSample)) (samples []clientSample, err error) {
	folders := make([][]string, clients) // of each client
	for i, p := range places {
		if err := p.fresh(ctx, number); err != nil {
			return nil, err
		}
		of := folders[i*clients/len(places) : (i+1)*clients/len(places)]
		for n := range clientFolders / len(places) {
			folder := filepath.Join(p.path(), fileName("folder", n))
			if err := os.Mkdir(folder, 0o755); err != nil {
				return nil, err
			}
			of[n%len(of)] = append(of[n%len(of)], folder)
		}
	}
	for i := range clientSteps {
		s := &clientSteps[i]
		if err := w.settle(ctx); err != nil {
			return samples, err
		}
		for _, p := range places {
			if !s.cold {
				continue
			}
			if err := p.forget(ctx); err != nil {
				return samples, err
			}
		}
		got, err := atTheSameTime(ctx, s, folders, max(1, scaled(s.total, o.scale)/clientFolders), d)
		if err != nil {
			return samples, fmt.Errorf("%s, %d clients: %w", s.name, clients, err)
		}
		got.Mounts = len(places)
		if o.steps.MatchString(s.name) {
			report(got)
			samples = append(samples, got)
		}
	}
	for _, p := range places {
		if err := p.clear(ctx); err != nil {
			return samples, err
		}
	}
	return samples, nil
}

// atTheSameTime has each client do the step so many times in each of its folders, all from the same moment on.
func atTheSameTime(ctx context.Context, s *clientStep, folders [][]string, times int, d *data) (clientSample, error) {
	got := clientSample{Step: s.name, Clients: len(folders), Unit: s.unit, Amount: float64(times * clientFolders), Each: make([][]float64, len(folders))}
	if s.big {
		got.Amount *= float64(len(d.big)) / megabyte
	}
	errs := make([]error, len(folders))
	begin := make(chan struct{})
	var clients sync.WaitGroup
	for c := range folders {
		clients.Go(func() {
			<-begin
			errs[c] = func() error {
				for _, folder := range folders[c] {
					for i := range times {
						if ctx.Err() != nil {
							return context.Cause(ctx)
						}
						before := time.Now()
						if err := s.do(ctx, folder, i, d); err != nil {
							return err
						}
						got.Each[c] = append(got.Each[c], time.Since(before).Seconds())
					}
				}
				return nil
			}()
		})
	}
	start := time.Now()
	close(begin)
	clients.Wait()
	got.Seconds = time.Since(start).Seconds()
	return got, errors.Join(errs...)
}

// clientTables are the tables of one target, and what does not hold.
func clientTables(c column, o options, samples []clientSample) string {
	find := func(step string, clients, mounts int) (found []clientSample) {
		for _, s := range samples {
			if s.Target == c.key && s.Step == step && s.Clients == clients && s.Mounts == mounts {
				found = append(found, s)
			}
		}
		return found
	}
	over := func(samples []clientSample, of func(*clientSample) float64) float64 {
		var values []float64
		for i := range samples {
			values = append(values, of(&samples[i]))
		}
		return median(values)
	}
	rate := func(s []clientSample) float64 { return over(s, (*clientSample).rate) }
	worst := func(s []clientSample) float64 { return over(s, (*clientSample).worst) }
	times := func(s []clientSample) string {
		return fmt.Sprintf("%.2f / %.2f ms, %s×", 1000*over(s, func(s *clientSample) float64 { return median(s.all()) }),
			1000*over(s, func(s *clientSample) float64 { return percentile(s.all(), 0.99) }), figure(worst(s)))
	}

	heading := []string{"step", "unit"}
	for _, n := range clientCounts {
		heading = append(heading, fmt.Sprintf("%d", n))
	}
	heading = append(heading, fmt.Sprintf("%d on two mounts", shared), "slower mount / faster")
	var rates, latencies [][]string
	var broken []string
	for _, s := range clientSteps {
		if !o.steps.MatchString(s.name) {
			continue
		}
		rateRow, timesRow := []string{s.name, s.unit}, []string{s.name}
		best := 0.0
		for _, n := range clientCounts {
			found := find(s.name, n, 1)
			r := rate(found)
			rateRow, timesRow = append(rateRow, figure(r)), append(timesRow, times(found))
			if r < slower*best {
				broken = append(broken, fmt.Sprintf("%s: slower with %d clients, %s of %s", s.name, n, figure(r), figure(best)))
			}
			if starving := countOf(found, starves); 2*starving > len(found) {
				broken = append(broken, fmt.Sprintf("%s: a client of %d starves, its p99 is %s times its median", s.name, n, figure(worst(found))))
			}
			best = max(best, r)
		}
		two := find(s.name, shared, 2)
		if len(two) == 0 {
			rates, latencies = append(rates, append(rateRow, "–", "–")), append(latencies, append(timesRow, "–"))
			continue
		}
		rates = append(rates, append(rateRow, figure(rate(two)), figure(over(two, (*clientSample).evenness))))
		latencies = append(latencies, append(timesRow, times(two)))
	}
	text := fmt.Sprintf("\n%s: rate of all clients together\n\n", c.heading) + markdown(heading, rates) +
		fmt.Sprintf("\n%s: median and p99 of an operation, and the largest ratio of the two that a client has\n\n", c.heading) +
		markdown(append([]string{"step"}, heading[2:len(heading)-1]...), latencies) + "\n"
	if len(broken) == 0 {
		return text + fmt.Sprintf("%s: no step is slower with more clients, and no client starves.\n", c.heading)
	}
	for _, line := range broken {
		text += fmt.Sprintf("- %s: %s\n", c.heading, line)
	}
	return text
}
