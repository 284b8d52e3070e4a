package wasip1

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero/sys"
)

// killed ends a guest from inside a host call when the call's context is done.
// The engine knows the true reason and puts it in the place of this one.
var killed = sys.NewExitError(137)

// DefaultMaxFDs is the limit of open descriptors where ProcessConfig has none.
const DefaultMaxFDs = 1024

// Account pays for memory of the host's. Charge is false, and charges nothing, if
// it cannot.
type Account interface {
	Charge(bytes int64) bool
	Release(bytes int64)
}

// ProcessConfig is what one guest is given. The zero value is a guest with no
// arguments, an empty environment, an empty file system and no streams.
type ProcessConfig struct {
	Args []string // argv, argv[0] included
	Env  []string // KEY=value

	// Stdin is read by a goroutine, which starts when the guest first wants input
	// and ends with its first Read after Close. Nil is at its end at once.
	Stdin io.Reader
	// Stdout and Stderr get each write as it is made, from one goroutine each. A
	// guest waits for the Write, but can be killed while it waits. Nil discards.
	Stdout, Stderr io.Writer
	// Prompt says that a Write of Stdout or Stderr does not wait for anybody, as
	// that of a log file: it is made on the guest's goroutine, where a kill has to
	// wait for its end.
	Prompt bool
	// TTY makes the three streams character devices, which guests take for a
	// terminal; otherwise they look like pipes.
	TTY bool

	Root FS // see Devices for the usual device nodes
	// Files, if not nil, is a process whose files are this one's too, through the
	// same mounts, in place of Root. It is closed only after this one.
	Files  *Process
	MaxFDs int       // 0: DefaultMaxFDs
	Memory Account   // pays for what the host remembers; nil: nobody
	Rand   io.Reader // nil: crypto/rand

	// Network is that of the pod. Without one there are no sockets.
	Network Network
	// Listeners are sockets that listen already, which the guest finds as
	// descriptors 3 and up, before the root directory; with ListenersLast after
	// it, from 4. The process closes them, also when NewProcess fails.
	Listeners     []Socket
	ListenersLast bool

	Hostname string   // NET-01
	UID, GID uint32   // who the guest is (SEC-04)
	Groups   []uint32 // supplementary groups
}

// Process is the host's side of one running guest. Its functions are called by
// that guest's host calls, one at a time; only Close is for others.
type Process struct {
	args, env []string
	rand      io.Reader
	ns        *namespace
	shares    bool // ns is another process's
	fds       table

	stdin          *input
	stdout, stderr *output

	start   time.Time
	blocked time.Duration // spent asleep in poll_oneoff, no CPU time

	wake  *waker
	timer *time.Timer
	away  away

	pollSets  int
	interests int         // in all of them
	inSet     atomic.Bool // it sleeps in wait of a poll set
	wakeTimer *time.Timer

	network   Network
	hostname  string
	owner     owner
	groups    []uint32
	signals   signals
	listeners struct{ from, to uint32 } // descriptors at the start

	close sync.Once

	listing      []*openDir // that remember entries, the latest last
	listingBytes int64      // charged for them
	memory       Account
	held         int64 // charged for the rest that the process keeps
	exhausted    bool  // the guest is to end, as hold was false

	// Reused from call to call, so that the common ones do not allocate.
	worked  int // since others last had a turn, see work
	walk    walk
	iovecs  [][]byte
	watched []watched
	polled  []uint64 // bits of descriptors, see isNew

	rotation int // of the name servers
}

// NewProcess opens the file system and the standard streams. Errors name the
// mount or string that is wrong.
func NewProcess(c ProcessConfig) (_ *Process, err error) {
	defer func() {
		if err != nil {
			for _, l := range c.Listeners {
				l.Close()
			}
		}
	}()
	for _, s := range c.Args {
		if strings.IndexByte(s, 0) >= 0 {
			return nil, fmt.Errorf("argument %q: contains a NUL byte", s)
		}
	}
	for _, s := range c.Env {
		if strings.IndexByte(s, 0) >= 0 {
			return nil, fmt.Errorf("environment variable %q: contains a NUL byte", s)
		}
	}
	if c.MaxFDs == 0 {
		c.MaxFDs = DefaultMaxFDs
	}
	if c.MaxFDs < 4+len(c.Listeners) {
		return nil, errors.New("a guest needs at least 4 file descriptors and one for each listener")
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	var ns *namespace
	if c.Files != nil {
		ns = c.Files.ns
	} else {
		var err error
		if ns, err = openFS(c.Root); err != nil {
			return nil, err
		}
	}
	kind := filetypeUnknown // preview 1 has no type for pipes
	if c.TTY {
		kind = filetypeCharacterDevice
	}
	p := &Process{
		args:   c.Args,
		env:    c.Env,
		rand:   c.Rand,
		ns:     ns,
		shares: c.Files != nil,
		fds:    table{max: c.MaxFDs},
		stdin:  newInput(c.Stdin, kind),
		stdout: newOutput(c.Stdout, c.Prompt, kind, 2),
		stderr: newOutput(c.Stderr, c.Prompt, kind, 3),

		start: time.Now(),
		wake:  newWaker(),

		network:  c.Network,
		memory:   c.Memory,
		hostname: c.Hostname,
		owner:    owner{c.UID, c.GID},
		groups:   c.Groups,
	}
	p.walk.ns = ns
	const reading, writing = rightsStream &^ rightFdWrite, rightsStream &^ rightFdRead
	p.fds.insert(descriptor{file: p.stdin, rights: reading})
	p.fds.insert(descriptor{file: p.stdout, rights: writing})
	p.fds.insert(descriptor{file: p.stderr, rights: writing})
	root := ns.base()
	if root.fd >= 0 {
		// A descriptor of its own: listing it must not disturb the mount's.
		if root.fd, _ = hostOpen(root.fd, ".", openFlags{read: true, directory: true}); root.fd < 0 {
			if c.Files == nil {
				ns.close()
			}
			return nil, errors.New("mount /: cannot be opened for reading")
		}
	}
	if !c.ListenersLast {
		p.listen(c.Listeners)
	}
	p.fds.insert(descriptor{
		file:       &openDir{ns: ns, at: root},
		rights:     rightsDir,
		inheriting: rightsAll,
		preopen:    "/",
	})
	if c.ListenersLast {
		p.listen(c.Listeners)
	}
	// What every process has is not charged for.
	p.fds.payer, p.stdin.p, p.stdout.payer, p.stderr.payer = p, p, p, p
	return p, nil
}

// listen gives pre-opened listeners their descriptors.
func (p *Process) listen(sockets []Socket) {
	p.listeners.from = uint32(len(p.fds.entries))
	p.listeners.to = p.listeners.from + uint32(len(sockets))
	for _, s := range sockets {
		p.fds.insert(descriptor{file: &socket{p: p, s: s, family: FamilyIPv6, kind: KindStream}, rights: rightsSocket})
	}
	if len(sockets) > 0 {
		p.env = append(slices.Clip(p.env), fmt.Sprintf("LISTEN_FDS=%d", len(sockets)), "LISTEN_PID=1")
	}
}

// Close closes all that the process has open. Call it when the guest has ended.
// It does not wait for a Read of Stdin or a Write that blocks. Calls after the
// first do nothing.
func (p *Process) Close() error {
	p.close.Do(func() {
		p.fds.closeAll()
		if p.memory != nil {
			p.memory.Release(p.listingBytes + p.held)
			p.held = 0
		}
		p.wake.unwatch()
		p.away.stop()
		if p.wakeTimer != nil {
			p.wakeTimer.Stop()
		}
		p.stdin.self.unwatch()
		p.stdin.shut()
		p.stdout.shut()
		p.stderr.shut()
		if !p.shares {
			p.ns.close()
		}
	})
	return nil
}

// walker is the process's walk, for one call.
func (p *Process) walker(ctx context.Context) *walk {
	p.walk.ctx = ctx
	return &p.walk
}

type processKey struct{}

// processContext carries a Process. It is a type of its own, so that finding
// the process costs a comparison where it is the outermost context.
type processContext struct {
	context.Context
	process *Process
}

func (c *processContext) Value(key any) any {
	if key == (processKey{}) {
		return c.process
	}
	return c.Context.Value(key)
}

// WithProcess returns a context under which host calls are p's. Instantiate and
// call the guest with it.
func WithProcess(ctx context.Context, p *Process) context.Context {
	return &processContext{Context: ctx, process: p}
}

func processFrom(ctx context.Context) *Process {
	if c, ok := ctx.(*processContext); ok {
		return c.process
	}
	p, _ := ctx.Value(processKey{}).(*Process)
	return p
}
