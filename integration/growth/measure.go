package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"mediafs/blobstore"
	"mediafs/blobstore/pgstore/pgtest"
)

// A plan is what is measured.
type plan struct {
	unit          string // of the one axis that is measured; "": all
	share, rounds int
	limit         time.Duration
}

// A state is what the database knows of a drive that has grown.
type state string

// The plans of a mount's statements are kept by its connections and made anew only when something about the tables changes, as by ANALYZE.
const (
	grown    state = "grown under the mount, no statistics"
	fresh    state = "mounted anew, no statistics"
	analyzed state = "after VACUUM ANALYZE, which autovacuum does"
)

// A result is what was measured on an axis in one state.
type result struct {
	axis  axis
	state state
	lines []line
}

// A line is what an operation costs at each size.
type line struct {
	operation string
	costs     []time.Duration // for one thing
}

// relative are the costs in those of the smallest size.
func (l line) relative() []float64 {
	r := make([]float64, len(l.costs))
	for i, c := range l.costs {
		r[i] = float64(c) / float64(l.costs[0])
	}
	return r
}

// measure measures one axis after the other, each on a server of its own. With an error it returns what it has measured before.
func (p plan) measure(ctx context.Context) ([]result, error) {
	var all []result
	for _, a := range axes() {
		if p.unit != "" && p.unit != a.unit {
			continue
		}
		results, err := p.measureAxis(ctx, a.upTo(p.share))
		all = append(all, results...)
		if err != nil {
			return all, fmt.Errorf("%s: %w", a.name, err)
		}
	}
	return all, nil
}

func (p plan) measureAxis(ctx context.Context, a axis) (results []result, err error) {
	cluster, err := startCluster(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cluster.Remove()) }()
	var worlds []*world
	defer func() {
		for _, w := range worlds {
			err = errors.Join(err, w.close(ctx))
		}
	}()
	for _, s := range a.sizes {
		w, err := newWorld(ctx, cluster, a, s)
		if err != nil {
			return nil, err
		}
		worlds = append(worlds, w)
		if err := w.use(ctx); err != nil {
			return nil, err
		}
		began := time.Now()
		if err := w.fill(ctx); err != nil {
			return nil, err
		}
		progress("%s: filled %s in %.0f s", a.name, short(s.n), time.Since(began).Seconds())
	}
	for _, s := range []state{grown, fresh, analyzed} {
		began := time.Now()
		for _, w := range worlds {
			if err := w.bring(ctx, s); err != nil {
				return results, err
			}
		}
		r, err := p.rounded(ctx, a, s, worlds)
		if err != nil {
			return results, err
		}
		results = append(results, r)
		progress("%s: measured, %s, in %.0f s", a.name, s, time.Since(began).Seconds())
	}
	return results, nil
}

// startCluster starts a server that waits for no disk, and gathers statistics only when told to.
func startCluster(ctx context.Context) (*pgtest.Cluster, error) {
	cluster, err := pgtest.Create()
	if err != nil {
		return nil, err
	}
	admin, err := pgx.Connect(ctx, cluster.URL("postgres"))
	if err == nil {
		for _, setting := range []string{"shared_buffers = '1GB'", "fsync = off", "full_page_writes = off", "autovacuum = off"} {
			_, failed := admin.Exec(ctx, "alter system set "+setting)
			err = errors.Join(err, failed)
		}
		err = errors.Join(err, admin.Close(ctx))
	}
	if err == nil {
		err = cluster.Restart()
	}
	if err != nil {
		return nil, errors.Join(err, cluster.Remove())
	}
	return cluster, nil
}

// use uses the empty drives until every statement has a plan that is kept: Postgres does that after five times.
func (w *world) use(ctx context.Context) error {
	const folder = "before"
	for _, p := range w.drives {
		attr, err := p.Make(ctx, blobstore.RootIno, folder, blobstore.NewNode{Mode: unix.S_IFDIR | 0o755})
		if err != nil {
			return err
		}
		for range 20 {
			if err := w.useOnce(ctx, p, attr.Ino); err != nil {
				return err
			}
		}
		if err := p.Rmdir(ctx, blobstore.RootIno, folder); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) useOnce(ctx context.Context, p place, folder blobstore.Ino) error {
	if err := w.make(ctx, p, folder); err != nil {
		return err
	}
	if _, err := listFolder(ctx, p, folder); err != nil {
		return err
	}
	attr, err := p.Lookup(ctx, folder, w.made[0].name)
	if err != nil {
		return err
	}
	f, err := p.Open(ctx, attr.Ino, blobstore.OpenWrite)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(ctx, []byte("before"), 0); err != nil {
		return err
	}
	if err := f.Flush(ctx); err != nil {
		return err
	}
	if _, err := f.ReadAt(ctx, make([]byte, 4096), 0); err != nil {
		return err
	}
	_, err = remove(ctx, w, nil)
	return err
}

// bring brings the database into a state.
func (w *world) bring(ctx context.Context, s state) error {
	var err error
	switch s {
	case grown:
		err = w.locate(ctx)
	case fresh:
		err = w.reopen(ctx)
	case analyzed:
		_, err = w.admin.Exec(ctx, "vacuum analyze")
	}
	return err
}

// rounded measures all operations, on all sizes in turn so that whatever else goes on hits all alike, and takes the median of the rounds.
func (p plan) rounded(ctx context.Context, a axis, s state, worlds []*world) (result, error) {
	operations := a.operations()
	taken := make([][][]time.Duration, len(operations)) // by operation, size and round
	for i := range taken {
		taken[i] = make([][]time.Duration, len(worlds))
	}
	r := rand.New(rand.NewPCG(2, 2))
	for round := range p.rounds + 1 {
		for _, at := range r.Perm(len(worlds)) {
			for i, o := range operations {
				cost, err := o.cost(ctx, worlds[at], r)
				if err != nil {
					return result{}, fmt.Errorf("%s, %s: %w", short(a.sizes[at].n), o.name, err)
				}
				if round > 0 { // the first makes the caches warm
					taken[i][at] = append(taken[i][at], cost)
				}
			}
		}
	}
	all := result{axis: a, state: s}
	for i, o := range operations {
		l := line{operation: o.name}
		for _, rounds := range taken[i] {
			l.costs = append(l.costs, median(rounds))
		}
		all.lines = append(all.lines, l)
	}
	return all, nil
}

// cost is what an operation takes for one thing: the median of the times that it is done.
func (o operation) cost(ctx context.Context, w *world, r *rand.Rand) (time.Duration, error) {
	costs := make([]time.Duration, o.times)
	for i := range costs {
		began := time.Now()
		things, err := o.do(ctx, w, r)
		if err != nil {
			return 0, err
		}
		costs[i] = time.Since(began) / time.Duration(things)
	}
	return median(costs), nil
}

func median(costs []time.Duration) time.Duration {
	slices.Sort(costs)
	return costs[len(costs)/2]
}
