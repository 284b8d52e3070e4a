package wasip1

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// engineContext does for host calls what an engine's context does.
type engineContext struct {
	context.Context
	t       *testing.T
	signal  chan struct{}
	away    bool // between Leave and Enter
	left    int
	handled func()
}

func (c *engineContext) Leave()                       { c.away = true; c.left++ }
func (c *engineContext) Enter()                       { c.away = false }
func (c *engineContext) Interrupted() <-chan struct{} { return c.signal }

func (c *engineContext) Safepoint() {
	if c.away {
		c.t.Error("Safepoint without a place")
	}
	c.signal = nil
	c.handled()
}

// Calls that sleep let others run meanwhile, and end with EINTR for a signal.
// The handler runs when the call is over: it may make the same call.
func TestInterrupt(t *testing.T) {
	sleep := func(c *caller) (Errno, int) {
		c.mem.Write(0, clockSub(1, clockMonotonic, uint64(time.Hour), 0))
		return c.call("poll_oneoff", 0, 1024, 1, 2048)
	}
	for name, block := range map[string]func(c *caller) (Errno, int){
		"fd_read":     func(c *caller) (Errno, int) { c.mem.WriteUint32Le(4, 10); return c.call("fd_read", 0, 0, 1, 64) },
		"poll_oneoff": sleep,
		"poll forever": func(c *caller) (Errno, int) {
			c.mem.Write(0, clockSub(1, clockMonotonic, foreverTimeout, 0))
			return c.call("poll_oneoff", 0, 1024, 1, 2048)
		},
		"poll stdin": func(c *caller) (Errno, int) {
			c.mem.Write(0, fdSub(1, eventRead, 0))
			return c.call("poll_oneoff", 0, 1024, 1, 2048)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, feed := io.Pipe()
				defer feed.Close()
				c := newCaller(t, ProcessConfig{Stdin: in})
				signal := make(chan struct{})
				ctx := &engineContext{Context: WithProcess(t.Context(), c.p), t: t, signal: signal}
				handled := false
				ctx.handled = func() {
					handled = true
					// Uses the same scratch space, and is not interrupted.
					if errno, _ := sleep(c); errno != 0 {
						t.Errorf("poll_oneoff of the handler: %v", errno)
					}
				}
				c.ctx = ctx
				began := time.Now()
				time.AfterFunc(time.Second, func() { close(signal) })
				var errno Errno
				var exit int
				errno, exit = block(c)
				if errno != ErrnoINTR || exit >= 0 || !handled {
					t.Errorf("%v, exit %d, handled %v, want EINTR", errno, exit, handled)
				}
				if d := time.Since(began); d != time.Hour+time.Second {
					t.Errorf("took %v", d)
				}
				if ctx.left != 2 || ctx.away {
					t.Errorf("left %d times, away %v", ctx.left, ctx.away)
				}
			})
		})
	}
}

// What does not sleep does not give its place up.
func TestQuickCallsKeepTheirPlace(t *testing.T) {
	c := newCaller(t, ProcessConfig{})
	ctx := &engineContext{Context: WithProcess(context.Background(), c.p), t: t}
	c.ctx = ctx
	c.mem.Write(0, clockSub(1, clockMonotonic, 0, 0))
	c.want(0, "poll_oneoff", 0, 1024, 1, 2048)
	c.want(0, "random_get", 0, 16)
	c.want(0, "sched_yield")
	if ctx.left != 0 {
		t.Errorf("left %d times", ctx.left)
	}
}
