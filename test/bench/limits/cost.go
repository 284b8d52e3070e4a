//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasmpod/wasmpod/cgroup"
	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// hostCalls is what an account costs a host call.
func hostCalls(m bpf.Mechanism, length time.Duration) error {
	ctx := context.Background()
	const rounds = 7
	var with, without []float64
	for range rounds {
		for _, milli := range []int64{-1, 0} {
			n, err := openNode(ctx, m)
			if err != nil {
				return err
			}
			if n.cpu.Mechanism() != m {
				return n.close(ctx)
			}
			count := 0
			i, _, err := n.start(ctx, calls, milli, func(context.Context) { count++ })
			if err != nil {
				return err
			}
			time.Sleep(length / 20)
			i.Kill()
			<-i.Done()
			s := i.Stats()
			ns := float64(s.CPUTime) / float64(count)
			if milli < 0 {
				without = append(without, ns)
			} else {
				with = append(with, ns)
			}
			if err := n.close(ctx); err != nil {
				return err
			}
		}
	}
	slices.Sort(with)
	slices.Sort(without)
	fmt.Printf("%-16s a host call %.1f ns without an account, %+.1f ns with one\n", m, without[rounds/2], with[rounds/2]-without[rounds/2])
	return nil
}

// switches is what an account costs two guests that do nothing but wake each
// other: of a round trip, which is two switches.
func switches(m bpf.Mechanism, length time.Duration) error {
	return errors.Join(switchesWith(m, length, 0), switchesWith(m, length, 5*time.Microsecond))
}

// switchesWith has each guest do so much work before it wakes the other one.
func switchesWith(m bpf.Mechanism, length, between time.Duration) error {
	ctx := context.Background()
	const rounds = 11
	var results [2][]float64
	for range rounds {
		for k, milli := range []int64{-1, 0} {
			n, err := openNode(ctx, m)
			if err != nil {
				return err
			}
			if n.cpu.Mechanism() != m {
				return n.close(ctx)
			}
			var full [2]atomic.Bool
			var parked [2]atomic.Value // wasm.Parking
			var trips int
			side := func(me int) func(context.Context) {
				return func(ctx context.Context) {
					p := ctx.(wasm.Parking)
					parked[me].CompareAndSwap(nil, p)
					for !full[me].CompareAndSwap(true, false) {
						p.Park()
					}
					if me == 0 {
						trips++
					}
					work(between)
					full[1-me].Store(true)
					if other, ok := parked[1-me].Load().(wasm.Parking); ok {
						other.Unpark()
					}
				}
			}
			full[0].Store(true)
			for me := range 2 {
				if _, _, err := n.start(ctx, calls, milli, side(me)); err != nil {
					return err
				}
			}
			time.Sleep(length / 20)
			if err := n.close(ctx); err != nil {
				return err
			}
			results[k] = append(results[k], float64(length/20)/float64(trips))
		}
	}
	ratios := make([]float64, rounds)
	for i := range ratios {
		ratios[i] = results[1][i] / results[0][i]
	}
	fmt.Printf("%-16s two guests wake each other, after %v of work each: %.0f ns a round trip without accounts, %.0f ns with, %+.1f %%\n", m, between, median(results[0]), median(results[1]), 100*(median(ratios)-1))
	return nil
}

// collections is how far a guest overdraws its budget while Go collects garbage all the
// time, with and without its giving back what the collector ran on its thread.
func collections(m bpf.Mechanism, length time.Duration) error {
	if m == bpf.ThreadClock {
		return nil // has nothing of this
	}
	ctx := context.Background()
	stop := make(chan struct{})
	var garbage sync.WaitGroup
	defer garbage.Wait()
	defer close(stop)
	garbage.Go(func() {
		kept := make([]*[8]*byte, 1<<19) // that takes the collector some ms to look at
		for i := 0; ; i++ {
			kept[i%len(kept)] = new([8]*byte)
			select {
			case <-stop:
				return
			default:
			}
			if i%(1<<14) == 0 {
				runtime.Gosched()
			}
		}
	})
	const rounds = 5
	var late [2][]time.Duration
	var given [2]time.Duration
	for range rounds {
		for k := range 2 {
			n, err := openNode(ctx, m)
			if err != nil {
				return err
			}
			if n.cpu.Mechanism() != m {
				return n.close(ctx)
			}
			opened, err := n.cpu.NewAccount(cgroup.NewBandwidth(500))
			if err != nil {
				return errors.Join(err, n.close(ctx))
			}
			a := &givingAccount{account: account{Account: opened, limited: true, spent: make(chan struct{}, 1)}, gives: k == 1}
			module, err := n.engine.Compile(ctx, "spin", func() ([]byte, error) { return spin, nil })
			if err != nil {
				return errors.Join(err, n.close(ctx))
			}
			n.modules = append(n.modules, module)
			if _, err := n.engine.Start(ctx, module, wasm.InstanceConfig{CPU: a}); err != nil {
				return errors.Join(err, n.close(ctx))
			}
			time.Sleep(length)
			if err := n.close(ctx); err != nil {
				return err
			}
			late[k] = append(late[k], a.late...)
			given[k] += a.given
		}
	}
	for k, what := range []string{"it pays for all", "it gives back"} {
		slices.Sort(late[k])
		if len(late[k]) == 0 {
			return errors.New("no budget was spent")
		}
		fmt.Printf("%-16s a guest at 500m beside collections, %s: past the budget p50 %v p99 %v max %v (%d); given back %v of %v\n", m, what,
			late[k][len(late[k])/2], late[k][len(late[k])*99/100], late[k][len(late[k])-1], len(late[k]), given[k], rounds*length/2)
	}
	return nil
}

// givingAccount is of stints that give back what is not theirs only if told so.
type givingAccount struct {
	account
	gives bool
	given time.Duration
}

func (a *givingAccount) Stint() wasm.CPUStint {
	return &givingStint{stint: stint{Stint: a.Account.Stint(clockOffset), account: &a.account}, to: a}
}

type givingStint struct {
	stint
	to *givingAccount
}

func (s *givingStint) GiveBack(now, since, keep, most int64) (given int64) {
	if s.to.gives {
		given = s.Stint.GiveBack(now, since, keep, most)
		s.to.given += time.Duration(given)
	}
	return given
}
