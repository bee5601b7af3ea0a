package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A job is workers at work in a process of their own. Were they in this one, every process that it starts would have what they have open for a
// moment, and close it as it begins; while the database is away that waits, and so the database could not be started.
type job struct {
	folder  string
	cmd     *exec.Cmd
	orders  *json.Encoder
	reports chan report
	refused int           // operations that the quota refused, once it has finished
	moment  chan struct{} // closed when as many operations have begun as the seed says
	end     func()        // of the process
}

// An order is what a job is told to do.
type order struct {
	Exhaust        bool          // wait until an operation of each worker has failed
	Finish         bool          // stop after the operations that go on
	Limit          time.Duration // of how long one of them may have taken
	Check          bool
	Crashed, Exact bool
}

// A report is what a job says: when its moment has come, and after each order.
type report struct {
	Moment        bool
	Failed, Wrong []string
	Refused       int // by the quota
}

const (
	workersOfAJob  = 4
	mostOperations = 300 // before the moment of a fault
)

func init() { helpers["job"] = runJob }

// startJob sets workers to work in a new folder of a mount.
func startJob(t *testing.T, m *mount, name string, seed uint64) *job {
	t.Helper()
	return startJobThat(t, m, name, seed, false)
}

// startShortJob is startJob for workers who end at their moment, each with the operation that they are at. A history can't say what a crash
// of the database may undo of operations that were done partly before it and partly after.
func startShortJob(t *testing.T, m *mount, name string, seed uint64) *job {
	t.Helper()
	return startJobThat(t, m, name, seed, true)
}

func startJobThat(t *testing.T, m *mount, name string, seed uint64, ends bool) *job {
	t.Helper()
	j := &job{folder: m.path(name), reports: make(chan report, 1), moment: make(chan struct{})}
	check(t, unix.Mkdir(j.folder, 0o755))
	after := 1 + rand.New(rand.NewPCG(seed, 0)).Int64N(mostOperations)
	j.cmd = helper(t, "job", j.folder, strconv.FormatUint(seed, 10), strconv.FormatInt(after, 10),
		strconv.FormatBool(ends), strconv.FormatBool(m.s.kind == folder))
	stdin, err := j.cmd.StdinPipe()
	check(t, err)
	stdout, err := j.cmd.StdoutPipe()
	check(t, err)
	check(t, j.cmd.Start())
	j.orders = json.NewEncoder(stdin)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(j.reports)
		said := json.NewDecoder(stdout)
		for {
			var a report
			if said.Decode(&a) != nil {
				return
			}
			if a.Moment {
				close(j.moment)
			} else {
				j.reports <- a
			}
		}
	})
	j.end = sync.OnceFunc(func() {
		_ = stdin.Close() // tells it to end
		reading.Wait()
		if err := j.cmd.Wait(); err != nil {
			t.Errorf("the job in %s: %v", j.folder, err)
		}
	})
	t.Cleanup(func() {
		_ = j.cmd.Process.Kill() // or it has ended
		stdin.Close()
	})
	return j
}

// awaitMoment returns when it has come.
func (j *job) awaitMoment(t *testing.T) {
	t.Helper()
	select {
	case <-j.moment:
	case a := <-j.reports:
		t.Fatalf("the job in %s ended before its moment: %v %v", j.folder, a.Failed, a.Wrong)
	case <-time.After(deadline):
		t.Fatalf("the moment of the job in %s did not come", j.folder)
	}
}

// ask gives an order and returns the report.
func (j *job) ask(t *testing.T, o order) report {
	t.Helper()
	check(t, j.orders.Encode(o))
	select {
	case a, ok := <-j.reports:
		if !ok {
			t.Fatalf("the job in %s is gone", j.folder)
		}
		return a
	case <-time.After(deadline):
		t.Fatalf("the job in %s does not report: an operation hangs", j.folder)
		panic("unreachable")
	}
}

// finish stops the workers and returns what ended them before. It fails the test if they found what can't be, or if an operation took
// longer than limit.
func (j *job) finish(t *testing.T, limit time.Duration) (failed []string) {
	t.Helper()
	a := j.ask(t, order{Finish: true, Limit: limit})
	for _, wrong := range a.Wrong {
		t.Error(wrong)
	}
	j.refused = a.Refused
	return a.Failed
}

// exhaust waits until no worker can go on, and is finish then.
func (j *job) exhaust(t *testing.T, limit time.Duration) (failed []string) {
	t.Helper()
	j.ask(t, order{Exhaust: true})
	return j.finish(t, limit)
}

// check fails the test unless all folders are as the histories of their workers allow.
func (j *job) check(t *testing.T, crashed, exact bool) {
	t.Helper()
	for _, wrong := range j.ask(t, order{Check: true, Crashed: crashed, Exact: exact}).Wrong {
		t.Error(wrong)
	}
}

// runJob is the job's process.
func runJob(args []string) error {
	seed, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	after, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return err
	}
	c, err := assemble(args[0], seed, after, args[3] == "true", args[4] == "true")
	if err != nil {
		return err
	}
	var mu sync.Mutex // one says something at a time
	said := json.NewEncoder(os.Stdout)
	say := func(a report) error {
		mu.Lock()
		defer mu.Unlock()
		return said.Encode(a)
	}
	c.start()
	go func() { // ends with the process
		<-c.moment
		_ = say(report{Moment: true}) // who listens may be gone
	}()
	orders := json.NewDecoder(os.Stdin)
	for {
		var o order
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil // it is not needed any more
		} else if err != nil {
			return err
		}
		var a report
		switch {
		case o.Exhaust:
			c.done.Wait()
		case o.Finish:
			a.Failed, a.Wrong, a.Refused = c.finish(o.Limit)
		case o.Check:
			a.Wrong = c.check(o.Crashed, o.Exact)
		default:
			return fmt.Errorf("no such order: %+v", o)
		}
		if err := say(a); err != nil {
			return err
		}
	}
}
