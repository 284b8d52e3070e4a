package wasip1

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// set makes a poll set of descriptors, whose userdata is their number.
func (c *caller) set(fds ...int) int {
	c.t.Helper()
	c.want(0, "poll_open", atResult)
	set := int(c.u32(atResult))
	for _, fd := range fds {
		c.want(0, "poll_control", set, fd, 3, uint64(fd))
	}
	return set
}

// happened waits for events, as text: "5rw" is descriptor 5 to read and write, h
// stands for hangup.
func (c *caller) happened(set int, timeout time.Duration) (string, Errno) {
	const room = 8
	errno, exit := c.call("poll_wait", set, atBuf, room, uint64(timeout), atResult)
	if exit >= 0 {
		return fmt.Sprintf("exit %d", exit), 0
	}
	if errno != 0 {
		return "", errno
	}
	var all []string
	for i := range c.u32(atResult) {
		at := atBuf + pollEventSize*i
		s := fmt.Sprint(c.u64(at))
		if uint32(c.u64(at)) != c.u32(at+12) {
			s += "?"
		}
		for bit, letter := range "rwh" {
			if c.u32(at+8)&(1<<bit) != 0 {
				s += string(letter)
			}
		}
		all = append(all, s)
	}
	return strings.Join(all, " "), 0
}

func (c *caller) wantEvents(want string, set int, timeout time.Duration) {
	c.t.Helper()
	if got, errno := c.happened(set, timeout); got != want || errno != 0 {
		c.t.Errorf("events %q, %v, want %q", got, errno, want)
	}
}

func TestPollSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newSocketCaller(t)
		client, server := c.pair(80)
		c.want(0, "fd_fdstat_set_flags", server, int(fdflagNonblock))
		set := c.set(server)
		began := time.Now()
		name := func(what string) string { return fmt.Sprint(server, what) }
		c.wantEvents(name("w"), set, 0) // as it is
		c.wantEvents("", set, 0)        // once

		// Nobody has asked for what comes, so it is an event.
		c.write(client, "a")
		c.wantEvents(name("r"), set, -1)
		c.write(client, "b")
		c.wantEvents("", set, time.Second)
		if text, _ := c.read(server); text != "ab" {
			t.Errorf("read %q", text)
		}
		c.write(client, "c")
		c.wantEvents("", set, time.Second) // the last read did not block
		c.read(server)
		if _, errno := c.read(server); errno != ErrnoAGAIN {
			t.Error(errno)
		}
		c.wantEvents("", set, time.Second)
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("three seconds were %v", took)
		}

		// It may come while the guest sleeps, and before.
		go func() {
			time.Sleep(time.Second)
			c.p.fds.entries[client].file.(*socket).s.Send([][]byte{[]byte("d")})
		}()
		c.wantEvents(name("r"), set, -1)

		// What is asked for again comes again.
		c.want(0, "poll_control", set, server, 1, uint64(server))
		c.wantEvents(name("r"), set, -1)
		c.want(0, "poll_control", set, server, 0, uint64(0))
		c.want(ErrnoNOENT, "poll_control", set, server, 0, uint64(0))
		c.wantEvents("", set, time.Second)
		c.want(0, "poll_control", set, server, 3, uint64(server))
		c.want(0, "fd_close", client)
		c.wantEvents(name("rwh"), set, -1)

		// A descriptor that is closed is in no set.
		c.want(0, "fd_close", server)
		c.want(ErrnoBADF, "poll_control", set, server, 0, uint64(0))
		c.wantEvents("", set, 0)
		c.want(0, "fd_close", set)
		if c.p.interests != 0 || c.p.pollSets != 0 {
			t.Errorf("%d interests and %d sets are left", c.p.interests, c.p.pollSets)
		}
	})
}

// A descriptor may be in several sets, a file in one set by several descriptors.
func TestPollSetShared(t *testing.T) {
	c, _ := newSocketCaller(t)
	client, server := c.pair(80)
	c.want(0, "fd_dup", server, atResult)
	second := int(c.u32(atResult))
	a, b := c.set(server, second), c.set(server)
	c.wantEvents(fmt.Sprintf("%dw %dw", server, second), a, -1)
	c.wantEvents(fmt.Sprintf("%dw", server), b, -1)
	c.write(client, "x")
	c.want(0, "fd_close", server)
	c.wantEvents(fmt.Sprintf("%dr", second), a, -1)
	c.wantEvents("", b, 0)
	c.want(0, "fd_renumber", second, client)
	c.wantEvents("", a, 0)
	c.want(0, "poll_control", a, client, 1, uint64(client))
	c.wantEvents(fmt.Sprintf("%drh", client), a, -1) // its peer was what it has replaced
	c.want(0, "fd_close", a)
	c.want(0, "fd_close", b)
}

func TestPollSetStreams(t *testing.T) {
	c := newCaller(t, ProcessConfig{Stdin: strings.NewReader("typed")})
	c.p.OnSignalLost(func(int) {})
	c.want(0, "signal_open", uint64(1<<14), atResult)
	signals := int(c.u32(atResult))
	c.want(0, "fd_fdstat_set_flags", signals, int(fdflagNonblock))
	set := c.set(signals)
	c.want(0, "poll_control", set, 0, 1, uint64(0))
	c.wantEvents("0r", set, -1)
	c.wantEvents("", set, 0)
	go c.p.Signal(15)
	c.wantEvents(fmt.Sprint(signals, "r"), set, -1)
	c.p.Signal(15)
	c.wantEvents("", set, time.Millisecond)
	c.read(signals)
	if _, errno := c.read(signals); errno != ErrnoAGAIN {
		t.Error(errno)
	}
	c.p.Signal(15)
	c.wantEvents(fmt.Sprint(signals, "r"), set, -1)
}

func TestPollSetErrors(t *testing.T) {
	n := newFakeNet()
	c := newCaller(t, ProcessConfig{Network: n, Root: rootFS(t.TempDir()), MaxFDs: 128})
	fd := c.socket(KindDatagram)
	set := c.set()
	c.want(ErrnoPERM, "poll_control", set, 3, 1, uint64(0)) // a directory is always ready
	c.want(ErrnoPERM, "poll_control", set, set, 1, uint64(0))
	c.want(ErrnoINVAL, "poll_control", set, fd, 4, uint64(0))
	c.want(ErrnoINVAL, "poll_control", fd, fd, 1, uint64(0))
	c.want(ErrnoBADF, "poll_control", 99, fd, 1, uint64(0))
	c.want(ErrnoBADF, "poll_control", set, 99, 1, uint64(0))
	c.want(ErrnoINVAL, "poll_wait", set, atBuf, 0, uint64(0), atResult)
	c.want(ErrnoINVAL, "poll_wait", set, atBuf, maxPollEvents+1, uint64(0), atResult)
	c.want(ErrnoFAULT, "poll_wait", set, 1<<32-16, 4, uint64(0), atResult)
	c.want(ErrnoINVAL, "poll_wait", fd, atBuf, 1, uint64(0), atResult)
	for range maxPollSets - 1 {
		c.set()
	}
	c.want(ErrnoMFILE, "poll_open", atResult)
	last := int(c.u32(atResult))
	c.want(0, "fd_close", last)
	last = c.set()
	// Interests have a bound of their own.
	for c.p.interests < 128 {
		c.want(0, "poll_control", last, fd, 1, uint64(0))
		c.want(0, "poll_control", set, fd, 1, uint64(0))
		if errno, _ := c.call("fd_dup", fd, atResult); errno != 0 {
			break
		}
		fd = int(c.u32(atResult))
	}
	c.p.interests = 128
	c.want(0, "poll_control", last, fd, 0, uint64(0))
	c.p.interests = 128
	c.want(ErrnoNOSPC, "poll_control", last, fd, 1, uint64(0))
}

// What leaves a set is not collected, though nobody waits.
func TestPollSetForgets(t *testing.T) {
	c, _ := newSocketCaller(t)
	fd := c.socket(KindDatagram)
	set := c.set()
	for range 10_000 {
		c.want(0, "poll_control", set, fd, 1, uint64(0))
		c.want(0, "poll_control", set, fd, 0, uint64(0))
	}
	s := c.p.fds.entries[set].file.(*pollSet)
	left := len(s.queue)
	for i := s.woken.Load(); i != nil; i = i.next {
		left++
	}
	if left > 200 {
		t.Errorf("%d of 10000 interests are kept", left)
	}
}

func TestKillPollSet(t *testing.T) {
	c, _ := newSocketCaller(t)
	fd := c.listen(80)
	set := c.set(fd)
	ctx, cancel := context.WithCancel(t.Context())
	c.ctx = WithProcess(ctx, c.p)
	time.AfterFunc(5*time.Millisecond, cancel)
	for range 2 { // while it waits, and before
		c.wantEvents("exit 137", set, -1)
	}
}

// Connections of another goroutine are written at random; each byte is heard of.
func TestPollSetLosesNothing(t *testing.T) {
	c, _ := newSocketCaller(t)
	const conns, bytes = 20, 200
	var clients, servers []int
	l := c.listen(80)
	for range conns {
		clients = append(clients, c.connect(80))
		c.want(0, "sock_accept", l, int(fdflagNonblock), atResult)
		servers = append(servers, int(c.u32(atResult)))
	}
	set := c.set(servers...)
	var wg sync.WaitGroup
	for _, fd := range clients {
		s := c.p.fds.entries[fd].file.(*socket).s
		wg.Go(func() {
			for range bytes {
				for range rand.IntN(20) {
					runtime.Gosched()
				}
				s.Send([][]byte{{'x'}})
			}
		})
	}
	for total := 0; total < conns*bytes; {
		events, errno := c.happened(set, 20*time.Second)
		if events == "" || errno != 0 {
			t.Fatalf("%d of %d bytes, then events %q, %v", total, conns*bytes, events, errno)
		}
		for _, e := range strings.Fields(events) {
			var fd int
			var what string
			fmt.Sscanf(e, "%d%s", &fd, &what)
			if !slices.Contains(servers, fd) {
				t.Fatalf("event %q", e)
			}
			for strings.Contains(what, "r") {
				text, errno := c.read(fd)
				if total += len(text); errno == ErrnoAGAIN {
					break
				}
			}
		}
	}
	wg.Wait()
}

// BenchmarkPollSetIdle is what BenchmarkPollIdle is, with a set.
func BenchmarkPollSetIdle(b *testing.B) {
	for _, conns := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(conns), func(b *testing.B) {
			c := newCaller(b, ProcessConfig{Network: newFakeNet(), MaxFDs: 2*conns + 100})
			l := c.listen(80)
			set := c.set()
			for range conns {
				c.connect(80)
				c.want(0, "sock_accept", l, int(fdflagNonblock), atResult)
				c.want(0, "poll_control", set, int(c.u32(atResult)), 1, uint64(c.u32(atResult)))
			}
			s := c.p.fds.entries[set].file.(*pollSet)
			ready := s.all[len(s.all)-1]
			b.ReportAllocs()
			for b.Loop() {
				ready.sock.Wake()
				if n, errno := s.wait(context.Background(), 0, 8, func(int, *interest, uint32) {}); n != 0 || errno != 0 {
					b.Fatal(n, errno)
				}
			}
		})
	}
}
