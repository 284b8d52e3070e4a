//go:build unix

package wasip1

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pollFD waits for a descriptor, and at most for a time. It says which of the
// two it was, the bytes and whether the other end is gone.
func (c *caller) pollFD(fd int, kind uint8, most time.Duration) (fired, hangup bool, exit int) {
	c.mem.Write(0, fdSub(1, kind, uint32(fd)))
	c.mem.Write(48, clockSub(2, clockMonotonic, uint64(most), 0))
	if _, exit := c.call("poll_oneoff", 0, 1024, 2, 2048); exit >= 0 {
		return false, false, exit
	}
	return c.u64(1024) == 1, c.u64(1024+24)&1 != 0, -1
}

func TestPollFIFO(t *testing.T) {
	root := t.TempDir()
	fifo := filepath.Join(root, "fifo")
	if err := unix.Mkfifo(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	c := newCaller(t, ProcessConfig{Root: rootFS(root)})
	fd, errno := c.openRead(3, "fifo", 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if fired, _, _ := c.pollFD(fd, eventRead, 0); fired {
		t.Error("an empty FIFO can be read")
	}
	if fired, _, _ := c.pollFD(fd, eventRead, time.Millisecond); fired {
		t.Error("an empty FIFO can be read a millisecond later")
	}
	for range 3 { // asleep or not when it comes
		go w.WriteString("x")
		if fired, hangup, _ := c.pollFD(fd, eventRead, time.Minute); !fired || hangup {
			t.Errorf("with a byte in it: fired %v, hangup %v", fired, hangup)
		}
		if text, errno := c.read(fd); text != "x" || errno != 0 {
			t.Errorf("read %q, %v", text, errno)
		}
	}
	go w.Close()
	if fired, hangup, _ := c.pollFD(fd, eventRead, time.Minute); !fired || !hangup {
		t.Errorf("without a writer: fired %v, hangup %v", fired, hangup)
	}
}

func TestPollFullFIFO(t *testing.T) {
	root := t.TempDir()
	fifo := filepath.Join(root, "fifo")
	if err := unix.Mkfifo(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := newCaller(t, ProcessConfig{Root: rootFS(root)})
	fd, errno := c.open(3, "fifo", 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	if fired, _, _ := c.pollFD(fd, eventWrite, time.Minute); !fired {
		t.Error("an empty FIFO cannot be written")
	}
	c.want(0, "fd_fdstat_set_flags", fd, int(fdflagNonblock))
	for errno == 0 {
		errno = c.write(fd, string(make([]byte, 4096)))
	}
	if errno != ErrnoAGAIN {
		t.Errorf("a full FIFO: %v", errno)
	}
	if fired, _, _ := c.pollFD(fd, eventWrite, time.Millisecond); fired {
		t.Error("a full FIFO can be written")
	}
	go r.Read(make([]byte, 1<<16))
	if fired, _, _ := c.pollFD(fd, eventWrite, time.Minute); !fired {
		t.Error("an emptied FIFO cannot be written")
	}
}

func TestKillPollOfFIFO(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(root, "fifo"), 0o666); err != nil {
		t.Fatal(err)
	}
	c := newCaller(t, ProcessConfig{Root: rootFS(root)})
	fd, errno := c.open(3, "fifo", 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c.ctx = WithProcess(ctx, c.p)
	time.AfterFunc(5*time.Millisecond, cancel)
	if _, _, exit := c.pollFD(fd, eventRead, time.Hour); exit != 137 {
		t.Errorf("exit %d, want 137", exit)
	}
	c.ctx = WithProcess(t.Context(), c.p)
	if fired, _, _ := c.pollFD(fd, eventRead, 0); fired {
		t.Error("fired after the kill")
	}
}
