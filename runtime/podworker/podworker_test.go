package podworker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/image"
	"github.com/wasmpod/wasmpod/runtime/lifecycle"
	"github.com/wasmpod/wasmpod/runtime/manifest"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/store"
	"github.com/wasmpod/wasmpod/runtime/volume"
)

// node is a driver, an image service and a volume manager of which tests say
// what happens. Guests follow scripts.
type node struct {
	mu          sync.Mutex
	scripts     map[string][]script // by container, one per attempt; the last repeats
	images      map[string]error
	mountErrs   []error
	updateErrs  []error
	sandboxes   []*fakeSandbox
	allocatable corev1.ResourceList
	trace       []string
	begin       time.Time
	ensure      func(context.Context, image.Request) (image.Image, bool, error)
	before      func(*store.Store) // the worker starts
	removeErrs  []error            // of sandboxes
	hostNetwork bool
	dial        func(ctx context.Context, address string) (net.Conn, error)
	exec        func(ctx context.Context, container string, e sandbox.ExecConfig) (int32, error)
}

// script is what a guest does: it runs for a time and exits, unless a signal
// ends it before.
type script struct {
	runs     time.Duration
	code     int32
	ignores  bool // SIGTERM
	startErr error
}

func (n *node) note(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.trace = append(n.trace, fmt.Sprintf("%v "+format, append([]any{time.Since(n.begin)}, args...)...))
}

func (n *node) Ensure(ctx context.Context, r image.Request) (image.Image, bool, error) {
	if n.ensure != nil {
		return n.ensure(ctx, r)
	}
	err, absent := n.images[r.Ref], n.images[r.Ref] != nil
	pulls := r.Policy == corev1.PullAlways || absent && r.Policy != corev1.PullNever
	if pulls {
		r.OnPull()
	}
	return image.Image{Ref: r.Ref, Module: "sha256:0", Config: container.ImageConfig{Entrypoint: []string{"/x"}}}, pulls, err
}

func (n *node) Mount(context.Context, *corev1.Pod) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.mountErrs) == 0 {
		return nil
	}
	err := n.mountErrs[0]
	n.mountErrs = n.mountErrs[1:]
	return err
}

func (n *node) Unmount(types.UID) error { n.note("unmount"); return nil }

func (n *node) Create(_ context.Context, pod *corev1.Pod, attempt int) (sandbox.Sandbox, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := &fakeSandbox{node: n, id: fmt.Sprint("sandbox", attempt), done: make(chan struct{})}
	n.sandboxes = append(n.sandboxes, s)
	return s, nil
}

type fakeSandbox struct {
	node       *node
	id         string
	containers []*fakeContainer
	once       sync.Once
	done       chan struct{}
}

func (s *fakeSandbox) ID() string            { return s.id }
func (s *fakeSandbox) DNSWarnings() []string { return nil }
func (s *fakeSandbox) IP() string {
	if s.node.hostNetwork {
		return ""
	}
	return "127.128.0.1"
}
func (s *fakeSandbox) Done() <-chan struct{} { return s.done }
func (s *fakeSandbox) die()                  { s.once.Do(func() { close(s.done) }) }
func (s *fakeSandbox) Remove(context.Context) error {
	for _, c := range s.containers {
		c.Kill()
	}
	s.node.note("remove %s", s.id)
	if errs := s.node.removeErrs; len(errs) > 0 {
		s.node.removeErrs = errs[1:]
		return errs[0]
	}
	s.die()
	return nil
}

func (s *fakeSandbox) Create(_ context.Context, c container.Config) (sandbox.Container, error) {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	scripts := s.node.scripts[c.Name]
	f := &fakeContainer{
		node: s.node, config: c, script: scripts[min(c.Attempt, len(scripts)-1)],
		done: make(chan struct{}), signals: make(chan int, 10), kill: make(chan struct{}),
	}
	s.containers = append(s.containers, f)
	return f, nil
}

func (s *fakeSandbox) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if s.node.dial == nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	return s.node.dial(ctx, address)
}

type fakeContainer struct {
	node    *node
	config  container.Config
	script  script
	done    chan struct{}
	signals chan int
	kill    chan struct{}
	once    sync.Once
	status  sandbox.ExitStatus
}

func (c *fakeContainer) ID() string                 { return c.config.Name }
func (c *fakeContainer) Done() <-chan struct{}      { return c.done }
func (c *fakeContainer) Status() sandbox.ExitStatus { return c.status }
func (c *fakeContainer) Signal(s int)               { c.signals <- s }
func (c *fakeContainer) Kill()                      { c.once.Do(func() { close(c.kill) }) }

func (c *fakeContainer) Attach(context.Context, sandbox.AttachConfig) error { return nil }
func (c *fakeContainer) Usage() sandbox.Usage                               { return sandbox.Usage{} }

func (c *fakeContainer) Update(l container.Limits) error {
	c.node.note("update %s to %d MiB, %d shares", c.config.Name, l.MemoryBytes>>20, l.CPUShares)
	c.node.mu.Lock()
	defer c.node.mu.Unlock()
	if len(c.node.updateErrs) == 0 {
		return nil
	}
	err := c.node.updateErrs[0]
	c.node.updateErrs = c.node.updateErrs[1:]
	return err
}

func (c *fakeContainer) Exec(ctx context.Context, e sandbox.ExecConfig) (int32, error) {
	if c.node.exec == nil {
		return 0, nil
	}
	return c.node.exec(ctx, c.config.Name, e)
}

func (c *fakeContainer) Start(context.Context) error {
	if c.script.startErr != nil {
		return c.script.startErr
	}
	c.node.note("start %s/%d", c.config.Name, c.config.Attempt)
	go func() {
		end := time.NewTimer(c.script.runs)
		defer end.Stop()
		code := c.script.code
	wait:
		for {
			select {
			case <-end.C:
				break wait
			case <-c.kill:
				code = 137
				break wait
			case <-c.signals:
				c.node.note("signal %s", c.config.Name)
				if !c.script.ignores {
					code = 143
					break wait
				}
			}
		}
		c.status = sandbox.ExitStatus{Code: code, Reason: "Error"}
		if code == 0 {
			c.status.Reason = "Completed"
		}
		c.node.note("exit %s/%d %d", c.config.Name, c.config.Attempt, code)
		close(c.done)
	}()
	return nil
}

func testPod(edit func(*corev1.PodSpec)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u"},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever,
			Containers:    []corev1.Container{{Name: "a", Image: "img:1"}},
		},
	}
	edit(&pod.Spec)
	manifest.DefaultPod(pod)
	return pod
}

// play runs a pod in a bubble until it is finished, or for the time given.
func play(t *testing.T, n *node, pod *corev1.Pod, limit time.Duration, during func(*Worker)) (*corev1.Pod, *store.Store) {
	t.Helper()
	n.begin = time.Now()
	s := store.New()
	if err := s.AddPod(pod); err != nil {
		t.Fatal(err)
	}
	if n.before != nil {
		n.before(s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := Start(ctx, Config{
		Driver: n, Images: n, Volumes: n, Store: s, Node: Node{Name: "node", HostIP: "127.0.0.1", Allocatable: n.allocatable},
		RemoveLogs: func(_ *corev1.Pod, c string) error { n.note("remove logs of %s", c); return nil },
		Log:        slog.New(slog.DiscardHandler),
	}, pod)
	if during != nil {
		during(w)
	}
	select {
	case <-w.Done():
	case <-time.After(limit):
	}
	final := s.Pod(pod.UID)
	cancel()
	<-w.Done()
	synctest.Wait()
	return final, s
}

func (n *node) expect(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(n.trace, want) {
		t.Errorf("what happened:\n  %s\nwant:\n  %s", strings.Join(n.trace, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestWorkerINIT01_SeriesThenContainers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{scripts: map[string][]script{
			"i1": {{runs: 2 * time.Second}}, "i2": {{runs: time.Second}},
			"a": {{runs: 3 * time.Second}}, "b": {{runs: time.Second}},
		}}
		pod := testPod(func(s *corev1.PodSpec) {
			s.InitContainers = []corev1.Container{{Name: "i1", Image: "img:1"}, {Name: "i2", Image: "img:1"}}
			s.Containers = append(s.Containers, corev1.Container{Name: "b", Image: "img:1"})
		})
		final, _ := play(t, n, pod, time.Hour, nil)
		n.expect(t,
			"0s start i1/0", "2s exit i1/0 0",
			"2s start i2/0", "3s exit i2/0 0",
			"3s start a/0", "3s start b/0", "4s exit b/0 0", "6s exit a/0 0",
			"6s remove sandbox0", "6s unmount")
		if final.Status.Phase != corev1.PodSucceeded {
			t.Errorf("phase %s", final.Status.Phase)
		}
	})
}

func TestWorkerRST03_BackoffLadder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{scripts: map[string][]script{"a": {{code: 1}}}}
		pod := testPod(func(s *corev1.PodSpec) { s.RestartPolicy = corev1.RestartPolicyOnFailure })
		final, s := play(t, n, pod, 76*time.Second, nil)
		n.expect(t,
			"0s start a/0", "0s exit a/0 1",
			"0s start a/1", "0s exit a/1 1",
			"10s start a/2", "10s exit a/2 1",
			"30s start a/3", "30s exit a/3 1",
			"1m10s start a/4", "1m10s exit a/4 1",
			"1m16s remove sandbox0", "1m16s unmount")
		c := final.Status.ContainerStatuses[0]
		if c.RestartCount != 4 || c.State.Waiting == nil || c.State.Waiting.Reason != "CrashLoopBackOff" {
			t.Errorf("status: %d restarts, state %+v", c.RestartCount, c.State)
		}
		var reasons []string
		for _, e := range s.Events() {
			reasons = append(reasons, e.Reason)
		}
		if !slices.Contains(reasons, "BackOff") {
			t.Errorf("RST-04: no BackOff among events %v", reasons)
		}
	})
}

func TestWorkerDEL06_SignalThenKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{scripts: map[string][]script{
			"a": {{runs: time.Hour, ignores: true}}, "b": {{runs: time.Hour}},
		}}
		pod := testPod(func(s *corev1.PodSpec) {
			s.Containers = append(s.Containers, corev1.Container{Name: "b", Image: "img:1"})
		})
		final, _ := play(t, n, pod, time.Hour, func(w *Worker) {
			time.Sleep(5 * time.Second)
			w.Delete(30 * time.Second)
			time.Sleep(10 * time.Second)
			w.Delete(12 * time.Second) // DEL-05: shortens
			w.Delete(time.Hour)        // DEL-02: is no news
		})
		slices.Sort(n.trace[2:5]) // the containers are stopped in parallel
		n.expect(t,
			"0s start a/0", "0s start b/0",
			"5s exit b/0 143", "5s signal a", "5s signal b",
			"27s exit a/0 137", "27s remove sandbox0", "27s unmount")
		if final.Status.Phase != corev1.PodFailed || final.DeletionTimestamp == nil {
			t.Errorf("PHASE-14: phase %s, deletion %v", final.Status.Phase, final.DeletionTimestamp)
		}
	})
}

func TestWorkerSBX04_SandboxDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{scripts: map[string][]script{
			"i": {{runs: time.Second}}, "a": {{runs: time.Hour}, {runs: time.Second}},
		}}
		pod := testPod(func(s *corev1.PodSpec) {
			s.RestartPolicy = corev1.RestartPolicyOnFailure
			s.InitContainers = []corev1.Container{{Name: "i", Image: "img:1"}}
		})
		final, s := play(t, n, pod, time.Hour, func(*Worker) {
			time.Sleep(10 * time.Second)
			synctest.Wait()
			n.sandboxes[0].die()
		})
		n.expect(t,
			"0s start i/0", "1s exit i/0 0", "1s start a/0",
			"10s signal a", "10s exit a/0 143",
			"10s remove sandbox0", "10s remove logs of i",
			"10s start i/1", "11s exit i/1 0", "11s start a/1", "12s exit a/1 0",
			"12s remove sandbox1", "12s unmount")
		if final.Status.Phase != corev1.PodSucceeded || final.Status.ContainerStatuses[0].RestartCount != 1 {
			t.Errorf("phase %s, %d restarts", final.Status.Phase, final.Status.ContainerStatuses[0].RestartCount)
		}
		if !slices.ContainsFunc(s.Events(), func(e *corev1.Event) bool { return e.Reason == "SandboxChanged" }) {
			t.Error("no SandboxChanged event")
		}
	})
}

func TestWorkerVOL20_MountIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		missing := &volume.MountError{Messages: []string{`MountVolume.SetUp failed for volume "v" : configmap "x" not found`}}
		n := &node{
			scripts:   map[string][]script{"a": {{}}},
			mountErrs: []error{missing, missing, missing},
		}
		final, s := play(t, n, testPod(func(*corev1.PodSpec) {}), time.Hour, nil)
		n.expect(t, "3.5s start a/0", "3.5s exit a/0 0", "3.5s remove sandbox0", "3.5s unmount")
		if final.Status.Phase != corev1.PodSucceeded {
			t.Errorf("phase %s", final.Status.Phase)
		}
		if e := s.Events()[0]; e.Reason != "FailedMount" || e.Message != missing.Messages[0] || e.Count != 3 {
			t.Errorf("event %s %q x%d", e.Reason, e.Message, e.Count)
		}
	})
}

func TestWorkerIMG05_NeverPulled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{
			scripts: map[string][]script{"a": {{}}},
			images:  map[string]error{"gone:1": &image.Error{Reason: "ErrImageNeverPull", Message: "not here"}},
		}
		pod := testPod(func(s *corev1.PodSpec) {
			s.Containers[0].Image, s.Containers[0].ImagePullPolicy = "gone:1", corev1.PullNever
		})
		final, _ := play(t, n, pod, time.Minute, nil)
		w := final.Status.ContainerStatuses[0].State.Waiting
		if final.Status.Phase != corev1.PodPending || w == nil || w.Reason != "ErrImageNeverPull" || w.Message != "not here" {
			t.Errorf("phase %s, waiting %+v", final.Status.Phase, w)
		}
	})
}

func TestWorkerRST09_StartFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{scripts: map[string][]script{"a": {{startErr: errors.New("exec format error")}}}}
		final, _ := play(t, n, testPod(func(*corev1.PodSpec) {}), time.Minute, nil)
		c := final.Status.ContainerStatuses[0]
		if final.Status.Phase != corev1.PodFailed || c.State.Terminated == nil ||
			c.State.Terminated.Reason != "StartError" || c.State.Terminated.ExitCode != 128 {
			t.Errorf("phase %s, state %+v", final.Status.Phase, c.State)
		}
	})
}

// Two actions that are the same run once at a time; one that is no longer due
// is cancelled; one that takes the sandbox away waits for both.
func TestReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := make(underway)
		runs := map[lifecycle.Action]int{}
		var mu sync.Mutex
		perform := func(ctx context.Context, a lifecycle.Action) {
			mu.Lock()
			runs[a]++
			mu.Unlock()
			if _, ok := a.(lifecycle.StartContainer); ok {
				<-ctx.Done()
				time.Sleep(time.Second) // what it takes to give up
			}
		}
		start := lifecycle.StartContainer{ContainerRef: lifecycle.ContainerRef{Name: "a"}}
		remove := lifecycle.RemoveSandbox{}
		again := func(due ...lifecycle.Action) {
			u.reconcile(t.Context(), due, perform, func() {})
			synctest.Wait()
		}
		again(start)
		again(start)
		again(remove)
		if runs[start] != 1 || runs[remove] != 0 {
			t.Fatalf("runs %v: the sandbox goes while a container starts", runs)
		}
		time.Sleep(2 * time.Second)
		again(remove) // notices the end, whose facts are to be folded in first
		if runs[remove] != 0 {
			t.Fatal("the sandbox goes before the facts of the cancelled start were heard")
		}
		again(remove)
		if runs[remove] != 1 {
			t.Errorf("runs %v: the sandbox stays", runs)
		}
		u.wait()
	})
}
