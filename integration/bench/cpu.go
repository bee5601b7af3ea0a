package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of times in /proc/PID/stat, whatever the kernel's own clock does: USER_HZ.
const tick = 10 * time.Millisecond

// A spent is CPU time in seconds.
type spent struct {
	User   float64 `json:"user"`
	System float64 `json:"system"`
}

func (s spent) minus(o spent) spent { return spent{s.User - o.User, s.System - o.System} }

func (s spent) plus(o spent) spent { return spent{s.User + o.User, s.System + o.System} }

// A cpuSample is what a step has taken of the CPUs.
type cpuSample struct {
	Daemon   spent `json:"daemon"`   // the process that serves the mount, if we have started it
	Postgres spent `json:"postgres"` // all processes of the server
	Client   spent `json:"client"`   // ourselves
}

// A meter is a watcher that finds out who spends the time.
type meter struct {
	w        *workshop
	profiles string // folder for profiles; "": none are made

	daemon   int // 0: there is none
	before   cpuSample
	name     string
	profiler *exec.Cmd
	command  *os.File // what is written here, perf does,
	answer   *os.File // and says so here
}

func (m *meter) begin(ctx context.Context, s *step, c column) (err error) {
	m.daemon = 0
	switch t := c.target.(type) {
	case *library:
		m.daemon = t.mount.server.cmd.Process.Pid
	case *mount:
		m.daemon = t.server.cmd.Process.Pid
	}
	m.profiler = nil
	if m.profiles != "" && m.daemon != 0 {
		m.name = strings.NewReplacer(" ", "-", ",", "").Replace(c.key + "-" + s.name)
		if err := m.profile(ctx); err != nil {
			return err
		}
	}
	m.before, err = m.now()
	return err
}

func (m *meter) end(s *sample) error {
	after, err := m.now()
	if err == nil {
		s.CPU = &cpuSample{
			Daemon:   after.Daemon.minus(m.before.Daemon),
			Postgres: after.Postgres.minus(m.before.Postgres),
			Client:   after.Client.minus(m.before.Client),
		}
	}
	if m.profiler != nil {
		err = errors.Join(err, m.report())
	}
	return err
}

func (m *meter) now() (c cpuSample, err error) {
	if m.daemon != 0 {
		if c.Daemon, _, err = spentBy(m.daemon); err != nil {
			return c, err
		}
	}
	if m.w.cluster != nil {
		// What has ended counts for the server, which waits for its processes.
		own, ended, err := spentBy(m.w.cluster.Pid())
		if err != nil {
			return c, err
		}
		c.Postgres = own.plus(ended)
		children, err := childrenOf(m.w.cluster.Pid())
		if err != nil {
			return c, err
		}
		for _, child := range children {
			own, _, err := spentBy(child)
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
				continue // ended meanwhile
			}
			if err != nil {
				return c, err
			}
			c.Postgres = c.Postgres.plus(own)
		}
	}
	var usage unix.Rusage
	err = unix.Getrusage(unix.RUSAGE_SELF, &usage)
	c.Client = spent{float64(usage.Utime.Nano()) / 1e9, float64(usage.Stime.Nano()) / 1e9}
	return c, err
}

// spentBy is what a process has spent itself, and what those have that it has waited for.
func spentBy(pid int) (own, ended spent, err error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return own, ended, err
	}
	// The name, in parentheses, may hold anything; after it come the fields from the third on, see proc_pid_stat(5).
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var seconds [4]float64
	for i := range seconds {
		ticks, err := strconv.ParseInt(fields[14-3+i], 10, 64)
		if err != nil {
			return own, ended, err
		}
		seconds[i] = (time.Duration(ticks) * tick).Seconds()
	}
	return spent{seconds[0], seconds[1]}, spent{seconds[2], seconds[3]}, nil
}

func childrenOf(pid int) (children []int, err error) {
	id := strconv.Itoa(pid)
	text, err := os.ReadFile(filepath.Join("/proc", id, "task", id, "children"))
	if err != nil {
		return nil, err
	}
	for child := range strings.FieldsSeq(string(text)) {
		n, err := strconv.Atoi(child)
		if err != nil {
			return nil, err
		}
		children = append(children, n)
	}
	return children, nil
}

// profile starts perf on the whole machine, and returns when it samples: backends of Postgres come while a step is done.
func (m *meter) profile(ctx context.Context) error {
	control, command, err := os.Pipe()
	if err != nil {
		return err
	}
	defer control.Close()
	m.command = command
	acknowledged, acknowledge, err := os.Pipe()
	if err != nil {
		return err
	}
	m.answer = acknowledged
	m.profiler = exec.CommandContext(ctx, "perf", "record", "--all-cpus", "--call-graph", "fp", "--freq", "499", "--delay", "-1",
		"--control", "fd:3,4", "--output", m.data())
	m.profiler.ExtraFiles = []*os.File{control, acknowledge}
	m.profiler.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	err = m.profiler.Start()
	acknowledge.Close() // if perf ends, reading ends
	if err != nil {
		m.profiler = nil
		return fmt.Errorf("perf (Debian's linux-perf) makes the profiles: %w", err)
	}
	if _, err := command.WriteString("enable\n"); err != nil {
		return err
	}
	if _, err := acknowledged.Read(make([]byte, 16)); err != nil {
		return fmt.Errorf("perf does not begin: %w", errors.Join(err, m.profiler.Wait()))
	}
	return nil
}

func (m *meter) data() string { return filepath.Join(m.profiles, m.name+".perf") }

// report ends perf and writes, as text, what it has seen of the daemon and of Postgres.
func (m *meter) report() error {
	_, err := m.command.WriteString("stop\n")
	if err == nil {
		_, err = m.answer.Read(make([]byte, 16))
	}
	m.command.Close()
	m.answer.Close()
	if err := errors.Join(err, m.profiler.Wait()); err != nil {
		return fmt.Errorf("perf record: %w", err)
	}
	pids := []int{m.daemon}
	if m.w.cluster != nil {
		children, err := childrenOf(m.w.cluster.Pid())
		if err != nil {
			return err
		}
		pids = append(pids, children...)
	}
	list := make([]string, len(pids))
	for i, pid := range pids {
		list[i] = strconv.Itoa(pid)
	}
	out, err := exec.Command("perf", "report", "--stdio", "--input", m.data(), "--no-children", "--call-graph", "none", "--percentage", "relative", "--percent-limit", "0.5",
		"--sort", "comm,dso,symbol", "--pid", strings.Join(list, ",")).Output()
	if err != nil {
		return fmt.Errorf("perf report: %w", err)
	}
	return os.WriteFile(filepath.Join(m.profiles, m.name+".txt"), out, 0o644)
}

// cpu measures what each step takes of the CPUs.
func cpu(ctx context.Context, w *workshop, o options, stdout, stderr io.Writer) error {
	columns, err := w.columns(ctx)
	if err != nil {
		return err
	}
	if o.profiles != "" {
		if err := os.MkdirAll(o.profiles, 0o755); err != nil {
			return err
		}
	}
	p := &plan{columns: columns, wanted: o.steps.MatchString, runs: o.runs, scale: o.scale, seed: o.seed, settle: w.settle, progress: progress{stderr},
		watch: &meter{w: w, profiles: o.profiles}}
	samples, err := p.measure(ctx)
	if saving := save(o.json, samples); err != nil || saving != nil {
		return errors.Join(err, saving)
	}
	var rows [][]string
	for _, s := range p.selected() {
		for _, c := range columns {
			var seconds, du, ds, pu, ps, cu, cs []float64
			for _, got := range samples {
				if got.Step != s.name || got.Target != c.key {
					continue
				}
				seconds = append(seconds, got.Seconds)
				du, ds = append(du, got.CPU.Daemon.User), append(ds, got.CPU.Daemon.System)
				pu, ps = append(pu, got.CPU.Postgres.User), append(ps, got.CPU.Postgres.System)
				cu, cs = append(cu, got.CPU.Client.User), append(cs, got.CPU.Client.System)
			}
			if len(seconds) == 0 {
				continue
			}
			pair := func(user, system []float64) string { return fmt.Sprintf("%.2f + %.2f", median(user), median(system)) }
			all := median(du) + median(ds) + median(pu) + median(ps) + median(cu) + median(cs)
			rows = append(rows, []string{s.name, c.heading, fmt.Sprintf("%.2f", median(seconds)), pair(du, ds), pair(pu, ps), pair(cu, cs),
				fmt.Sprintf("%.2f", all/median(seconds))})
		}
	}
	_, err = fmt.Fprintf(stdout, "%s\n\nCPU seconds of a step, user + system; busy is how many CPUs they come to.\n\n%s", w.machine(o),
		markdown([]string{"step", "target", "seconds", "daemon", "Postgres", "client", "busy"}, rows))
	return err
}
