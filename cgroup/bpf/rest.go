package bpf

import (
	"sync"
	"sync/atomic"
	"time"
)

// A program at sched_switch costs whoever switches contexts, guests or not, 25 to 50
// ns each time: next to nothing where something is done between two switches, and 3 to
// 5 % where nothing is. So that this is bounded whatever a host's processes do, the
// programs of an Accounting that rests (Config.Rest) are taken off while one processor
// switches too often, and while no container runs. The thread's clock is read instead,
// as before the programs are loaded: that costs guests only, and nobody's switches.
const (
	// lookEvery is how often it is looked whether the programs should rest.
	lookEvery = time.Second
	// mostSwitches of one processor in a second: 2 % of it at 50 ns, which is what
	// those of threads cost that serve containers.
	mostSwitches = 400_000
	// calmSwitches are so few that the programs can come back, if it has been like that
	// for calmLooks.
	calmSwitches = mostSwitches / 2
	calmLooks    = 10
	// leastRun is what containers run in a second when they run, and idleLooks how
	// long they must not have for the programs to rest.
	leastRun  = int64(time.Millisecond)
	idleLooks = 10
)

// pace decides when programs rest.
type pace struct {
	hectic bool // one processor switches too often
	calm   int  // looks in a row at which none did
	idle   int  // looks in a row at which no container had run
}

// look is told how often the busiest processor has switched contexts in a second, and
// what containers have run in it (ns). It says whether the programs should rest.
func (p *pace) look(switches uint64, ran int64) bool {
	switch {
	case switches >= mostSwitches:
		p.hectic, p.calm = true, 0
	case switches >= calmSwitches:
		p.calm = 0
	case p.calm < calmLooks:
		p.calm++
	}
	if p.calm == calmLooks {
		p.hectic = false
	}
	switch {
	case ran >= leastRun:
		p.idle = 0
	case p.idle < idleLooks:
		p.idle++
	}
	return p.hectic || p.idle == idleLooks
}

// rester takes programs off and puts them back on.
type rester struct {
	attach, detach func() error
	// switches is how often the processor that did so most has switched contexts since
	// the last call; 0 if that is not known.
	switches func() (uint64, error)

	resting atomic.Bool
	stop    chan struct{}
	done    sync.WaitGroup

	// Of who looks.
	pace   pace
	looked int64
	begun  bool
	ran    int64
}

// Resting says whether the programs are taken off for the time being, see Config.Rest.
func (a *Accounting) Resting() bool {
	a.mu.Lock()
	r := a.program.rester
	a.mu.Unlock()
	return r != nil && r.resting.Load()
}

// startResting looks every second. The program has been attached.
func (a *Accounting) startResting(r *rester) {
	r.stop = make(chan struct{})
	r.done.Go(func() {
		t := time.NewTicker(lookEvery)
		defer t.Stop()
		for {
			if err := a.look(r, nanotime()); err != nil {
				a.mu.Lock()
				a.missing = append(a.missing, err)
				a.mu.Unlock()
				return
			}
			select {
			case <-r.stop:
				return
			case <-t.C:
			}
		}
	})
}

// look has the programs rest, or not any more.
func (a *Accounting) look(r *rester, now int64) error {
	switches, err := r.switches()
	if err != nil {
		return err
	}
	ran := a.allRan()
	elapsed, recent, first := time.Duration(now-r.looked).Seconds(), ran-r.ran, !r.begun
	r.ran, r.looked, r.begun = ran, now, true
	if first || elapsed <= 0 {
		return nil
	}
	rest := r.pace.look(uint64(float64(switches)/elapsed), int64(float64(recent)/elapsed))
	if rest == r.resting.Load() {
		return nil
	}
	return a.rest(r, rest)
}

// rest takes the programs off or puts them on, which the kernel takes some 10 to 200 ms
// for. Threads' clocks are read meanwhile, also for as long as there is a program: each
// allows for what the other one has charged. (Without either, what a thread is
// off the processor would be charged until there is a program.)
func (a *Accounting) rest(r *rester, rest bool) error {
	if rest {
		a.clocked.Store(true)
		r.resting.Store(true)
		return r.detach()
	}
	// What threads have waited meanwhile, and their faults, are nobody's: it is not
	// known whom they served.
	for i := range a.threads {
		if t := &a.threads[i]; t.seen != 0 {
			t.seen = 0
		}
	}
	if err := r.attach(); err != nil {
		return err
	}
	a.clocked.Store(false)
	r.resting.Store(false)
	return nil
}

// allRan is what all containers have run that ever were.
func (a *Accounting) allRan() int64 {
	a.mu.Lock()
	n := a.next
	a.mu.Unlock()
	sum := int64(0)
	for i := range a.containers[1:n] {
		sum += a.containers[1+i].cpu.Load()
	}
	return sum
}
