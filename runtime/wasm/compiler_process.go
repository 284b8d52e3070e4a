package wasm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
)

// What may be expensive to compile is compiled by a process of its own: this
// program again, under another name. wazero's time and memory grow with the
// square of some shapes of code, and nothing that can be counted beforehand
// bounds them tightly; its recursions may even end in a stack overflow, which
// no Go program survives. A process has a limit of memory and of processor
// time, has lower priority than guests, can be ended at any moment, and takes
// its garbage with it. Its result is the file that it leaves in the cache.
const processName = "wasmpod-compile"

// How that process ends, besides 0.
const (
	exitFailed = 1 // for the reason that it has written
	exitMemory = 3
	exitTime   = 4
)

const (
	// A process has compileMemory, and compileMemoryFactor bytes for each byte
	// of its module, but not more than mostCompileMemory.
	compileMemory       = 512 << 20
	compileMemoryFactor = 24
	mostCompileMemory   = 3 << 30
	// watchEvery is how often it looks at what it has used.
	watchEvery = 10 * time.Millisecond
	// maxProcessOutput is how much of what it says is kept.
	maxProcessOutput = 4 << 10
)

// errNoProcess says that the process could not be started at all.
var errNoProcess = errors.New("the compiler's process cannot be started")

func init() {
	if len(os.Args) == 4 && os.Args[0] == processName {
		os.Exit(compileProcess(os.Args[1], os.Args[2], os.Args[3]))
	}
}

// memoryFor is the limit of a process for a module of n bytes.
func memoryFor(n int) int64 {
	return slowdown * min(compileMemory+compileMemoryFactor*int64(n), mostCompileMemory)
}

// compileElsewhere has a process compile a module into a cache's directory. The
// processor time that it may take is most.
func (e *Engine) compileElsewhere(ctx context.Context, dir string, wasm []byte, most time.Duration) error {
	memory := memoryFor(len(wasm))
	cmd, err := processCommand(ctx)
	if err != nil {
		return errors.Join(errNoProcess, err)
	}
	cmd.Args = []string{processName, dir, strconv.FormatInt(memory, 10), strconv.FormatInt(int64(most), 10)}
	cmd.Env = []string{"GOMAXPROCS=" + strconv.Itoa(compileWorkers), "GOTRACEBACK=none"}
	output := &head{most: maxProcessOutput}
	cmd.Stdout, cmd.Stderr = output, output
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return errors.Join(errNoProcess, err)
	}
	started := time.Now()
	if err := startConfined(cmd, e.config.Confine); err != nil {
		return errors.Join(errNoProcess, err)
	}
	// The pipe stays open: the process ends when it closes, and so when this
	// one dies. That the other end has gone shows in how it ended.
	_, _ = stdin.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(wasm))))
	_, _ = stdin.Write(wasm)
	err = cmd.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	exited := (*exec.ExitError)(nil)
	if err == nil || !errors.As(err, &exited) {
		return err
	}
	if exited.ExitCode() == -1 && e.config.Killed != nil {
		if why, ok := e.config.Killed(cmd.Process.Pid, started); ok {
			return errKilled{why}
		}
	}
	text, _, _ := strings.Cut(strings.TrimSpace(string(output.b)), "\n")
	switch code := exited.ExitCode(); {
	case code == exitTime:
		return errTooLarge{fmt.Sprintf("it takes longer than %v to compile", most)}
	case code == exitMemory, strings.Contains(text, "out of memory"), strings.Contains(text, "cannot allocate memory"), strings.Contains(text, "stack overflow"), code == -1:
		// -1: by a signal, which is how the host ends who takes too much.
		return errTooLarge{fmt.Sprintf("it takes more than %d MiB of memory to compile", memory>>20)}
	case code == exitFailed && text != "":
		return errors.New(text)
	}
	return fmt.Errorf("the compiler failed: %v %s", err, text)
}

// errTooLarge is a module that its compiler's limits were not enough for.
type errTooLarge struct{ what string }

func (e errTooLarge) Error() string { return e.what }

// errKilled is a compiler that the system has ended for want of memory, whatever
// the module.
type errKilled struct{ why string }

func (e errKilled) Error() string { return "the compiler was ended: " + e.why }

// head is an io.Writer that keeps the first bytes.
type head struct {
	b    []byte
	most int
}

func (h *head) Write(p []byte) (int, error) {
	h.b = append(h.b, p[:min(len(p), h.most-len(h.b))]...)
	return len(p), nil
}

// compileProcess is the process: it compiles the module that comes from stdin,
// after its length.
func compileProcess(dir, memoryText, timeText string) int {
	memory, err1 := strconv.ParseInt(memoryText, 10, 64)
	most, err2 := strconv.ParseInt(timeText, 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		fmt.Println(err)
		return exitFailed
	}
	// Collect earlier rather than fail; and no stack that nothing is left beside.
	debug.SetMemoryLimit(memory / 4 * 3)
	debug.SetMaxStack(int(memory / 4))
	stepBack(memory)
	go watch(memory, time.Duration(most))
	if err := compileInput(dir, os.Stdin); err != nil {
		fmt.Println(err)
		return exitFailed
	}
	return 0
}

func compileInput(dir string, in io.Reader) error {
	var length [8]byte
	if _, err := io.ReadFull(in, length[:]); err != nil {
		return err
	}
	wasm := make([]byte, binary.LittleEndian.Uint64(length[:]))
	if _, err := io.ReadFull(in, wasm); err != nil {
		return err
	}
	go func() { // who wants the result has gone
		_, _ = io.Copy(io.Discard, in)
		os.Exit(exitFailed)
	}()
	ctx := context.Background()
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return err
	}
	r := wazero.NewRuntimeWithConfig(ctx, runtimeConfig(wazero.NewRuntimeConfigCompiler()).WithCompilationCache(cache))
	_, err = r.CompileModule(experimental.WithCompilationWorkers(ctx, compileWorkers), wasm)
	return err
}

// watch ends the process when it has used too much.
func watch(memory int64, most time.Duration) {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	for {
		time.Sleep(watchEvery)
		metrics.Read(samples)
		if int64(samples[0].Value.Uint64()-samples[1].Value.Uint64()) > memory {
			os.Exit(exitMemory)
		}
		if processorTime() > most {
			os.Exit(exitTime)
		}
	}
}
