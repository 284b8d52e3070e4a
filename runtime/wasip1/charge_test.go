package wasip1

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/sys"
)

// budgetOf is an account with a limit.
type budgetOf struct{ limit, used, peak int64 }

func (b *budgetOf) Charge(n int64) bool {
	if b.used+n > b.limit {
		return false
	}
	b.used += n
	b.peak = max(b.peak, b.used)
	return true
}

func (b *budgetOf) Release(n int64) { b.used -= n }

// exhaustibleContext ends guests as the engine's does.
type exhaustibleContext struct{ context.Context }

func (exhaustibleContext) OutOfMemory() { panic(sys.NewExitError(137)) }

// OOM-06: whatever a guest can have the host keep counts as its memory.
func TestChargedToTheGuest(t *testing.T) {
	const limit = 100_000
	type step = func(c *caller, n int) (Errno, int)
	many := func(c *caller, subscriptions int) {
		for i := range subscriptions {
			at := uint32(atBuf + 48*i)
			c.mem.WriteUint64Le(at, 0)
			c.mem.WriteUint64Le(at+8, uint64(eventRead))
			c.mem.WriteUint32Le(at+16, 0) // stdin, which is silent
		}
	}
	silent, _ := io.Pipe()
	defer silent.Close()
	for _, test := range []struct {
		name  string
		limit int64
		each  int64 // bytes that are charged for each step at least
		step  step
	}{
		{"descriptors", limit, descriptorBytes, func(c *caller, _ int) (Errno, int) {
			return c.call("path_open", 3, 0, ".", 0, rightsAll&^rightFdWrite, rightsAll, 0, atResult)
		}},
		{"duplicates", limit, descriptorBytes, func(c *caller, _ int) (Errno, int) {
			return c.call("fd_dup", 3, atResult)
		}},
		{"signal descriptors", 10_000, descriptorBytes, func(c *caller, _ int) (Errno, int) {
			return c.call("signal_open", uint64(1), atResult)
		}},
		{"poll sets", 10_000, descriptorBytes + pollSetBytes, func(c *caller, _ int) (Errno, int) {
			return c.call("poll_open", atResult)
		}},
		{"interests", 50_000, interestBytes, func(c *caller, n int) (Errno, int) {
			if n%2 == 0 { // sets are limited, and so are the streams in each
				if errno, exit := c.call("poll_open", atResult); errno != 0 || exit >= 0 {
					return errno, exit
				}
			}
			return c.call("poll_control", 4+n/2, n%2, 1, uint64(0))
		}},
		{"stdin", stdinBytes - 1, stdinBytes, func(c *caller, _ int) (Errno, int) {
			many(c, 1)
			return c.call("poll_oneoff", atBuf, 8192, 1, atResult)
		}},
		{"reading stdin", stdinBytes - 1, stdinBytes, func(c *caller, _ int) (Errno, int) {
			c.mem.WriteUint32Le(0, 8192)
			c.mem.WriteUint32Le(4, 100)
			return c.call("fd_read", 0, 0, 1, atResult)
		}},
		{"stdout", maxChunk - 1, 30_000, func(c *caller, n int) (Errno, int) {
			c.mem.WriteUint32Le(0, 1024)
			c.mem.WriteUint32Le(4, uint32(n+1)*30_000)
			return c.call("fd_write", 1, 0, 1, atResult)
		}},
		{"iovecs", 20_000, 0, func(c *caller, _ int) (Errno, int) {
			return c.call("fd_write", 2, 0, maxIovecs, atResult)
		}},
	} {
		t.Run("OOM-06 "+test.name, func(t *testing.T) {
			account := &budgetOf{limit: test.limit}
			c := newCaller(t, ProcessConfig{Root: FS{Mounts: Devices()}, Memory: account, Stdin: silent, Stdout: &bytes.Buffer{}, MaxFDs: 1 << 14})
			c.ctx = exhaustibleContext{c.ctx}
			if account.used != 0 {
				t.Errorf("%d bytes are charged for what every process has", account.used)
			}
			steps := 0
			for ; ; steps++ {
				errno, exit := test.step(c, steps)
				if exit == 137 {
					break
				}
				if errno != 0 || exit >= 0 || steps == 1000 {
					t.Fatalf("step %d: %v, exit %d, %d bytes charged", steps, errno, exit, account.used)
				}
				if account.used < test.each*int64(steps+1)-test.each {
					t.Fatalf("after %d steps %d bytes are charged, want %d for each", steps+1, account.used, test.each)
				}
			}
			if err := c.p.Close(); err != nil || account.used != 0 {
				t.Errorf("%d bytes are still charged after the end (%v)", account.used, err)
			}
		})
	}
}

// What a guest gives back is not charged any more.
func TestChargesEnd(t *testing.T) {
	account := &budgetOf{limit: 1 << 20}
	c := newCaller(t, ProcessConfig{Memory: account, Stdin: strings.NewReader("")})
	c.want(0, "fd_dup", 3, atResult)
	one := account.used
	for range 3 {
		c.want(0, "fd_dup", 3, atResult)
		second := int(c.u32(atResult))
		set := c.set(0)
		c.want(0, "fd_renumber", second, 4)
		c.want(0, "fd_close", set)
		if account.used != one {
			t.Fatalf("%d bytes are charged, want those of one descriptor, %d", account.used, one)
		}
	}
	c.want(0, "fd_close", 4)
	if account.used != 0 {
		t.Errorf("%d bytes are charged for nothing", account.used)
	}
	// Without a way to end the guest it gets an error.
	account.limit = 0
	c.want(ErrnoNOMEM, "fd_dup", 3, atResult)
}
