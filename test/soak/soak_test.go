package soak

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/runtime"
	"github.com/wasmpod/wasmpod/runtime/manifest"
)

var (
	length  = flag.Duration("soak", 0, "run pods for so long")
	rounds  = flag.Int("rounds", 3, "how often to wait until all pods are gone, and look for what is left")
	atATime = flag.Int("pods", 32, "how many at a time")
	seed    = flag.Uint64("seed", 0, "what chooses shapes and moods; 0: by chance")
	only    = flag.String("shape", "", "only shapes with this in their names")
)

// patience bounds every wait: it is what a slow machine that has 32 other pods to
// run may take for anything of one of them.
const patience = 4 * time.Minute

// soak is one process's Runtime, and what was done with it.
type soak struct {
	*runtime.Runtime
	t       *testing.T
	dir     string
	metrics *prometheus.Registry
	pods    atomic.Int64 // that have come and gone
	hasty   atomic.Int64 // of these, ended before they have come to anything

	mu      sync.Mutex
	changed map[types.UID]chan struct{}
	warned  map[string]int // what was logged, how often
}

// life is that of one pod.
type life struct {
	*soak
	ctx  context.Context
	pod  *corev1.Pod // as last seen
	rand *rand.Rand
	port int
}

func TestSoak(t *testing.T) {
	if *length == 0 {
		t.Skip("skipped: run by make soak, for it takes minutes")
	}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("seed %d", *seed)
	chosen := slices.DeleteFunc(slices.Clone(shapes), func(s shape) bool { return !strings.Contains(s.name, *only) })
	s := open(t)
	watching, stop := context.WithCancel(t.Context())
	defer stop()
	go s.watch(watching)

	// One of each first: code is compiled, pools are filled, and a shape that never
	// works is told once.
	for i := range chosen {
		s.live(&chosen[i], rand.New(rand.NewPCG(*seed, 0)), i, false)
	}
	if t.Failed() {
		t.FailNow()
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintln(w, "ROUND\tPODS\tHASTY\tPODS/S\tGOROUTINES\tTHREADS\tFILES\tDATA FILES\tSERIES\tEVENTS\tHEAP\tRSS")
	var before rest
	for round := range *rounds + 1 {
		begin, pods, hasty := time.Now(), s.pods.Load(), s.hasty.Load()
		if round == 0 {
			s.spend(chosen, round, *length/time.Duration(4**rounds)) // so that as much as ever is in use has been
		} else {
			s.spend(chosen, round, *length/time.Duration(*rounds))
		}
		n := s.pods.Load() - pods
		rate := float64(n) / time.Since(begin).Seconds()
		after := s.rest(before)
		fmt.Fprintf(w, "%d\t%d\t%d\t%.1f\t%d\t%d\t%d\t%d\t%d\t%d\t%d KiB\t%d MiB\n", round, n, s.hasty.Load()-hasty, rate,
			after.goroutines, after.threads, after.files, after.data, after.series, after.events, after.heap>>10, after.rss>>20)
		if round > 0 {
			for _, complaint := range after.beyond(before) {
				t.Errorf("round %d: %s", round, complaint)
			}
		} else {
			before = after
		}
		if t.Failed() {
			break
		}
	}
	for _, m := range slices.Sorted(maps.Keys(s.warned)) {
		t.Logf("%d times: %s", s.warned[m], m)
	}
	if t.Failed() {
		buf := make([]byte, 1<<20)
		t.Logf("%s", buf[:goruntime.Stack(buf, true)])
	}
}

func open(t *testing.T) *soak {
	images, err := filepath.Abs("../../bin/images")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(images); err != nil {
		t.Fatalf("%v: make guests", err)
	}
	s := &soak{t: t, dir: t.TempDir(), metrics: prometheus.NewRegistry(), changed: map[types.UID]chan struct{}{}, warned: map[string]int{}}
	s.Runtime, err = runtime.Open(t.Context(), runtime.Config{
		DataDir: s.dir, ImageStores: []string{images}, Egress: "deny",
		Log: slog.New(warnings{slog.DiscardHandler, s}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.RegisterMetrics(s.metrics); err != nil {
		t.Fatal(err)
	}
	return s
}

// watch tells every life that its pod has changed.
func (s *soak) watch(ctx context.Context) {
	w := s.Watch()
	defer w.Close()
	for {
		uid, err := w.Next(ctx)
		if err != nil {
			return
		}
		s.mu.Lock()
		select {
		case s.changed[uid] <- struct{}{}:
		default:
		}
		s.mu.Unlock()
	}
}

// spend has lives lived side by side for so long.
func (s *soak) spend(chosen []shape, round int, length time.Duration) {
	var wg sync.WaitGroup
	for i := range *atATime {
		r := rand.New(rand.NewPCG(*seed, uint64(1+round**atATime+i)))
		wg.Go(func() {
			for end := time.Now().Add(length); time.Now().Before(end) && !s.t.Failed(); {
				s.live(&chosen[r.IntN(len(chosen))], r, i, true)
			}
		})
	}
	wg.Wait()
}

// live runs one pod, from the manifest to when it is forgotten.
func (s *soak) live(what *shape, r *rand.Rand, worker int, moody bool) {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	l := &life{soak: s, ctx: ctx, rand: r, port: 21000 + worker}
	begin := time.Now()
	if err := l.run(what, moody); err != nil {
		s.t.Errorf("a pod that %s, after %v: %v\n%+v", what.name, time.Since(begin).Round(time.Millisecond), err, l.pod.Status)
	}
	s.pods.Add(1)
}

func (l *life) run(what *shape, moody bool) (err error) {
	name := fmt.Sprintf("pod-%d", l.rand.Uint32())
	objects, err := manifest.Parse("", manifest.Source{Name: what.name, Data: []byte(fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: %s}, spec: %s}",
		name, strings.ReplaceAll(what.spec, "PORT", strconv.Itoa(l.port))))})
	if err != nil {
		return err
	}
	l.pod = objects.Pods[0]
	uid := types.UID("soak-" + name)
	l.pod.UID = uid
	l.mu.Lock()
	l.changed[uid] = make(chan struct{}, 1)
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.changed, uid)
		l.mu.Unlock()
	}()
	if err := l.Apply(objects); err != nil {
		return err
	}
	hasty, grace := mood(l.rand)
	if hasty && moody {
		l.hasty.Add(1)
		select { // somewhere on the way, or before it
		case <-time.After(time.Duration(l.rand.IntN(1+l.rand.IntN(1500))) * time.Millisecond):
		case <-l.ctx.Done():
		}
	} else if err = l.wait(what.until); err == nil && what.then != nil {
		err = what.then(l)
	}
	// Its end is no part of what it had so long for.
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	return errors.Join(err, l.DeletePod(ctx, uid, grace), l.RemovePod(uid))
}

// wait waits for the pod to be as it should.
func (l *life) wait(until func(*corev1.Pod) bool) error {
	l.mu.Lock()
	changed := l.changed[l.pod.UID]
	l.mu.Unlock()
	for {
		for _, p := range l.Pods() {
			if p.UID == l.pod.UID {
				l.pod = p
			}
		}
		if until(l.pod) {
			return nil
		}
		select {
		case <-changed:
		case <-l.ctx.Done():
			return errors.New("it has not come to what it should")
		}
	}
}

// warnings counts what is logged as a warning or worse.
type warnings struct {
	slog.Handler
	*soak
}

func (w warnings) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (w warnings) Handle(_ context.Context, r slog.Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.warned[r.Message]++
	return nil
}

func (w warnings) WithAttrs([]slog.Attr) slog.Handler { return w }
func (w warnings) WithGroup(string) slog.Handler      { return w }

// rest is what is there while no pod is.
type rest struct {
	goroutines, threads, files, data, series, events int
	heap, rss                                        int64
}

// What may be more than before, however many pods there were.
const (
	moreGoroutines = 8       // of pools
	moreHeap       = 2 << 20 // what else pools hold
	moreRSS        = 64 << 20
	eventSize      = 2 << 10 // of what is kept of a pod: the last 10,000 events
)

// rest waits until there is no more than there was, for a while: what ends in the
// background does.
func (s *soak) rest(before rest) (now rest) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		now = s.measure()
		if before == (rest{}) || len(now.beyond(before)) == 0 || time.Now().After(end) {
			return now
		}
	}
}

func (s *soak) measure() (r rest) {
	r.events = len(s.Events())
	families, err := s.metrics.Gather()
	if err != nil {
		s.t.Error(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if l.GetName() == "pod" {
					r.series++
				}
			}
		}
	}
	debug.FreeOSMemory()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	r.heap = int64(m.HeapAlloc)
	r.goroutines, r.threads = goruntime.NumGoroutine(), count("/proc/self/task")
	r.files = count("/proc/self/fd")
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &r.rss); err == nil {
			r.rss <<= 10
		}
	}
	_ = filepath.WalkDir(s.dir, func(_ string, _ fs.DirEntry, err error) error {
		r.data++
		return nil
	})
	return r
}

// count is how many entries a directory has.
func count(dir string) int {
	list, _ := os.ReadDir(dir)
	return len(list)
}

// beyond says what there is more of than there may be.
func (r rest) beyond(before rest) (complaints []string) {
	complain := func(what string, is, was, more int64) {
		if is > was+more {
			complaints = append(complaints, fmt.Sprintf("%s: %d, and %d before", what, is, was))
		}
	}
	complain("goroutines", int64(r.goroutines), int64(before.goroutines), moreGoroutines)
	complain("open files", int64(r.files), int64(before.files), 0)
	complain("files in the data directory", int64(r.data), int64(before.data), 0)
	complain("series of pods", int64(r.series), int64(before.series), 0)
	complain("bytes on the heap", r.heap, before.heap, moreHeap+eventSize*int64(r.events-before.events))
	complain("bytes of RSS", r.rss, before.rss, moreRSS+2*eventSize*int64(r.events-before.events))
	return complaints
}
