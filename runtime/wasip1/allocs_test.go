package wasip1

import (
	"io"
	"strings"
	"testing"
)

// TestCallsDoNotAllocate: what guests call all the time leaves nothing to Go's
// collector once it has been called before, with an account as containers have.
func TestCallsDoNotAllocate(t *testing.T) {
	if raceEnabled || testing.CoverMode() != "" {
		t.Skip("skipped: instrumented code allocates")
	}
	const iovec, subscription, events, buf, result = 0, 256, 512, 8192, 64
	for kind, root := range rootKinds {
		c := newCaller(t, ProcessConfig{
			Root: root(t, t.TempDir()), Stdin: zeros{}, Stdout: io.Discard, Prompt: true,
			Network: newFakeNet(), Memory: &purse{limit: 1 << 30},
		})
		file, _ := c.open(3, "f", int(oflagCreat))
		c.write(file, "0123456789")
		l := c.listen(80)
		client := c.connect(80)
		c.want(0, "sock_accept", l, 0, result)
		set := c.set(int(l))
		c.vectors(buf, 4096, buf, 100)
		c.mem.Write(subscription, clockSub(1, clockMonotonic, 0, 0))
		c.mem.Write(subscription+48, fdSub(2, eventRead, uint32(l)))
		for name, args := range map[string][]uint64{
			"fd_read":              {uint64(file), iovec, 1, result},
			"fd_read stdin":        {0, iovec, 1, result},
			"fd_pread":             {uint64(file), iovec, 1, 0, result},
			"fd_write":             {1, iovec + 8, 1, result},
			"fd_pwrite":            {uint64(file), iovec + 8, 1, 0, result},
			"fd_seek":              {uint64(file), 0, 0, result},
			"fd_filestat_get":      {uint64(file), 1024},
			"fd_fdstat_get":        {uint64(file), 1024},
			"clock_time_get":       {1, 0, result},
			"random_get":           {buf, 4096},
			"poll_oneoff":          {subscription, events, 1, result},
			"poll_oneoff a socket": {subscription, events, 2, result},
			"poll_wait":            {uint64(set), events, 16, 0, result},
			"sock_send":            {uint64(client), iovec + 8, 1, 0, result},
			"sched_yield":          nil,
		} {
			fn, _, _ := strings.Cut(name, " ")
			f := lookupFunction(fn)
			call, stack := hostFunction(f), make([]uint64, max(1, len(args)))
			var errno Errno
			allocs := testing.AllocsPerRun(50, func() {
				copy(stack, args)
				call(c.ctx, c.mod, stack)
				errno = Errno(stack[0])
			})
			if len(args) > 0 && errno != 0 && errno != ErrnoAGAIN {
				t.Errorf("%s, %s: %v", kind, name, errno)
			}
			if allocs != 0 {
				t.Errorf("%s, %s: %v allocations", kind, name, allocs)
			}
		}
	}
}
