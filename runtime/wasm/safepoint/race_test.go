//go:build race

package safepoint_test

// raceEnabled: the race detector slows wazero's compiler far more than its
// interpreter slows these guests.
const raceEnabled = true
