package image

import (
	"context"
	"sync"
	"time"
)

const (
	defaultPullQPS   = 5
	defaultPullBurst = 10
)

// errPullQPS is worded as the kubelet does.
const errPullQPS = "pull QPS exceeded"

// turns are when the pulls of pods begin: one after the other, in the order in
// which they came, unless more are allowed at a time, and not more often than a
// bucket of tokens allows (TIME-24). One that finds the bucket empty fails, and
// backs off. What the operator pulls has no part in it.
type turns struct {
	slots chan struct{}

	mu     sync.Mutex
	qps    float64 // 0: no limit
	burst  float64
	tokens float64
	at     time.Time // when there were so many
}

func newTurns(r *Registries) *turns {
	t := &turns{slots: make(chan struct{}, r.MaxParallelPulls), burst: float64(r.PullBurst), tokens: float64(r.PullBurst)}
	if r.PullQPS > 0 {
		t.qps = r.PullQPS
	}
	return t
}

// take waits for a turn. Who has it calls done.
func (t *turns) take(ctx context.Context) (done func(), err error) {
	select {
	case t.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if !t.token(time.Now()) {
		<-t.slots
		return nil, &Error{Reason: ReasonErrImagePull, Message: errPullQPS}
	}
	return func() { <-t.slots }, nil
}

func (t *turns) token(now time.Time) bool {
	if t.qps == 0 {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.at.IsZero() {
		t.tokens = min(t.burst, t.tokens+now.Sub(t.at).Seconds()*t.qps)
	}
	t.at = now
	if t.tokens < 1 {
		return false
	}
	t.tokens--
	return true
}
