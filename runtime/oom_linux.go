package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/cgroup"
	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/cgroup/cgroupfs"
)

// bpffs is where what the kernel did to a process is kept until the next one
// asks.
const bpffs = "/sys/fs/bpf"

// oomWatch is of this process, which all Runtimes in it share. Like accounting it is
// not closed.
var oomWatch = sync.OnceValue(func() *bpf.OOMWatch { return bpf.WatchOOM(bpf.OOMConfig{}) })

// oomRecord is what a process leaves behind in its lock file, for the next to find
// out whether the kernel has killed it for want of memory.
type oomRecord struct {
	PID int `json:"pid"`
	// Boot is of the machine: nothing here means anything after the next.
	Boot string `json:"boot"`
	// Pin is the name of the file below bpffs; empty: there is none.
	Pin string `json:"pin,omitempty"`
	// Groups are where the process's memory is charged, from the innermost on.
	Groups []cgroupfs.MemoryGroup `json:"groups,omitempty"`
	// Alone says that nobody else's processes are in the innermost.
	Alone bool `json:"alone,omitempty"`
	// Kills is what the innermost has counted that were not this process.
	Kills uint64 `json:"kills"`
}

// pinName is what our files below bpffs are called.
var pinName = regexp.MustCompile(`^wasmpod-[0-9a-zA-Z-]{1,64}$`)

const maxOOMRecord = 1 << 16

// readOOMRecord reads a lock file; nil if there is no record of this boot in it.
func readOOMRecord(lock *os.File) *oomRecord {
	b := make([]byte, maxOOMRecord)
	n, _ := lock.ReadAt(b, 0)
	var r oomRecord
	if json.NewDecoder(bytes.NewReader(b[:n])).Decode(&r) != nil || r.Boot != bootID() {
		return nil
	}
	return &r
}

func (r *oomRecord) write(lock *os.File) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	// Cut short it is no record, and longer than before it is one followed by the
	// rest of the last.
	_, err = lock.WriteAt(append(b, '\n'), 0)
	return err
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

// oomEnd says how the kernel has killed the process that had this lock, if it has;
// else it returns "".
func oomEnd(lock *os.File) string {
	r := readOOMRecord(lock)
	if r == nil {
		return ""
	}
	if pinName.MatchString(r.Pin) {
		switch k, killed, err := bpf.LastOOMKill(filepath.Join(bpffs, r.Pin)); {
		case err == nil && killed:
			return fmt.Sprintf("the kernel has killed an earlier wasmpod for want of memory%s: %v", whoseLimit(&k, r.Groups), &k)
		case err == nil:
			return "" // by somebody else
		}
	}
	if len(r.Groups) == 0 {
		return ""
	}
	switch n, err := r.Groups[0].OOMKills(); {
	case err != nil || n <= r.Kills:
		return ""
	case r.Alone:
		return fmt.Sprintf("the kernel has killed an earlier wasmpod (process %d) for want of memory: cgroup %s counts %d OOM kills, %d of them of others",
			r.PID, r.Groups[0].Path, n, r.Kills)
	default:
		return fmt.Sprintf("the kernel may have killed an earlier wasmpod (process %d) for want of memory: of the processes in cgroup %s it has killed %d since",
			r.PID, r.Groups[0].Path, n-r.Kills)
	}
}

// whoseLimit says what memory did not suffice, as far as that is known.
func whoseLimit(k *bpf.OOMKill, groups []cgroupfs.MemoryGroup) string {
	switch {
	case !k.LimitKnown:
		return ""
	case k.Limit == 0:
		return ", as the machine had none left"
	}
	for _, g := range groups {
		if g.ID == k.Limit {
			return fmt.Sprintf(", by the limit of cgroup %s (%s)", g.Path, cgroup.Bytes(g.Limit()))
		}
	}
	return fmt.Sprintf(", by the limit of cgroup number %d", k.Limit)
}

// oomGuard says whom of our processes the kernel kills, and which it is to spare.
type oomGuard struct {
	log  *slog.Logger
	tell func(message string)
	lock *os.File

	mu     sync.Mutex
	record oomRecord
	watch  *bpf.OOMWatch // nil until it is loaded
	// unpin removes the pin; unpinned is why there is none.
	unpin    func() error
	unpinned error

	score *oomScore // nil: left alone
}

func (r *Runtime) newOOMGuard() *oomGuard {
	g := &oomGuard{log: r.cfg.Log, lock: r.run.lock, tell: func(m string) { r.nodeEvent("OOMKilling", m) }}
	g.record = oomRecord{PID: os.Getpid(), Boot: bootID(), Alone: r.wall != nil}
	if host, err := cgroupfs.Detect(); err == nil {
		g.record.Groups, _ = host.MemoryGroups()
	}
	g.count()
	if err := g.record.write(g.lock); err != nil {
		g.log.Warn("the next start will not know whether the kernel has killed this process", "error", err)
	}
	if r.wall != nil {
		g.score = newOOMScore(r.cfg.Log, totalMemory())
	}
	return g
}

// count notes how many of the group's processes the kernel has killed by now. g.mu is
// held, or nobody else knows of g.
func (g *oomGuard) count() (more bool) {
	if len(g.record.Groups) == 0 {
		return false
	}
	n, err := g.record.Groups[0].OOMKills()
	if err != nil {
		return false
	}
	more = n > g.record.Kills
	g.record.Kills = n
	return more
}

// start loads the programs, once there has been time for what is more urgent. It
// returns false if ctx has ended before.
func (g *oomGuard) start(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(loadDelay):
	}
	w := oomWatch()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watch = w
	if w.Mechanism() != bpf.OOMNone {
		pin := "wasmpod-" + strings.TrimSuffix(filepath.Base(g.lock.Name()), ".lock") + "-" + strconv.Itoa(os.Getpid())
		if g.unpin, g.unpinned = w.Keep(filepath.Join(bpffs, pin)); g.unpinned == nil {
			g.record.Pin = pin
			g.unpinned = g.record.write(g.lock)
		}
	}
	return true
}

// killed says whether the kernel has ended a process of ours for want of memory, that
// was started at this time and has ended by a signal.
func (g *oomGuard) killed(pid int, started time.Time) (why string, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	more := g.count()
	if g.watch != nil && g.watch.Mechanism() != bpf.OOMNone {
		k, killed := g.watch.Killed(pid, bpf.Now()-int64(time.Since(started)))
		if !killed {
			return "", false
		}
		why = fmt.Sprintf("the kernel has killed it for want of memory%s: %v", whoseLimit(&k, g.record.Groups), &k)
	} else if more {
		why = fmt.Sprintf("the kernel has killed it for want of memory: it counts one more OOM kill in cgroup %s", g.record.Groups[0].Path)
	} else {
		return "", false
	}
	if err := g.record.write(g.lock); err != nil {
		g.log.Warn("the record of OOM kills", "error", err)
	}
	g.log.Warn("a process of wasmpod's was ended", "pid", pid, "why", why)
	g.tell(why)
	return why, true
}

// close says that this process ends by itself.
func (g *oomGuard) close() error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.score.close()
	if g.unpin == nil {
		return nil
	}
	err := g.unpin()
	g.unpin = nil
	return err
}

// runs and gone tell of pods.
func (g *oomGuard) runs(pod *corev1.Pod) { g.score.runs(pod) }
func (g *oomGuard) gone(uid types.UID)   { g.score.gone(uid) }

// oomScore has the kernel spare this process as much as the pod in it that is to be
// spared most (OOM-04). It never asks to be ended sooner than as it was started: with it
// all pods would end, and the compiler's processes, which are to go first, would not.
// Nil does nothing.
type oomScore struct {
	log      *slog.Logger
	capacity int64
	began    int

	mu      sync.Mutex
	pods    map[types.UID]int
	counts  map[int]int // how many pods are worth this
	now     int
	refused bool
}

const oomScoreFile = "/proc/self/oom_score_adj"

func newOOMScore(log *slog.Logger, capacity int64) *oomScore {
	b, err := os.ReadFile(oomScoreFile)
	began, err2 := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || err2 != nil {
		return nil
	}
	return &oomScore{log: log, capacity: capacity, began: began, now: began, pods: make(map[types.UID]int), counts: make(map[int]int)}
}

func (s *oomScore) runs(pod *corev1.Pod) {
	if s == nil {
		return
	}
	worth := cgroup.BestEffortOOMScoreAdj
	for i := range pod.Spec.Containers {
		worth = min(worth, cgroup.OOMScoreAdj(&pod.Spec, &pod.Spec.Containers[i], s.capacity))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(pod.UID)
	s.pods[pod.UID] = worth
	s.counts[worth]++
	s.set(s.least())
}

func (s *oomScore) gone(uid types.UID) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(uid)
	s.set(s.least())
}

func (s *oomScore) forget(uid types.UID) {
	if worth, ok := s.pods[uid]; ok {
		delete(s.pods, uid)
		if s.counts[worth]--; s.counts[worth] == 0 {
			delete(s.counts, worth)
		}
	}
}

func (s *oomScore) least() int {
	least := s.began
	for worth := range s.counts {
		least = min(least, worth)
	}
	return least
}

func (s *oomScore) set(adj int) {
	if adj == s.now {
		return
	}
	if err := os.WriteFile(oomScoreFile, []byte(strconv.Itoa(adj)), 0); err != nil {
		if !s.refused {
			s.log.Warn("the kernel does not spare this process for its Guaranteed pods: that needs CAP_SYS_RESOURCE", "oom_score_adj", adj, "error", err)
		}
		s.refused = true
		return
	}
	s.now = adj
}

func (s *oomScore) close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(s.began)
}
