package integration

import (
	"testing"
)

// kill -9 of the program.
func TestFaultTheProgramIsKilled(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		before := make(past)
		atManyMoments(t, func(t *testing.T, seed uint64, name string) {
			quota := s.quotaAt(t, alice, m, seed)
			j := startJob(t, m, name, seed)
			j.awaitMoment(t)
			m.kill(t)
			j.finish(t, usualTimeout+slack)
			m.clear(t)
			m = s.mountAt(t, alice, m.point)
			j.check(t, false, false)
			before.isUnchanged(t)
			before.add(t, j)
			j.end()
			quota.held(t, j)
			s.isExact(t, alice, m)
		})
		m.unmount(t)
	})
}

// Two programs use one drive, and one is killed: the other's work goes on as if nothing had happened.
func TestFaultOneOfTwoProgramsIsKilled(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m, other := s.mount(t, alice), s.mount(t, alice)
		before := make(past)
		atManyMoments(t, func(t *testing.T, seed uint64, name string) {
			quota := s.quotaAt(t, alice, m, seed)
			j, others := startJob(t, m, name, seed), startJob(t, other, name+"-other", seed+1)
			j.awaitMoment(t)
			m.kill(t)
			j.finish(t, usualTimeout+slack)
			m.clear(t)
			others.awaitMoment(t)
			if failed := others.finish(t, usualTimeout+slack); len(failed) > 0 {
				t.Errorf("the other program's: %v", failed)
			}
			others.check(t, false, true)
			m = s.mountAt(t, alice, m.point)
			j.check(t, false, false)
			before.isUnchanged(t)
			before.add(t, j)
			before.add(t, others)
			j.end()
			others.end()
			quota.held(t, j, others)
			s.isExact(t, alice, m)
		})
		m.unmount(t)
		other.unmount(t)
	})
}
