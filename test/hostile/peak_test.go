package hostile

import (
	"fmt"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/wasmpod/wasmpod/runtime/sandbox"
)

// peak is what the process took when it took the most, in bytes, and for whom.
type peak struct {
	rss     int64
	charged int64 // to all containers then, the good guest's too
	host    int64 // what Go had of the host: heap, garbage, stacks
	guests  int   // that ran
}

// bound is what a process may take at most that took base before, for guests with
// so much charged when each had the most: that, once more, because all of it may
// lie in Go's heap, which is collected when it has doubled, and something for code,
// compiling and pods.
func bound(base, charged int64) int64 { return base + 2*charged + 96<<20 }

// A peakWatch looks at the process every few milliseconds, and at what is charged to
// the containers that run.
type peakWatch struct {
	mu      sync.Mutex
	running map[sandbox.Container]struct{}
	peak    peak
}

func (w *peakWatch) add(c sandbox.Container) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running == nil {
		w.running = map[sandbox.Container]struct{}{}
	}
	w.running[c] = struct{}{}
}

func (w *peakWatch) remove(c sandbox.Container) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.running, c)
}

func (w *peakWatch) look() {
	rss := currentRSS()
	w.mu.Lock()
	defer w.mu.Unlock()
	if rss <= w.peak.rss {
		return
	}
	w.peak = peak{rss: rss, host: goMemory(), guests: len(w.running)}
	for c := range w.running {
		w.peak.charged += c.Usage().MemoryBytes
	}
}

// during looks until stop is called, which returns the peak.
func (w *peakWatch) during() (stop func() peak) {
	w.mu.Lock()
	w.peak = peak{}
	w.mu.Unlock()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			w.look()
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	}()
	return func() peak {
		close(done)
		<-ended
		return w.peak
	}
}

// goMemory is what Go's runtime has from the host.
func goMemory() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}

func (p peak) String() string {
	return fmt.Sprintf("RSS %s with %d guests: %s charged to them, %s of Go's (heap, garbage and stacks)", mib(p.rss), p.guests, mib(p.charged), mib(p.host))
}
