package wasip1

import (
	"context"
	"fmt"
	"testing"
)

// BenchmarkSocketCalls has what a guest does most, without waiting: they must
// not allocate.
func BenchmarkSocketCalls(b *testing.B) {
	c, _ := newSocketCaller(b)
	client, server := c.pair(80)
	c.iovec(64)
	send, recv := lookupFunction("sock_send"), lookupFunction("sock_recv")
	stack := make([]uint64, 6)
	b.ReportAllocs()
	for b.Loop() {
		copy(stack, []uint64{uint64(client), atIovec, 1, 0, atResult})
		if errno := send.call(c.ctx, c.p, c.mem, stack); errno != 0 {
			b.Fatal(errno)
		}
		copy(stack, []uint64{uint64(server), atIovec, 1, 0, atResult, atFlags})
		if errno := recv.call(c.ctx, c.p, c.mem, stack); errno != 0 {
			b.Fatal(errno)
		}
	}
}

// BenchmarkPollIdle is one poll over idle connections, of which the last has
// something to read: what a Go guest does whenever it sleeps.
func BenchmarkPollIdle(b *testing.B) {
	for _, conns := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(conns), func(b *testing.B) {
			n := newFakeNet()
			c := newCaller(b, ProcessConfig{Network: n, MaxFDs: 2*conns + 100})
			l := c.listen(80)
			var in []byte
			for range conns {
				client := c.connect(80)
				c.want(0, "sock_accept", l, 0, atResult)
				in = append(in, fdSub(1, eventRead, uint32(client))...)
			}
			c.write(int(c.u32(atResult)), "x") // to the last one
			out := make([]byte, eventSize*conns)
			q := &polling{layout: &previewSubscription}
			b.ReportAllocs()
			for b.Loop() {
				*q = polling{in: in, out: out, layout: &previewSubscription}
				if n, errno := c.p.poll(context.Background(), q); n != 1 || errno != 0 {
					b.Fatal(n, errno)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(conns), "ns/conn")
		})
	}
}
