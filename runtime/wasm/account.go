package wasm

import "sync/atomic"

// Account is what one container's memory is charged to: the linear memories,
// tables, globals and stacks of its instances, and whatever the host keeps for
// it. It is safe for concurrent use; nothing in it blocks or allocates.
type Account struct {
	limit, used, peak atomic.Int64
	parent            *Account     // charged too
	refused           atomic.Int64 // the limit that was in the way when a charge last failed
}

// NewAccount returns an account with a limit in bytes; zero is unlimited.
func NewAccount(limit int64) *Account {
	a := &Account{}
	a.limit.Store(limit)
	return a
}

// Child returns an account with a limit of its own whose charges are this one's,
// too: that of a container of a pod.
func (a *Account) Child(limit int64) *Account {
	c := NewAccount(limit)
	c.parent = a
	return c
}

// Charge adds bytes, unless the limit would be exceeded: then it charges nothing
// and is false. A guest that asked for memory of its own is to end then (OOM-06);
// what the host keeps for it is refused with an error, as a kernel refuses
// buffers.
func (a *Account) Charge(bytes int64) bool {
	used := a.used.Add(bytes)
	if limit := a.limit.Load(); limit > 0 && used > limit && bytes > 0 {
		a.used.Add(-bytes)
		a.refused.Store(limit)
		return false
	}
	if a.parent != nil && !a.parent.Charge(bytes) {
		a.used.Add(-bytes)
		a.refused.Store(a.parent.refused.Load())
		return false
	}
	for peak := a.peak.Load(); used > peak && !a.peak.CompareAndSwap(peak, used); peak = a.peak.Load() {
	}
	return true
}

// Release takes back what was charged.
func (a *Account) Release(bytes int64) {
	a.used.Add(-bytes)
	if a.parent != nil {
		a.parent.Release(bytes)
	}
}

// Refused is the limit that was in the way when a charge last failed: the account's
// own, or one above.
func (a *Account) Refused() int64 { return a.refused.Load() }

// SetLimit changes the limit. What is charged already stays.
func (a *Account) SetLimit(limit int64) { a.limit.Store(limit) }

// Limit in bytes; zero is none.
func (a *Account) Limit() int64 { return a.limit.Load() }

// Used is what is charged now, and Peak the most that ever was, in bytes.
func (a *Account) Used() int64 { return a.used.Load() }

// Peak is the most that was ever charged.
func (a *Account) Peak() int64 { return a.peak.Load() }
