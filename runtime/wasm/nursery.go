package wasm

import (
	"time"
)

// When a thousand guests start at once each is owed as much as any other, and one
// that has been serving requests for hours waits for all of them: 4 to 10 s were
// measured, on two processors, with equal weights. So only a few of those that
// are new are in the queue at a time, and the others come after one another.
// They end no later for that, and most of them earlier. See also newDebit.

const (
	// youngFor is how much time a guest has used while it is new.
	youngFor = sliceLength
	// youngPerSlot is how many of them wait for a slot in the queue, for each.
	youngPerSlot = 4
)

// nursery is where new guests wait to be queued. It is under the mutex of its
// scheduler. While somebody is in it the queue is not empty.
type nursery struct {
	most    int
	queued  int     // of them in the queue
	waiting []*turn // first come, first served
}

// youngState is a turn's part, under s.mu.
type youngState struct {
	queued  bool // in the queue, and counted
	waiting bool // in the nursery
	credit  time.Duration
}

// enqueue has the guest wait for a slot.
func (t *turn) enqueue(credit time.Duration) {
	s := t.s
	if time.Duration(t.used.Load()) < youngFor {
		if s.young.queued >= s.young.most {
			t.young.waiting, t.young.credit = true, credit
			s.young.waiting = append(s.young.waiting, t)
			return
		}
		t.young.queued = true
		s.young.queued++
	}
	s.queue.Push(t.task, credit)
	s.waiting.Store(int32(s.queue.Len()))
}

// dequeue takes the guest out whose turn it is; nil if nobody waits.
func (s *scheduler) dequeue() *turn {
	task := s.queue.Pop()
	if task == nil {
		return nil
	}
	t := task.Value.(*turn)
	s.left(t)
	return t
}

// forget takes a guest out that is to end; false if it does not wait.
func (s *scheduler) forget(t *turn) bool {
	if g := t.sleep.giver; g != nil {
		g.disinherit()
		return true
	}
	if t.young.waiting {
		t.young.waiting = false // left finds that it is gone
		return true
	}
	if !s.queue.Remove(t.task) {
		return false
	}
	s.left(t)
	return true
}

// left is called when a guest has left the queue.
func (s *scheduler) left(t *turn) {
	if t.young.queued {
		t.young.queued = false
		s.young.queued--
	}
	for s.young.queued < s.young.most && len(s.young.waiting) > 0 {
		next := s.young.waiting[0]
		s.young.waiting[0] = nil
		s.young.waiting = s.young.waiting[1:]
		if next.young.waiting {
			next.young.waiting = false
			next.young.queued = true
			s.young.queued++
			s.queue.Push(next.task, next.young.credit)
		}
	}
	if len(s.young.waiting) == 0 {
		s.young.waiting = nil
	}
	s.waiting.Store(int32(s.queue.Len()))
}
