// Package schedule decides which guest runs next: weighted fair queueing by
// virtual time.
//
// Every task has a virtual time, which advances by what it has run divided by
// its weight; the one that is furthest behind goes first. So tasks that always
// want to run get time in proportion to their weights, and how long a single
// slice took does not matter, because it is charged as measured.
//
// A task that slept is not owed what it did not want: when it becomes runnable
// it is put at the queue's virtual time, less a small credit that lets it run
// before those that never sleep. Likewise a task whose weight entitles it to
// more than the one processor that it can use does not save up for later.
//
// The package is pure, and its types are not safe for concurrent use.
package schedule

import (
	"container/heap"
	"time"
)

// The weights of tasks are cpu.shares (RES-04).
const (
	MinShares     = 2
	MaxShares     = 262144
	DefaultShares = 1024 // those of one core
)

// Task is one that can wait in a Queue.
type Task struct {
	Value any // for the owner

	shares  int64
	virtual int64  // nanoseconds at DefaultShares; compared by difference, it may wrap
	seq     uint64 // of its last Push, so that equals go first come, first served
	index   int    // in the heap plus 1; 0 when not queued
}

// NewTask returns a task with these shares; zero means DefaultShares, and what
// is out of range is brought into it.
func NewTask(shares int64, value any) *Task {
	t := &Task{Value: value}
	t.SetShares(shares)
	return t
}

// SetShares changes the shares, as NewTask takes them, for what it runs from now
// on. It may be waiting.
func (t *Task) SetShares(shares int64) {
	if shares == 0 {
		shares = DefaultShares
	}
	t.shares = min(max(shares, MinShares), MaxShares)
}

// Charge notes that the task has run for d.
func (t *Task) Charge(d time.Duration) { t.virtual += t.scale(d) }

// scale turns running time into virtual time.
func (t *Task) scale(d time.Duration) int64 {
	if d < 1<<40 && d >= 0 { // 18 minutes, as good as always: one division
		return int64(d) * DefaultShares / t.shares
	}
	// In two steps: an hour in nanoseconds times the shares still fits.
	return int64(d)/t.shares*DefaultShares + int64(d)%t.shares*DefaultShares/t.shares
}

// Before says whether t is further behind than u.
func (t *Task) Before(u *Task) bool { return t.virtual-u.virtual < 0 }

// Queue holds the tasks that wait. The zero value is ready.
type Queue struct {
	tasks byVirtual
	// virtual is where the task was that was dispatched last and furthest on:
	// the present, as newcomers see it.
	virtual int64
	seq     uint64
}

// Len is the number of waiting tasks.
func (q *Queue) Len() int { return len(q.tasks) }

// Push makes a task wait. At most credit of running time is owed to it from
// before. A task that waits already stays where it is.
func (q *Queue) Push(t *Task, credit time.Duration) {
	if t.index != 0 {
		return
	}
	q.catchUp(t, credit)
	q.seq++
	t.seq = q.seq
	heap.Push(&q.tasks, t)
}

// Pop takes the task out that goes next; nil if none waits.
func (q *Queue) Pop() *Task {
	if len(q.tasks) == 0 {
		return nil
	}
	t := heap.Pop(&q.tasks).(*Task)
	q.dispatched(t)
	return t
}

// Run is Push and Pop of a task that need not wait, because nobody does.
func (q *Queue) Run(t *Task, credit time.Duration) {
	q.catchUp(t, credit)
	q.dispatched(t)
}

// Remove takes a task out that shall not run; false if it does not wait.
func (q *Queue) Remove(t *Task) bool {
	if t.index == 0 {
		return false
	}
	heap.Remove(&q.tasks, t.index-1)
	return true
}

// Next is the task that Pop would return.
func (q *Queue) Next() *Task {
	if len(q.tasks) == 0 {
		return nil
	}
	return q.tasks[0]
}

func (q *Queue) catchUp(t *Task, credit time.Duration) {
	if earliest := q.virtual - t.scale(credit); t.virtual-earliest < 0 {
		t.virtual = earliest
	}
}

func (q *Queue) dispatched(t *Task) {
	if q.virtual-t.virtual < 0 {
		q.virtual = t.virtual
	}
}

// byVirtual implements heap.Interface.
type byVirtual []*Task

func (h byVirtual) Len() int { return len(h) }

func (h byVirtual) Less(i, j int) bool {
	if d := h[i].virtual - h[j].virtual; d != 0 {
		return d < 0
	}
	return h[i].seq < h[j].seq
}

func (h byVirtual) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}

func (h *byVirtual) Push(t any) {
	t.(*Task).index = len(*h) + 1
	*h = append(*h, t.(*Task))
}

func (h *byVirtual) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	t.index = 0
	return t
}
