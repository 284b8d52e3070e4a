package wasm

import (
	"context"
	"time"
)

// Interruptible is implemented by the context of every host call. Packages with
// host functions need not import this one for it: they can look for the same
// methods in an interface of their own, in the context that they are called
// with (not in one derived from it).
type Interruptible interface {
	// Interrupted is closed when a signal waits for the guest's handler. It is
	// nil while the handler runs, because nothing interrupts that, and in modules
	// without one. Like
	// Safepoint it may be called only on the goroutine of the host call.
	Interrupted() <-chan struct{}
	// Safepoint runs the guest's signal handler for what is pending, and does
	// not return if the guest is to end. The guest's memory may have grown
	// when it returns.
	Safepoint()
}

// Blocking is implemented by the context of every host call, as [Interruptible]
// is. Only so many guests execute at a time, and a host call that sleeps gives
// its guest's place to another one. Both methods may be called only on the
// goroutine of the host call.
type Blocking interface {
	// Leave is called before sleeping. It never blocks. Until Enter the guest's
	// memory may be used, but its code does not run.
	Leave()
	// Enter is called after sleeping, and before Safepoint. It waits for a place
	// and does not return if the guest is to end. Without Leave it does nothing.
	Enter()
}

// Parking is implemented by the context of every host call: the shortest way to
// sleep for a host call that others wake, as when two guests talk. The slot of a
// guest that parks goes straight to one that it has just unparked.
type Parking interface {
	// Park gives the guest's place back, sleeps until Unpark, and waits for a
	// place. If Unpark has been called since the last Park it returns at once; a
	// signal for the guest's handler makes it return, too. So who parks looks
	// again at what it waits for, and at Interrupted. It does not return if the
	// guest is to end. It may be called only on the goroutine of the host call.
	Park()
	// Unpark may be called from any goroutine, at any time, even after the guest
	// has ended. It never blocks. What a guest unparks that has lately parked right
	// after doing so may wait for that, until its next safepoint at most.
	Unpark()
}

// Timed is implemented by the context of every host call.
type Timed interface {
	// CPUTime is how long the guest has executed up to now. It may be called only
	// on the goroutine of the host call.
	CPUTime() time.Duration
}

// Exhaustible is implemented by the context of every host call.
type Exhaustible interface {
	// OutOfMemory ends the guest as one that has exceeded its memory limit
	// (OOM-06), for a host function that its [Account] has refused memory. It does
	// not return, and may be called only on the goroutine of the host call.
	OutOfMemory()
}

// guestContext is the context of an instance's calls. It is a type of its own
// so that host functions find their instance by a type assertion.
type guestContext struct {
	context.Context
	instance *Instance
}

type instanceKey struct{}

func (c *guestContext) Value(key any) any {
	if key == (instanceKey{}) {
		return c
	}
	return c.Context.Value(key)
}

func (c *guestContext) Interrupted() <-chan struct{} {
	if c.instance.handling || !c.instance.module.info.handler {
		return nil
	}
	return c.instance.wake.Load().c
}

func (c *guestContext) Safepoint() { c.instance.safepoint(c, true) }

// OutOfMemory implements [Exhaustible].
func (c *guestContext) OutOfMemory() { c.instance.outOfMemory() }

// guestOf returns the guest's context, or nil for calls from elsewhere.
func guestOf(ctx context.Context) *guestContext {
	if c, ok := ctx.(*guestContext); ok {
		return c
	}
	c, _ := ctx.Value(instanceKey{}).(*guestContext)
	return c
}
