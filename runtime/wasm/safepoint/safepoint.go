// Package safepoint rewrites WebAssembly modules so that a busy guest comes
// back to its host every few hundred microseconds.
//
// wazero cannot interrupt machine code: a guest in a loop keeps its goroutine,
// and a goroutine that never yields holds up Go's stop-the-world and with it
// the whole process. So every module counts its own work and calls the host
// function wasmpod:engine.safepoint when its budget has run out. That call is where a
// guest is preempted, killed or given a signal.
//
// # What is inserted
//
// One mutable global, the module's last, holds the remaining budget in units of
// about 64 bytes of code. A function takes the longest path through it when
// entered (small functions that neither loop nor call are covered by their
// callers). A loop counts the path that it takes in a local variable, which
// stays in a register, and takes from the global once per flush; see
// [flushEvery] and prepaid. What is charged in all, the sum of the budgets less
// what remains, depends on the module and its input alone.
//
// memory.fill and memory.copy become calls of functions that do the work in
// chunks, so that clearing 4 GiB stays interruptible; the other bulk operations
// are charged by size. memory.atomic.wait on a shared memory becomes a host
// call, because wazero's own would block where nobody can wake it. ref.func
// becomes table.get of a table that the rewriter adds, the module's last: wazero
// makes a new reference each time that ref.func is executed, and keeps them all.
//
// The rewriter is also the first line of defence: it checks every declared
// length against the bytes that follow before wazero, which allocates by
// declared lengths, sees the module. It checks the binary format and every
// index; types are left to wazero's validator, which sees the result.
//
// The package is pure: the same module gives the same bytes.
package safepoint

// Version names the shape of the inserted code. Caches of compiled code are
// keyed by it; change it whenever the output for some module changes.
const Version = "7"

// The host functions that rewritten modules import.
const (
	// HostModule is between the rewriter and the engine: no guest may import it.
	HostModule = "wasmpod:engine"
	// HostSafepoint is safepoint(flags i32) (budget i32): called when the
	// budget has run out, returns the next one. See [FlagSignals].
	HostSafepoint = "safepoint"
	// HostWait32 and HostWait64 replace memory.atomic.wait32 and wait64 in
	// modules with a shared memory: (address i32, expected i32|i64, timeout
	// i64, offset i32) (i32), results as in the threads proposal.
	HostWait32 = "atomic_wait32"
	HostWait64 = "atomic_wait64"
)

// HelperPrefix begins the names of the functions that the rewriter adds, as
// they show in stack traces of modules with a name section.
const HelperPrefix = "wasmpod."

// FlagSignals is set in the argument of safepoint where a signal handler of
// the guest may run. It is clear in functions that may keep data below the
// stack pointer (LLVM's red zone), which a handler would overwrite.
const FlagSignals = 1

// Budget is how many units a guest gets at the start, and a sensible number for
// the host to return from safepoint: well under a millisecond of work.
const Budget = 1 << 16

const (
	// flushEvery bounds the work that a function's loops do before it first
	// shows in the global: a counter that is never flushed would hide in a
	// function that loops a little and is called a lot.
	flushEvery = 128
	// prepaid is charged in advance with every flush, so that a function that
	// keeps looping flushes less often.
	prepaid = 896
	// loopSurcharge is taken at the entry of functions with loops, for what
	// may stay unflushed when they return.
	loopSurcharge = 16
	// settleBytes of code on a path through a loop are counted on the way.
	settleBytes = 512
	// A unit is this many bytes of code.
	unitShift = 6
	// Functions without loops and calls up to this size are not charged.
	freeLeafBytes = 128
	// callBytes is added to the size of code for every call it contains.
	callBytes = 16

	chunkBytes     = 256 << 10 // of memory.fill and memory.copy between safepoints
	smallBulkBytes = 4 << 10   // up to which they are not charged apart
	memoryShift    = 8         // bytes per unit, as a power of two
	tableShift     = 4         // table elements per unit, as a power of two
)

// Limits of a module, after those that the web's engines share. Beyond them
// wazero may allocate out of proportion to the module's size.
const (
	maxModuleBytes = 1 << 30
	maxTypes       = 20_000 // wazero remembers each signature for as long as it runs
	maxFunctions   = 1_000_000
	maxImports     = 10_000 // each takes 24 bytes in each instance
	maxExports     = 1_000_000
	maxGlobals     = 1_000_000
	maxSegments    = 100_000 // of data or of elements, as Go's linker and V8 have it
	maxElements    = 1 << 19 // of all segments together
	maxTables      = 100
	maxParams      = 1_000
	maxResults     = 1_000
	maxLocals      = 50_000
	maxBodyBytes   = 7_654_321
	maxDepth       = 10_000 // of nested blocks
	maxBranches    = 65_520 // in one br_table
	maxNameBytes   = 100_000
	// wazero goes through all exports for each function.
	maxFunctionsExports = 1 << 28
)

// Options change what Rewrite allows. The zero value is sensible.
type Options struct {
	// TableElements bounds the elements of all tables together, which are not
	// part of linear memory: a module that starts with more is refused, and
	// table.grow fails beyond it. Zero means 1 Mi elements, 8 MiB.
	TableElements uint32
	// ImportName, if not nil, may give an imported function another name, by the
	// number of its parameters: some ABIs have several functions of one name.
	ImportName func(module, name string, params int) string
}

// Rewrite returns the module with safepoints inserted. The error is an *Error.
func Rewrite(module []byte, opts Options) ([]byte, error) {
	if opts.TableElements == 0 {
		opts.TableElements = 1 << 20
	}
	m, err := decode(module, opts)
	if err != nil {
		return nil, err
	}
	return m.encode()
}

// Import is something that a module needs from its host.
type Import struct {
	Module, Name string
	Kind         string // function, table, memory, global or tag
	Params       int    // of a function
}

// Imports lists what an original (not rewritten) module imports, in its order.
func Imports(module []byte) ([]Import, error) {
	m, err := decode(module, Options{TableElements: ^uint32(0)})
	if err != nil {
		return nil, err
	}
	return m.imports, nil
}
