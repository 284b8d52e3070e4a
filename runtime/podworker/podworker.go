// Package podworker runs one pod: one goroutine per pod folds what has happened
// into lifecycle.Observed, asks lifecycle.Decide what to do, and starts it.
// Intent goes down as actions, knowledge comes up as facts; the worker itself
// decides nothing.
package podworker

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/runtime/image"
	"github.com/wasmpod/wasmpod/runtime/lifecycle"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/store"
)

// Config is what a worker works with.
type Config struct {
	Driver  sandbox.Driver
	Images  Images
	Volumes Volumes
	Store   *store.Store
	Node    Node
	// Services, if not nil, are the Services of a namespace (ENV-09).
	Services func(namespace string) []*corev1.Service
	// VolumeFile reads a file of a pod's volume (ENV-06); nil finds none.
	VolumeFile func(pod types.UID, volume, path string) ([]byte, error)
	// RemoveLogs deletes the logs of a container whose records are removed
	// (SBX-05).
	RemoveLogs func(pod *corev1.Pod, container string) error
	// OnProgress, if not nil, is told of every fact of every pod, after it was
	// applied. It must not block.
	OnProgress func(pod *corev1.Pod, fact lifecycle.Fact)
	// OnShown, if not nil, is told of every fact once the status in Store is as it
	// makes it. It must not block.
	OnShown func(pod *corev1.Pod, fact lifecycle.Fact)
	// OnStatus, if not nil, is told of every status, which is not to be changed, and
	// of when it became known. It must not block.
	OnStatus func(pod *corev1.Pod, status *corev1.PodStatus)
	// OnProbe, if not nil, is called before each attempt of a probe, within its
	// timeout. What waits there delays the attempt; tests do.
	OnProbe func(ctx context.Context, pod *corev1.Pod, probe lifecycle.RunProbe)
	// OnEvent, if not nil, is told of every event as it was recorded. It must not
	// block.
	OnEvent func(*corev1.Event)
	Log     *slog.Logger
}

// Images resolves what a container's image field names. image.Service does.
type Images interface {
	// Ensure may pull, as the policy says. Its error is an *image.Error.
	Ensure(ctx context.Context, r image.Request) (img image.Image, pulled bool, err error)
}

// Volumes prepares a pod's volumes. volume.Manager does.
type Volumes interface {
	Mount(ctx context.Context, pod *corev1.Pod) error
	Unmount(uid types.UID) error
}

// Node is what a pod may learn of the node that it runs on.
type Node struct {
	Name        string
	HostIP      string
	Allocatable corev1.ResourceList
}

// A Worker runs one pod. Its methods are safe for concurrent use.
type Worker struct {
	cfg  Config
	uid  types.UID
	spec atomic.Pointer[corev1.Pod] // what it points to is never changed
	ctx  context.Context
	stop context.CancelFunc
	done chan struct{}

	mu         sync.Mutex
	facts      []lifecycle.Fact
	notify     chan struct{} // one slot: facts are waiting
	sandbox    sandbox.Sandbox
	leaving    sandbox.Sandbox // whose end is no news
	containers map[lifecycle.ContainerRef]*attempt
	fuel       map[string]uint64 // by container name: what attempts that have ended have used

	resizes sync.Mutex // one resize at a time, each with the newest definition
}

// attempt is a live container.
type attempt struct {
	sandbox.Container
	signal sync.Once
}

// Start runs pod, which must be in the store, until it is finished. ctx ends
// the worker and everything it runs at once, with no further facts.
func Start(ctx context.Context, cfg Config, pod *corev1.Pod) *Worker {
	w := &Worker{
		cfg:        cfg,
		uid:        pod.UID,
		done:       make(chan struct{}),
		notify:     make(chan struct{}, 1),
		containers: make(map[lifecycle.ContainerRef]*attempt),
	}
	w.spec.Store(pod.DeepCopy())
	w.ctx, w.stop = context.WithCancel(ctx)
	w.report(lifecycle.PodAdmitted{At: time.Now()})
	go w.run()
	return w
}

// pod is the defaulted definition as it is now.
func (w *Worker) pod() *corev1.Pod { return w.spec.Load() }

// Kill ends every running container at once: what comes after the grace
// period, now.
func (w *Worker) Kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.containers {
		c.Kill()
	}
}

// Done is closed when nothing of the pod runs and all it held is released.
func (w *Worker) Done() <-chan struct{} { return w.done }

// report hands a fact to the worker's goroutine. It never blocks: facts are few
// and bounded by the actions under way.
func (w *Worker) report(f lifecycle.Fact) {
	w.mu.Lock()
	w.facts = append(w.facts, f)
	w.mu.Unlock()
	w.poke()
}

// poke has the worker look again.
func (w *Worker) poke() {
	select {
	case w.notify <- struct{}{}:
	default:
	}
}

// takeFacts takes the facts that wait, and leaves the slice of those taken before
// for the next ones.
func (w *Worker) takeFacts(before []lifecycle.Fact) []lifecycle.Fact {
	clear(before)
	w.mu.Lock()
	defer w.mu.Unlock()
	facts := w.facts
	w.facts = before[:0]
	return facts
}

// run is the pod's goroutine: the only one that touches observed and the set of
// actions under way.
func (w *Worker) run() {
	var (
		observed lifecycle.Observed
		status   corev1.PodStatus
		shown    = int64(-1) // the revision that status is of
		stale    time.Time   // when it is out of date all the same
		facts    []lifecycle.Fact
		actions  = make(underway)
		wake     = time.NewTimer(0)
	)
	defer func() {
		wake.Stop()
		w.stop()
		actions.wait()
		w.abandon()
		close(w.done)
	}()
	for {
		facts = w.takeFacts(facts)
		for _, f := range facts {
			var events []lifecycle.Event
			observed, events = observed.Apply(w.pod(), f)
			w.tell(f, events)
		}
		now := time.Now()
		if observed.Revision != shown || !stale.IsZero() && !now.Before(stale) {
			shown = observed.Revision
			if s := w.status(observed, now); !equality.Semantic.DeepEqual(s, status) {
				status = s
				w.cfg.Store.SetStatus(w.pod().UID, s)
				if w.cfg.OnStatus != nil {
					w.cfg.OnStatus(w.pod(), &status)
				}
			}
		}
		if w.cfg.OnShown != nil {
			for _, f := range facts {
				w.cfg.OnShown(w.pod(), f)
			}
		}
		plan := lifecycle.Decide(w.pod(), observed, now)
		stale = plan.Stale
		if plan.Finished {
			return
		}
		if actions.reconcile(w.ctx, plan.Actions, w.perform, w.poke) {
			w.poke()
		}
		wake.Stop()
		if !plan.Wake.IsZero() {
			wake.Reset(plan.Wake.Sub(now))
		}
		select {
		case <-w.notify:
		case <-wake.C:
		case <-w.ctx.Done():
			return
		}
	}
}

// status is what the API shows: what lifecycle knows, and the node's addresses, which
// are those of a pod on its network (NET-05).
func (w *Worker) status(o lifecycle.Observed, now time.Time) corev1.PodStatus {
	s := lifecycle.Status(w.pod(), o, now)
	ip := w.cfg.Node.HostIP
	if s.StartTime == nil || ip == "" {
		return s
	}
	s.HostIP, s.HostIPs = ip, []corev1.HostIP{{IP: ip}}
	if w.pod().Spec.HostNetwork && o.Sandbox.ID != "" {
		s.PodIP, s.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	}
	return s
}

func (w *Worker) tell(f lifecycle.Fact, events []lifecycle.Event) {
	for _, e := range events {
		recorded := w.cfg.Store.RecordEvent(w.pod(), "kubelet", e)
		if w.cfg.OnEvent != nil {
			w.cfg.OnEvent(recorded)
		}
	}
	if w.cfg.OnProgress != nil {
		w.cfg.OnProgress(w.pod(), f)
	}
}

// abandon releases what a worker still holds whose context has ended before
// its pod was finished.
func (w *Worker) abandon() {
	w.mu.Lock()
	sb := w.sandbox
	w.mu.Unlock()
	if sb == nil {
		return
	}
	if err := sb.Remove(context.Background()); err != nil {
		w.cfg.Log.Warn("removing the sandbox of an abandoned pod", "pod", w.pod().Name, "error", err)
	}
	if err := w.cfg.Volumes.Unmount(w.pod().UID); err != nil {
		w.cfg.Log.Warn("unmounting the volumes of an abandoned pod", "pod", w.pod().Name, "error", err)
	}
}

// underway is the set of actions that run, each in its own goroutine.
type underway map[lifecycle.Action]*running

type running struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// reconcile starts the actions that are due and not under way, and cancels
// those that are under way but no longer due: a pull for a pod that was
// deleted meanwhile, or a stop whose grace has been shortened.
//
// An action that has just returned may have reported facts that due does not
// know of yet. So it is not started again at once, and nothing is started that
// takes away what others work with: reconcile returns true, to be called again
// with what is due then.
func (u underway) reconcile(ctx context.Context, due []lifecycle.Action, perform func(context.Context, lifecycle.Action), ended func()) (again bool) {
	wanted := make(map[lifecycle.Action]bool, len(due))
	for _, a := range due {
		wanted[a] = true
	}
	quiet := true
	returned := make(map[lifecycle.Action]bool)
	for a, r := range u {
		select {
		case <-r.done:
			r.cancel()
			delete(u, a)
			returned[a] = true
		default:
			if !wanted[a] {
				r.cancel()
				quiet = false // ended is called when it has returned
			}
		}
	}
	for _, a := range due {
		if u[a] != nil || returned[a] || takesAway(a) && (!quiet || len(returned) > 0) {
			continue
		}
		r := &running{done: make(chan struct{})}
		var actx context.Context
		actx, r.cancel = context.WithCancel(ctx)
		u[a] = r
		go func() {
			perform(actx, a)
			close(r.done)
			ended()
		}()
	}
	return len(returned) > 0
}

func takesAway(a lifecycle.Action) bool {
	switch a.(type) {
	case lifecycle.RemoveSandbox, lifecycle.UnmountVolumes, lifecycle.ResetContainers:
		return true
	}
	return false
}

func (u underway) wait() {
	for _, r := range u {
		r.cancel()
		<-r.done
	}
}
