package wasm

import (
	"testing"
	"time"
)

// A guest that has used a little more than others need not wait for all who
// start meanwhile, however many, and none of them is lost.
func TestStormOfNewcomers(t *testing.T) {
	s := newScheduler(1)
	holder := s.newTurn(0)
	holder.take()
	old := s.newTurn(0)
	old.used.Store(int64(time.Hour))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue.Run(old.task, 0)
	arrived, served := 0, 0
	arrive := func(n int) {
		for range n {
			s.newTurn(0).enqueue(-newDebit)
			arrived++
		}
	}
	arrive(1000)
	for round := range 100 {
		old.task.Charge(500 * time.Microsecond) // its last request
		old.enqueue(wakeCredit)
		for n := 0; ; n++ {
			next := s.dequeue()
			if next == old {
				if round > 0 && n > 8 {
					t.Fatalf("round %d: %d newcomers went first", round, n)
				}
				break
			}
			served++
			next.task.Charge(300 * time.Microsecond) // and it ends
			arrive(1)
		}
	}
	for s.dequeue() != nil {
		served++
	}
	if served != arrived || s.young.queued != 0 || s.waiting.Load() != 0 {
		t.Errorf("%d of %d newcomers served, %d counted as queued, %d waiting", served, arrived, s.young.queued, s.waiting.Load())
	}
}

// Who is to end need not wait in the nursery for its turn.
func TestEndInTheNursery(t *testing.T) {
	s := newScheduler(1)
	var turns []*turn
	for range 3 * youngPerSlot {
		turn := s.newTurn(0)
		turns = append(turns, turn)
		s.mu.Lock()
		turn.enqueue(0)
		s.mu.Unlock()
	}
	for _, turn := range turns[1:] {
		if turn.end(); <-turn.granted {
			t.Error("granted a slot")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dequeue() != turns[0] || s.dequeue() != nil || s.young.queued != 0 || len(s.young.waiting) != 0 {
		t.Errorf("%+v", s.young)
	}
}
