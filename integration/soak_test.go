package integration

import (
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var soak = flag.Duration("soak", 0, "how long TestSoak uses the drives (make soak)")

// soakWorkers is how many sequences of calls go on at once on each drive that stays mounted.
const soakWorkers = 2

// For as long as -soak says, random calls are made on both stores at once: by several workers on each of two users' drives, and on a
// third user's drive, which is unmounted and killed and mounted again all the time. At the end the two mounts that stayed take no
// more goroutines, descriptors and memory than they did after a tenth of the time.
func TestSoak(t *testing.T) {
	if *soak == 0 {
		t.Skip("make soak runs it")
	}
	boundRandom(t)
	onEachStore(t, func(t *testing.T, s *store) {
		k := &soaked{store: s, carol: s.addUser(t, "carol")}
		for name, options := range map[string][]string{"alice": nil, "bob": {"--passthrough"}} {
			if s.kind != folder || os.Geteuid() != 0 {
				options = nil
			}
			u := s.addUser(t, name)
			k.users = append(k.users, u)
			k.mounts = append(k.mounts, mountForAll(t, s, u, options...))
		}
		stopSaying := k.sayEveryMinute(t)
		defer stopSaying()

		warmUp := *soak / 10
		k.use(t, "warming up", warmUp)
		begin := k.settled(t)
		k.use(t, "soaking", *soak-warmUp)
		k.settled(t)
		for i, m := range k.mounts {
			if err := m.givenBack(t, begin[i]); err != nil {
				t.Errorf("%s's mount has grown in %v: %v", k.users[i].name, *soak, err)
			}
		}
		k.say(t)
	})
}

// soaked is a store with the drives that are used for long.
type soaked struct {
	*store
	users     []user // whose mounts stay
	mounts    []*mount
	carol     user // whose mount does not
	begun     time.Time
	sequences atomic.Int64
}

// use has all workers make calls for some time, or until one of them finds something.
func (k *soaked) use(t *testing.T, what string, howLong time.Duration) {
	t.Helper()
	end := time.Now().Add(howLong)
	var stop atomic.Bool
	work := func(t *testing.T, u user, m *mount, lives life) {
		t.Parallel()
		defer func() {
			if t.Failed() {
				stop.Store(true)
			}
		}()
		r := newRandomRun(t, u, m, lives)
		for time.Now().Before(end) && !stop.Load() {
			rapid.Check(t, func(t *rapid.T) {
				if time.Now().After(end) && !t.Failed() {
					return
				}
				k.sequences.Add(1)
				r.sequence(t)
			})
		}
		check(t, os.Remove(r.drive))
	}
	t.Run(what, func(t *testing.T) {
		for i, m := range k.mounts {
			for n := range soakWorkers {
				t.Run(fmt.Sprintf("%s %d", k.users[i].name, n), func(t *testing.T) { work(t, k.users[i], m, stays) })
			}
		}
		t.Run(k.carol.name, func(t *testing.T) { work(t, k.carol, mountForAll(t, k.store, k.carol), mayEnd) })
	})
	if stop.Load() {
		t.FailNow()
	}
}

// settled is how the mounts that stay are when they have nothing to do, and the kernel knows none of their nodes any more.
func (k *soaked) settled(t *testing.T) (states []mountState) {
	t.Helper()
	if os.Geteuid() == 0 {
		const namesAndNodes = "2" // proc_sys_vm(5)
		check(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte(namesAndNodes), 0))
	}
	for i, m := range k.mounts {
		state := m.settled(t)
		t.Logf("%s, idle: %v", k.users[i].name, state)
		states = append(states, state)
	}
	return states
}

// sayEveryMinute says how the mounts are, until it is stopped.
func (k *soaked) sayEveryMinute(t *testing.T) (stop func()) {
	k.begun = time.Now()
	tick := time.NewTicker(time.Minute)
	stopped := make(chan struct{})
	var saying sync.WaitGroup
	saying.Go(func() {
		for {
			select {
			case <-tick.C:
				k.say(t)
			case <-stopped:
				return
			}
		}
	})
	return func() {
		tick.Stop()
		close(stopped)
		saying.Wait()
	}
}

func (k *soaked) say(t *testing.T) {
	for i, m := range k.mounts {
		t.Logf("%v, %d sequences of calls: %s: %v", time.Since(k.begun).Round(time.Second), k.sequences.Load(), k.users[i].name, m.state(t))
	}
}
