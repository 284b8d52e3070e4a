package bpf

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -tags linux -target amd64,arm64 -no-global-types confine confine.c -- -O2 -g -Wall -mcpu=v2

// ConfineMechanism is what a Confinement uses.
const ConfineMechanism = "BPF LSM"
