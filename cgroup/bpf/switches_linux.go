//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/cilium/ebpf"
)

// switchCounter reads how often processors switch contexts by the scheduler's own
// counts, which costs nobody's switches anything. It asks each processor, by interrupting
// it, only if all of them together switch so often that one may do so too often.
type switchCounter struct {
	program *ebpf.Program // switches in account.c

	all   uint64   // at the last call
	each  []uint32 // likewise, or nil
	begun bool
}

// busiest is how many times the processor that switched most did so since the last call.
// Where nobody says how often each does, it is how many times all did.
func (c *switchCounter) busiest() (uint64, error) {
	all, err := allSwitches()
	if err != nil {
		return 0, fmt.Errorf("count of context switches: %w", err)
	}
	last, first := c.all, !c.begun
	c.all, c.begun = all, true
	if first {
		c.each, _ = c.counts() // else they are known later
		return 0, nil
	}
	if all -= last; all < calmSwitches*uint64(lookEvery.Seconds())/2 {
		c.each = nil
		return all, nil // or less
	}
	were := c.each
	if c.each, err = c.counts(); err != nil {
		return all, nil
	}
	if were == nil {
		return 0, nil // it is known the next time
	}
	most := uint64(0)
	for i := range min(len(were), len(c.each)) {
		most = max(most, uint64((c.each[i]-were[i])%unknown))
	}
	return min(most, all), nil
}

// unknown is more than the program counts to.
const unknown = 1 << 31

// counts has one for each processor that there can be, modulo 1<<31; zero for those
// that are off line.
func (c *switchCounter) counts() ([]uint32, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, err
	}
	counts := make([]uint32, cpus)
	var failed []error
	for i := range counts {
		n, err := c.program.Run(&ebpf.RunOptions{Flags: runOnCPU, CPU: uint32(i)})
		switch {
		case err != nil:
			failed = append(failed, err)
		case n >= unknown:
			return nil, errors.New("the kernel does not say")
		default:
			counts[i] = n
		}
	}
	if len(failed) == cpus {
		return nil, errors.Join(failed...)
	}
	return counts, nil
}

// runOnCPU is BPF_F_TEST_RUN_ON_CPU.
const runOnCPU = 1

// allSwitches is how often all processors have switched contexts since the start.
func allSwitches() (uint64, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	_, rest, ok := bytes.Cut(stat, []byte("\nctxt "))
	if !ok {
		return 0, errors.New("not in /proc/stat")
	}
	n, _, _ := bytes.Cut(rest, []byte("\n"))
	return strconv.ParseUint(string(n), 10, 64)
}
