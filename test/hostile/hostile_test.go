package hostile

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/trace"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

var (
	all  = flag.Bool("hostile", false, "run every bomb, for seconds each; with -short for less than one")
	only = flag.String("bomb", "", "run only the bombs with this in their names; all for the round of all of them")
	// What happened before a request was answered late, for go tool trace.
	stall     = flag.Duration("stall", 0, "write an execution trace when a request of the good guest takes so long")
	stallFile = flag.String("stallfile", "stall.trace", "where to")
)

// Bounds. They are wide: what is to be found is what grows without a bound, on
// machines that may be slow and busy. Where all bombs run at once on two processors, a
// request may wait for seconds, and 100,000 directory entries take half a minute.
const (
	startBound = 3 * time.Minute // to compile and start
	endBound   = 5 * time.Minute // of a bomb that should end by itself
	killBound  = time.Minute     // from kill to end
	goodBound  = time.Minute     // of one request
	restBound  = 96 << 20        // bytes of RSS more than before, afterwards
	logBound   = 64 << 20        // bytes of one container's log
)

// outcome is how one copy of a bomb ended.
type outcome struct {
	err    error // of its creation
	status sandbox.ExitStatus
	killed bool
	times
	logs    int64
	charged int64 // at most
}

type times struct {
	start time.Duration // from nothing to the first instruction, or to the error
	ran   time.Duration
	kill  time.Duration // from kill to end
}

func (t times) max(u times) times {
	return times{max(t.start, u.start), max(t.ran, u.ran), max(t.kill, u.kill)}
}

// suite is a process with a good guest.
type suite struct {
	*node
	good  *client
	bomb  string // path of the module of testdata/bomb
	table [][]string
	watch peakWatch

	goroutines, files int
	rss               int64
}

func newSuite(t *testing.T) *suite {
	server := wasmtest.BuildGo(t, "testdata/server")
	s := &suite{bomb: wasmtest.BuildGo(t, "testdata/bomb"), node: newNode(t)}
	s.good = s.serve(t, server)
	s.table = append(s.table, []string{"BOMB", "START", "RAN", "KILL", "GOOD p50", "p99", "max", "CHARGED", "RSS peak", "bound", "after", "GOROUTINES", "FILES", "ENDED"})
	t.Cleanup(func() {
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
		for _, row := range s.table {
			fmt.Fprintln(w, strings.Join(row, "\t"))
		}
		w.Flush()
	})
	return s
}

// TestHostile is the whole of it with -hostile, and a sample of it without.
func TestHostile(t *testing.T) {
	if raceEnabled {
		t.Skip("skipped: the race detector's own memory and speed would be measured")
	}
	list := slices.DeleteFunc(slices.Clone(bombs), func(b bomb) bool {
		if *only != "" && *only != "all" {
			return !strings.Contains(b.name, *only)
		}
		return !*all && !slices.Contains(sample, b.name) || testing.Short() && b.slow
	})
	s := newSuite(t)
	if *stall > 0 {
		recorder := trace.NewFlightRecorder(trace.FlightRecorderConfig{MinAge: 10 * time.Second, MaxBytes: 256 << 20})
		if err := recorder.Start(); err != nil {
			t.Fatal(err)
		}
		defer recorder.Stop()
		s.good.record(recorder)
	}
	s.settle()
	s.goroutines, s.files, s.rss = goroutinesOfOurs(), openFiles(), currentRSS()
	s.quiet(t)
	for i := range list {
		if *only != "all" {
			s.round(t, list[i].name, list[i:i+1])
		}
	}
	if *all && *only == "" || *only == "all" {
		s.round(t, "all of them together", together(list))
	}
}

// sample is what every `go test` runs.
var sample = []string{"infinite loop", "infinite tail calls", "output flood", "long paths", "4 GiB declared"}

// together leaves out what takes the processors from the others only for a
// moment, while it is compiled.
func together(list []bomb) []bomb {
	return slices.DeleteFunc(slices.Clone(list), func(b bomb) bool { return b.module != nil && b.want == whatever })
}

// quiet measures the good guest alone.
func (s *suite) quiet(t *testing.T) {
	s.good.take()
	resetPeak()
	<-time.After(time.Second)
	s.report(t, "(none)", "", times{}, 0)
}

// round runs bombs all at once, and then looks at what they have left.
func (s *suite) round(t *testing.T, name string, list []bomb) {
	// If the process dies, this says of what.
	fmt.Fprintf(os.Stderr, "%s %s …\n", time.Now().Format(time.TimeOnly), name)
	s.settle()
	s.good.take()
	resetPeak()
	stop := s.watch.during()
	var wg sync.WaitGroup
	outcomes := make([][]outcome, len(list))
	for i := range list {
		b := &list[i]
		image := s.image(t, b)
		outcomes[i] = make([]outcome, max(b.copies, 1))
		for n := range outcomes[i] {
			wg.Go(func() { outcomes[i][n] = s.run(t, b, n, image) })
		}
	}
	wg.Wait()
	most := stop()
	var ended string
	var took times
	var charged int64
	for i := range list {
		for _, o := range outcomes[i] {
			if !list[i].untouched {
				charged += o.charged
			}
		}
		how, each := s.judge(t, &list[i], outcomes[i])
		ended, took = how, took.max(each)
	}
	if len(list) > 1 {
		ended = fmt.Sprintf("%d bombs; %s", len(list), most)
	}
	s.report(t, name, ended, took, charged)
}

// image writes the module of a bomb that was made by hand.
func (s *suite) image(t *testing.T, b *bomb) string {
	if b.module == nil {
		return s.bomb
	}
	path := filepath.Join(s.dir, strings.NewReplacer(" ", "-", ",", "").Replace(b.name)+".wasm")
	if err := os.WriteFile(path, b.module(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs one copy of a bomb from its beginning to its end.
func (s *suite) run(t *testing.T, b *bomb, n int, image string) (o outcome) {
	pod := b.pod(n, image)
	if b.volume {
		pod = withVolume(pod, s.shared)
	}
	begin := time.Now()
	r, err := s.start(t.Context(), pod)
	o.start, o.err = time.Since(begin), err
	if err == nil {
		s.watch.add(r.container)
		s.wait(t, b, r, &o)
		s.watch.remove(r.container)
		o.charged = r.container.Usage().MemoryPeak
		o.status = r.container.Status()
	}
	if err := r.remove(); err != nil {
		t.Errorf("%s: %v", b.name, err)
	}
	o.logs = treeSize(filepath.Join(s.dir, "logs", fmt.Sprintf("%s_%s_%s", pod.Namespace, pod.Name, pod.UID)))
	if err := os.RemoveAll(filepath.Join(s.dir, "logs", fmt.Sprintf("%s_%s_%s", pod.Namespace, pod.Name, pod.UID))); err != nil {
		t.Errorf("%s: %v", b.name, err)
	}
	return o
}

func (s *suite) wait(t *testing.T, b *bomb, r *running, o *outcome) {
	life := endBound
	if b.want != exits {
		life = 3 * time.Second
		if testing.Short() || !*all {
			life = 300 * time.Millisecond
		}
	}
	begin := time.Now()
	select {
	case <-r.container.Done():
		o.ran = time.Since(begin)
		return
	case <-time.After(life):
	}
	o.ran, o.killed = time.Since(begin), true
	begin = time.Now()
	r.container.Kill()
	select {
	case <-r.container.Done():
	case <-time.After(killBound):
		buf := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "%s\n", buf[:runtime.Stack(buf, true)])
		t.Errorf("%s: still runs %v after it was killed", b.name, killBound)
		<-r.container.Done()
	}
	o.kill = time.Since(begin)
}

// judge compares how the copies of a bomb ended with how they should.
func (s *suite) judge(t *testing.T, b *bomb, list []outcome) (ended string, took times) {
	for _, o := range list {
		var image *sandbox.ImageError
		if o.err != nil && !errors.As(o.err, &image) {
			t.Errorf("%s: %v", b.name, o.err)
		}
		if got := o.ending(); b.want != whatever && got != b.want {
			t.Errorf("%s: %s", b.name, o)
		}
		if o.err != nil && len(o.err.Error()) > 5000 {
			t.Errorf("%s: error of %d bytes", b.name, len(o.err.Error()))
		}
		if o.start > startBound {
			t.Errorf("%s: took %v to start", b.name, o.start)
		}
		if o.logs > logBound {
			t.Errorf("%s: left %d MiB of log", b.name, o.logs>>20)
		}
		if n := len(o.status.Message); n > 5000 {
			t.Errorf("%s: termination message of %d bytes", b.name, n)
		}
		ended, took = o.String(), took.max(o.times)
	}
	return ended, took
}

func (o outcome) ending() ending {
	switch {
	case o.err != nil:
		return refused
	case o.killed:
		return killed
	}
	return exits
}

func (o outcome) String() string {
	if o.err != nil {
		return "refused: " + short(o.err.Error())
	}
	s := fmt.Sprintf("%d %s", o.status.Code, o.status.Reason)
	if o.status.Message != "" && !strings.HasPrefix(o.status.Message, "ttt") {
		s += ": " + short(o.status.Message)
	}
	return s
}

// short is the end of a message, which is where the reason is.
func short(s string) string {
	const most = 60
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > most {
		s = "…" + s[len(s)-most:]
	}
	return s
}

// report prints a line and checks the process and the good guest.
func (s *suite) report(t *testing.T, name, ended string, took times, charged int64) {
	good, err := s.good.take()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	peak, bound := peakRSS(), bound(s.rss, charged)
	goroutines, files, rss := s.settle()
	row := []string{name, round(took.start), round(took.ran), round(took.kill), round(good.p50), round(good.p99), round(good.max),
		mib(charged), mib(peak), mib(bound), mib(rss), strconv.Itoa(goroutines), strconv.Itoa(files), ended}
	s.table = append(s.table, row)
	fmt.Fprintln(os.Stderr, time.Now().Format(time.TimeOnly), strings.Join(row, "  "))
	if good.max > goodBound {
		t.Errorf("%s: the good guest took %v to answer", name, good.max)
	}
	if peak > bound {
		t.Errorf("%s: RSS went up to %d MiB, more than %d", name, peak>>20, bound>>20)
	}
	if goroutines > s.goroutines {
		buf := make([]byte, 1<<20)
		t.Errorf("%s: %d goroutines, %d before\n%s", name, goroutines, s.goroutines, buf[:runtime.Stack(buf, true)])
	}
	if files > s.files {
		t.Errorf("%s: %d open files, %d before", name, files, s.files)
	}
	if rss > s.rss+restBound {
		t.Errorf("%s: RSS stays at %d MiB, %d before", name, rss>>20, s.rss>>20)
	}
	if left, err := os.ReadDir(filepath.Join(s.dir, "pods")); err != nil || len(left) > 1 { // the good guest's
		t.Errorf("%s: left %d pod directories behind (%v)", name, len(left), err)
	}
}

// settle waits until what has ended is gone: a goroutine may outlive its last
// message, by a moment or by as long as the machine has no time for it. What is
// there after settleBound has leaked. The first time there is nothing to compare
// with, and what is still on its way out only makes for a laxer comparison later.
func (s *suite) settle() (goroutines, files int, rss int64) {
	const settleBound, first = 30 * time.Second, time.Second
	bound := settleBound
	if s.goroutines == 0 {
		bound = first
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		goroutines, files = goroutinesOfOurs(), openFiles()
		if goroutines <= s.goroutines && files <= s.files || time.Since(began) > bound {
			break
		}
	}
	debug.FreeOSMemory()
	return goroutines, files, currentRSS()
}

// goroutinesOfOurs leaves out those that the engine's scheduler keeps, few in number,
// from the first time that it needs them (berths).
func goroutinesOfOurs() int {
	buf := make([]byte, 256<<10)
	stacks := buf[:runtime.Stack(buf, true)]
	return bytes.Count(stacks, []byte("\n\ngoroutine ")) + 1 - bytes.Count(stacks, []byte("wasm.(*berth).guard("))
}

func treeSize(dir string) (n int64) {
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}

func mib(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }

func round(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < 100*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}
