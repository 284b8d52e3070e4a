package hostile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/trace"
	"slices"
	"strings"
	"sync"
	"time"
)

// pause between two requests: the good guest is not busy.
const pause = time.Millisecond

// client sends the good guest one request after another and notes how long each
// takes.
type client struct {
	mu        sync.Mutex
	latencies []time.Duration
	pending   time.Time // when the request under way was sent
	err       error
	recorder  *trace.FlightRecorder // nil: no trace is wanted
}

// record has what came before the first late answer written to a file.
func (c *client) record(r *trace.FlightRecorder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recorder = r
}

// late is called with the lock held.
func (c *client) late(took time.Duration) {
	if c.recorder == nil || took < *stall {
		return
	}
	f, err := os.Create(*stallFile)
	if err == nil {
		_, err = c.recorder.WriteTo(f)
		err = errors.Join(err, f.Close())
	}
	fmt.Fprintf(os.Stderr, "%s a request took %v; trace in %s: %v\n", time.Now().Format(time.TimeOnly), took, *stallFile, err)
	c.recorder = nil
}

func newClient(requests io.Writer, responses io.Reader, ended <-chan struct{}) *client {
	c := &client{}
	go func() {
		in := bufio.NewReader(responses)
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
			case <-ended:
				c.fail(fmt.Errorf("the good guest has ended"))
				return
			}
			if err := c.request(requests, in, i); err != nil {
				c.fail(err)
				return
			}
		}
	}()
	return c
}

func (c *client) request(w io.Writer, in *bufio.Reader, i int) error {
	begin := time.Now()
	c.mu.Lock()
	c.pending = begin
	c.mu.Unlock()
	request := fmt.Sprintf("request %d", i)
	if _, err := fmt.Fprintln(w, request); err != nil {
		return err
	}
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, request+" ") {
		return fmt.Errorf("the good guest answered %q to %q", line, request)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = time.Time{}
	took := time.Since(begin)
	c.latencies = append(c.latencies, took)
	c.late(took)
	return nil
}

func (c *client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// latency is what requests have taken since the last call.
type latency struct {
	n             int
	p50, p99, max time.Duration
}

func (c *client) take() (l latency, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.latencies
	c.latencies = nil
	if !c.pending.IsZero() {
		all = append(all, time.Since(c.pending))
	}
	if len(all) == 0 {
		return l, c.err
	}
	slices.Sort(all)
	return latency{n: len(all), p50: all[len(all)/2], p99: all[len(all)*99/100], max: all[len(all)-1]}, c.err
}
