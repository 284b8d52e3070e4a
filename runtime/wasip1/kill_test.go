package wasip1

import (
	"context"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmpod/wasmpod/test/wasmtest"
)

const goSleeper = `package main

import (
	"fmt"
	"time"
)

func main() {
	began := time.Now()
	time.Sleep(30 * time.Second)
	fmt.Println(time.Since(began), time.Now().UTC().Format(time.RFC3339))
	select {
	case <-time.After(time.Hour):
	}
	fmt.Println(time.Since(began))
}
`

// TestSleepInBubble: clocks and sleeps are those of package time.
func TestSleepInBubble(t *testing.T) {
	path := wasmtest.BuildGo(t, goSleeper)
	compile(t, path)
	synctest.Test(t, func(t *testing.T) {
		r := run(t, t.Context(), path, ProcessConfig{})
		if want := "30s 2000-01-01T00:00:30Z\n1h0m30s\n"; r.stdout != want || r.code != 0 {
			t.Errorf("code %d, %q, want %q", r.code, r.stdout, want)
		}
	})
}

// stuckWriter is a consumer that has gone away without closing.
type stuckWriter struct{ release chan struct{} }

func (w stuckWriter) Write(p []byte) (int, error) {
	<-w.release
	return len(p), nil
}

// TestKill: each call that may block ends when its context does.
func TestKill(t *testing.T) {
	poll := func(subs ...[]byte) func(c *caller) (Errno, int) {
		return func(c *caller) (Errno, int) {
			for i, s := range subs {
				c.mem.Write(uint32(48*i), s)
			}
			return c.call("poll_oneoff", 0, 1024, len(subs), 2048)
		}
	}
	for name, block := range map[string]func(c *caller) (Errno, int){
		"fd_read":              func(c *caller) (Errno, int) { c.mem.WriteUint32Le(4, 10); return c.call("fd_read", 0, 0, 1, 64) },
		"fd_write":             func(c *caller) (Errno, int) { c.mem.WriteUint32Le(4, 10); return c.call("fd_write", 1, 0, 1, 64) },
		"poll sleep":           poll(clockSub(1, clockMonotonic, uint64(time.Hour), 0)),
		"poll forever":         poll(clockSub(1, clockMonotonic, foreverTimeout, 0)),
		"poll stdin":           poll(fdSub(1, eventRead, 0)),
		"poll stdin and sleep": poll(fdSub(1, eventRead, 0), clockSub(2, clockRealtime, uint64(time.Hour), 0)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, feed := io.Pipe()
				out := stuckWriter{make(chan struct{})}
				c := newCaller(t, ProcessConfig{Stdin: in, Stdout: out})
				defer func() { feed.Close(); close(out.release) }()
				ctx, cancel := context.WithCancel(t.Context())
				c.ctx = WithProcess(ctx, c.p)
				began := time.Now()
				time.AfterFunc(time.Second, cancel)
				if errno, exit := block(c); exit != 137 {
					t.Errorf("%v, exit %d, want exit 137", errno, exit)
				}
				if d := time.Since(began); d != time.Second {
					t.Errorf("took %v", d)
				}
				if s := c.p.stdin; len(s.asleep.list) != 0 {
					t.Error("stdin still has watchers")
				}
			})
		})
	}
}

// TestStdinIsNotReadAhead: what the guest does not ask for stays with the host.
func TestStdinIsNotReadAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := strings.NewReader("input")
		c := newCaller(t, ProcessConfig{Stdin: r})
		synctest.Wait()
		if r.Len() != 5 {
			t.Fatal("read before it was asked for")
		}
		if text, errno := c.read(0); text != "input" || errno != 0 {
			t.Errorf("%q, %v", text, errno)
		}
		if text, errno := c.read(0); text != "" || errno != 0 {
			t.Errorf("at the end: %q, %v", text, errno)
		}
	})
}

func TestNonblockingStdin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, feed := io.Pipe()
		defer feed.Close()
		c := newCaller(t, ProcessConfig{Stdin: in})
		c.want(0, "fd_fdstat_set_flags", 0, int(fdflagNonblock))
		if _, errno := c.read(0); errno != ErrnoAGAIN {
			t.Errorf("%v, want EAGAIN", errno)
		}
		if _, err := feed.Write([]byte("now")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if text, errno := c.read(0); text != "now" || errno != 0 {
			t.Errorf("%q, %v", text, errno)
		}
	})
}

// Many subscriptions to many descriptors: each is watched once, and not any more
// when the call is over.
func TestPollManyDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCaller(t, ProcessConfig{})
		var files []*signalFile
		for n := range 2 { // the second time more of them
			for range 30 {
				c.want(0, "signal_open", uint64(1), 64)
				files = append(files, c.p.fds.entries[c.u32(64)].file.(*signalFile))
			}
			at, count := uint32(4096), 0
			subscribe := func(s []byte) {
				c.mem.Write(at, s)
				at += 48
				count++
			}
			for range 3 {
				for fd := range uint32(len(files)) {
					subscribe(fdSub(1, eventRead, 4+fd))
				}
			}
			subscribe(clockSub(3, clockMonotonic, uint64(time.Minute), 0))
			began := time.Now()
			time.AfterFunc(time.Second, func() { c.p.Signal(1) })
			c.want(0, "poll_oneoff", 4096, 32768, count, 64)
			// The latest descriptor has the signal, three times over.
			if got := c.u32(64); got != 3 || time.Since(began) != time.Second {
				t.Errorf("%d events after %v", got, time.Since(began))
			}
			if got, want := len(c.p.watched), len(files); got != want {
				t.Errorf("round %d: %d were watched, want %d", n, got, want)
			}
			for _, f := range files {
				if len(f.asleep.list) != 0 {
					t.Fatal("a descriptor is still watched")
				}
			}
			files[len(files)-1].take(make([]byte, 4))
		}
	})
}
