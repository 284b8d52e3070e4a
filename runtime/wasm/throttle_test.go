package wasm_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// refillPeriod is how long an account's period is, however long its debt will take to be
// paid, as with budgets.
const refillPeriod = 100 * time.Millisecond

// What can happen while guests are throttled.
func TestWhileThrottled(t *testing.T) {
	e := newEngine(t, wasm.Config{Slots: 1})
	spin := compile(t, e, "spin")
	throttled := func(t *testing.T) *fakeCPU {
		cpu := &fakeCPU{t: t, period: refillPeriod, changed: make(chan struct{})}
		cpu.onCheck = func(n int32) {
			if n == 1 {
				cpu.spend(time.Hour)
			}
		}
		return cpu
	}

	t.Run("RES-20 a limit that is raised lets run within a period", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cpu := throttled(t)
			again := make(chan struct{})
			spend := cpu.onCheck
			cpu.onCheck = func(n int32) {
				if spend(n); n == 2 {
					close(again)
				}
			}
			i := startCPU(t, e, spin, cpu, nil)
			time.Sleep(10*time.Second + refillPeriod/2)
			if n := cpu.waits.Load(); n < 100 || n > 102 {
				t.Errorf("asked %d times in 10 s, want once a period", n)
			}
			raised := time.Now()
			cpu.spend(0)
			<-again
			if d := time.Since(raised); d > refillPeriod {
				t.Errorf("ran %v later", d)
			}
			i.Kill()
			wantExit(t, i, killed)
			if n := cpu.stopped.Load(); n != 0 {
				t.Errorf("stopped waiting %d times, though it ran", n)
			}
		})
	})
	t.Run("RES-20 a limit that is raised lets run at once, if the account says that it has changed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cpu := throttled(t)
			again := make(chan struct{})
			spend := cpu.onCheck
			cpu.onCheck = func(n int32) {
				if spend(n); n == 2 {
					close(again)
				}
			}
			i := startCPU(t, e, spin, cpu, nil)
			time.Sleep(10*time.Second + refillPeriod/2)
			raised := time.Now()
			cpu.spend(0)
			close(cpu.changed)
			if <-again; !time.Now().Equal(raised) {
				t.Errorf("ran %v later", time.Since(raised))
			}
			i.Kill()
			wantExit(t, i, killed)
		})
	})
	t.Run("RES-05 one of two is killed, and another is started", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cpu := throttled(t)
			first := startCPU(t, e, spin, cpu, nil)
			time.Sleep(time.Second)
			second := startCPU(t, e, spin, cpu, nil) // an exec, or a probe
			time.Sleep(time.Second)
			first.Kill()
			wantExit(t, first, killed)
			third := startCPU(t, e, spin, cpu, nil)
			time.Sleep(time.Minute)
			if begun, stopped := cpu.begun.Load(), cpu.stopped.Load(); begun != 1 || stopped != 1 {
				t.Errorf("%d stints, want that of the first; %d stopped waiting, want 1", begun, stopped)
			}
			began := time.Now()
			second.Kill()
			third.Kill()
			wantExit(t, second, killed)
			wantExit(t, third, killed)
			if d := time.Since(began); d != 0 || cpu.stopped.Load() != 3 || cpu.begun.Load() != 1 {
				t.Errorf("killed in %v; %d stopped waiting, %d stints", d, cpu.stopped.Load(), cpu.begun.Load())
			}
		})
	})
	t.Run("RES-05 a crowd is killed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var guests []*wasm.Instance
			var accounts []*fakeCPU
			crowd := 200
			if raceEnabled { // 60 ms for each
				crowd = 5
			}
			for range crowd {
				accounts = append(accounts, throttled(t))
				guests = append(guests, startCPU(t, e, spin, accounts[len(accounts)-1], nil))
			}
			time.Sleep(time.Second) // all have come to a safepoint
			began := time.Now()
			for _, i := range guests {
				i.Kill()
			}
			for _, i := range guests {
				wantExit(t, i, killed)
			}
			if d := time.Since(began); d != 0 {
				t.Errorf("took %v", d)
			}
			for _, a := range accounts {
				if a.begun.Load() != 1 || a.stopped.Load() != 1 || a.running.Load() != 0 {
					t.Fatalf("%d stints, %d under way, stopped waiting %d times", a.begun.Load(), a.running.Load(), a.stopped.Load())
				}
			}
		})
	})
	if free := e.Spare(); free != 1 {
		t.Errorf("%d slots are free", free)
	}
}

// An engine that is closed does not wait for refills.
func TestCloseWhileThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := wasm.New(context.Background(), wasm.Config{Slots: 1})
		if err != nil {
			t.Fatal(err)
		}
		cpu := &fakeCPU{t: t, period: refillPeriod, changed: make(chan struct{})}
		cpu.spend(time.Hour)
		m := compile(t, e, "spin")
		i := startCPU(t, e, m, cpu, nil)
		time.Sleep(time.Second)
		began := time.Now()
		if err := e.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if <-i.Done(); time.Since(began) != 0 || cpu.stopped.Load() != 1 {
			t.Errorf("ended after %v, stopped %d times", time.Since(began), cpu.stopped.Load())
		}
	})
}
