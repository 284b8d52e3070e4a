package wasip1

import "testing"

// Guests at their limits leave the others what every guest has of its own, and
// give back what they took when they end.
func TestFileBudget(t *testing.T) {
	const streams = 3 // which are no files of the host
	before, most := hostFiles.used.Load(), hostFiles.max
	defer func() { hostFiles.max = most }()
	hostFiles.max = func() int64 { return before + 100 }

	root := rootFS(t.TempDir())
	fill := func(c *caller) (n int, errno Errno) {
		for n = 4; ; n++ {
			if _, errno := c.open(3, "f", int(oflagCreat)); errno != 0 {
				return n, errno
			}
		}
	}
	greedy := newCaller(t, ProcessConfig{Root: root})
	if n, errno := fill(greedy); n != ownFiles+100+streams || errno != ErrnoNFILE {
		t.Errorf("%d descriptors, then %v", n, errno)
	}
	if _, errno := greedy.open(3, "created", int(oflagCreat)); errno != ErrnoNFILE {
		t.Errorf("open: %v", errno)
	}
	modest := newCaller(t, ProcessConfig{Root: root})
	modest.want(ErrnoNOENT, "path_filestat_get", 3, 0, "created", 128)
	if n, errno := fill(modest); n != ownFiles+streams || errno != ErrnoNFILE {
		t.Errorf("beside a greedy guest: %d descriptors, then %v", n, errno)
	}
	greedy.want(0, "fd_close", 40)
	greedy.want(0, "fd_renumber", 41, 42)
	if n, errno := fill(modest); n != 4+2 || errno != ErrnoNFILE {
		t.Errorf("after two were closed: %d more, then %v", n-4, errno)
	}
	greedy.p.Close()
	modest.p.Close()
	if now := hostFiles.used.Load(); now != before {
		t.Errorf("%d files are counted after the end, %d before", now, before)
	}
	own := newCaller(t, ProcessConfig{Root: root, MaxFDs: 10})
	if n, errno := fill(own); n != 10 || errno != ErrnoMFILE {
		t.Errorf("with a limit of 10: %d descriptors, then %v", n, errno)
	}
}
