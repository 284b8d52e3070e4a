package podtest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/image"
	"github.com/wasmpod/wasmpod/runtime/lifecycle"
	"github.com/wasmpod/wasmpod/runtime/podworker"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
)

// faults is what a test has go wrong.
type faults struct {
	mu     sync.Mutex
	pulls  map[string]string // image -> message
	delays map[target]time.Duration
	live   map[target]*faultyContainer // the newest attempts
}

// target is a container of a pod.
type target struct{ namespace, pod, container string }

func newFaults() *faults {
	return &faults{pulls: make(map[string]string), delays: make(map[target]time.Duration), live: make(map[target]*faultyContainer)}
}

// install puts what can fail in the place of what works.
func (f *faults) install(c *podworker.Config) {
	c.Images = faultyImages{c.Images, f}
	c.Driver = faultyDriver{c.Driver, f}
	c.OnProbe = f.delayProbe
}

// FailPull has every pull of an image fail with this message from the beginning;
// see Pods.FailPull.
func FailPull(image, message string) Option { return func(c *config) { c.pulls[image] = message } }

// FailPull has every pull of an image fail from now on with this message, as if it
// were not present either; if the message is empty, no more.
func (p *Pods) FailPull(image, message string) {
	p.faults.mu.Lock()
	defer p.faults.mu.Unlock()
	p.faults.pulls[image] = message
}

func (f *faults) pull(image string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pulls[image]
}

type faultyImages struct {
	podworker.Images
	faults *faults
}

func (i faultyImages) Ensure(ctx context.Context, r image.Request) (image.Image, bool, error) {
	if message := i.faults.pull(r.Ref); message != "" && r.Policy != corev1.PullNever {
		if r.OnPull != nil {
			r.OnPull()
		}
		return image.Image{}, false, &image.Error{Reason: "ErrImagePull", Message: message}
	}
	return i.Images.Ensure(ctx, r)
}

// DelayProbes has every attempt of the container's probes begin so much later from
// now on, which counts as part of their timeout.
func (p *Pod) DelayProbes(container string, d time.Duration) {
	f := p.pods.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delays[p.target(container)] = d
}

func (f *faults) delayProbe(ctx context.Context, pod *corev1.Pod, probe lifecycle.RunProbe) {
	f.mu.Lock()
	d := f.delays[target{pod.Namespace, pod.Name, probe.Name}]
	f.mu.Unlock()
	if d <= 0 {
		return
	}
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
}

func (p *Pod) target(container string) target {
	return target{p.pod.Namespace, p.pod.Name, container}
}

type faultyDriver struct {
	sandbox.Driver
	faults *faults
}

func (d faultyDriver) Create(ctx context.Context, pod *corev1.Pod, attempt int) (sandbox.Sandbox, error) {
	s, err := d.Driver.Create(ctx, pod, attempt)
	if err != nil {
		return nil, err
	}
	return faultySandbox{s, d.faults}, nil
}

type faultySandbox struct {
	sandbox.Sandbox
	faults *faults
}

func (s faultySandbox) Create(ctx context.Context, config container.Config) (sandbox.Container, error) {
	c, err := s.Sandbox.Create(ctx, config)
	if err != nil {
		return nil, err
	}
	faulty := &faultyContainer{Container: c}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.live[target{config.Pod.Namespace, config.Pod.Name, config.Name}] = faulty
	return faulty, nil
}

type faultyContainer struct {
	sandbox.Container
	oom atomic.Bool
}

func (c *faultyContainer) Status() sandbox.ExitStatus {
	s := c.Container.Status()
	if c.oom.Load() {
		s.Code, s.Reason = 137, "OOMKilled" // OOM-01
	}
	return s
}

// OOM ends a container as if it had used more memory than it may: exit code 137,
// reason OOMKilled.
func (p *Pod) OOM(container string) {
	t := p.pods.t
	t.Helper()
	f := p.pods.faults
	f.mu.Lock()
	c := f.live[p.target(container)]
	f.mu.Unlock()
	if c == nil {
		t.Fatalf("podtest: container %q has never run", container)
	}
	c.oom.Store(true)
	c.Kill()
}

// Fill writes a file of so many bytes into a volume of the pod, beside what is
// there; 0 removes it again.
func (p *Pod) Fill(volume string, bytes int64) {
	t := p.pods.t
	t.Helper()
	name := filepath.Join(p.Volume(volume), ".podtest-fill")
	if bytes == 0 {
		if err := os.Remove(name); err != nil {
			t.Fatalf("podtest: %v", err)
		}
		return
	}
	f, err := os.Create(name)
	if err != nil {
		t.Fatalf("podtest: %v", err)
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for left := bytes; left > 0 && err == nil; left -= int64(len(block)) {
		_, err = f.Write(block[:min(left, int64(len(block)))]) // no hole: it takes the room
	}
	if err != nil {
		t.Fatalf("podtest: %v", err)
	}
}

// Advance has the clock of a bubble of testing/synctest jump: everything that is
// due until then happens, and Advance returns when it has. It panics outside of a
// bubble.
func Advance(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
