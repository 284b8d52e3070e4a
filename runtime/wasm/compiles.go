package wasm

import (
	"sync/atomic"
	"time"
)

// compiles counts what was done to make modules executable.
type compiles struct {
	built, compiled, failed atomic.Uint64
	time                    atomic.Int64
}

// Compiles says how modules have become executable: compiled, or found in the
// cache on disk; one that is in use already counts as neither. Failed are those
// that cannot run. Time was spent compiling, on the clock.
type Compiles struct {
	Compiled, Cached, Failed uint64
	Time                     time.Duration
}

// Compiles returns the figures since the Engine was made.
func (e *Engine) Compiles() Compiles {
	c := Compiles{Compiled: e.compiles.compiled.Load(), Failed: e.compiles.failed.Load(), Time: time.Duration(e.compiles.time.Load())}
	if built := e.compiles.built.Load(); built > c.Compiled { // one may be between the two
		c.Cached = built - c.Compiled
	}
	return c
}
