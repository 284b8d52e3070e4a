package wasm

// Spare is how many slots are free.
func (e *Engine) Spare() int { return int(e.scheduler.spare.Load()) }

// EndAfterGrant ends a guest that waits, after it has been granted the only
// slot and before it has noticed, and returns how many are free when it has gone.
func EndAfterGrant() int {
	s := newScheduler(1)
	holder, waiter := s.newTurn(0), s.newTurn(0)
	holder.take()
	s.mu.Lock()
	waiter.request(0)
	s.mu.Unlock()
	holder.leave() // grants it
	waiter.end()
	if waiter.wait() {
		return -1
	}
	waiter.leave() // as run does
	return int(s.spare.Load())
}
