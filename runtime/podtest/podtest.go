// Package podtest runs pods inside a test: real pods, with real guests, in the
// test's own process, in milliseconds.
//
//	func TestPod(t *testing.T) {
//		pods := podtest.Run(t, manifest, podtest.Image("app:1", "app.wasm"))
//		pod := pods.Get("web")
//		pod.WaitReady()
//		code, out := pod.Exec("app", "cat", "/etc/hostname")
//	}
//
// In a bubble of testing/synctest the pod's clock is the bubble's: half an hour of
// a crash loop takes as long as its guests compute. Guests are compiled once per
// machine, in the user's cache directory. Whatever runs is ended when the test
// ends, and when the test has failed its events and logs are shown.
//
// A guest that spins keeps a bubble's clock from moving: use real time for such.
package podtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/podnet"
	"github.com/wasmpod/wasmpod/runtime"
	"github.com/wasmpod/wasmpod/runtime/image"
	"github.com/wasmpod/wasmpod/runtime/lifecycle"
	"github.com/wasmpod/wasmpod/runtime/manifest"
	"github.com/wasmpod/wasmpod/runtime/podworker"
)

// defaultPatience is how long a Wait function waits, of the clock that the test
// has.
const defaultPatience = time.Minute

type config struct {
	images   map[string]string // reference -> path of a module
	builds   []image.BuildSpec
	pulls    map[string]string // image -> why it fails
	patience time.Duration
	runtime  runtime.Config
}

// Option changes how pods are run.
type Option func(*config)

// Image makes the WebAssembly module at path the image that manifests call ref: for
// registry/app:1 it is /app.wasm, which is the entrypoint, and all there is. A reference that no Image names may be a path itself: of a module, of a
// directory that is a root file system with one, or of an OCI layout.
func Image(ref, path string) Option { return func(c *config) { c.images[ref] = path } }

// Build makes an image as wasmpod image build does, of a module and other files.
func Build(spec image.BuildSpec) Option { return func(c *config) { c.builds = append(c.builds, spec) } }

// Patience is how long a Wait function waits before it fails the test; a minute
// if nothing is said.
func Patience(d time.Duration) Option { return func(c *config) { c.patience = d } }

// Interpreter runs guests without compiling them: quicker for one short run
// of a large module, and under the race detector.
func Interpreter() Option { return func(c *config) { c.runtime.Interpreter = true } }

// Pods are what a test runs. The methods are safe for concurrent use, but those
// that fail the test are for its own goroutine.
type Pods struct {
	t        testing.TB
	r        *runtime.Runtime
	patience time.Duration
	begin    time.Time
	images   *image.Service

	closed   sync.Once
	faults   *faults
	mu       sync.Mutex
	timeline timeline
	statuses []shown
}

// Run starts the pods of a manifest: a string or []byte of YAML or JSON, or
// *manifest.Objects. It fails the test if the manifest is not valid. It does not
// wait for anything.
func Run(t testing.TB, objects any, options ...Option) *Pods {
	t.Helper()
	c := config{images: make(map[string]string), pulls: make(map[string]string), patience: defaultPatience}
	for _, o := range options {
		o(&c)
	}
	parsed, err := parse(t, objects)
	if err != nil {
		t.Fatalf("podtest: %v", err)
	}
	p := &Pods{t: t, patience: c.patience, begin: time.Now(), timeline: newTimeline(), faults: newFaults()}
	p.faults.pulls = c.pulls
	if err := p.open(c); err != nil {
		t.Fatalf("podtest: %v", err)
	}
	t.Cleanup(p.close)
	for ref, path := range c.images {
		p.AddImage(ref, path)
	}
	for _, spec := range c.builds {
		if _, err := p.images.Build(context.Background(), spec); err != nil {
			t.Fatalf("podtest: %v", err)
		}
	}
	if err := p.r.Apply(parsed); err != nil {
		t.Fatalf("podtest: %v", err)
	}
	return p
}

func parse(t testing.TB, objects any) (*manifest.Objects, error) {
	switch m := objects.(type) {
	case *manifest.Objects:
		return m, nil
	case string:
		return manifest.Parse("", manifest.Source{Name: t.Name(), Data: []byte(m)})
	case []byte:
		return manifest.Parse("", manifest.Source{Name: t.Name(), Data: m})
	}
	return nil, fmt.Errorf("a manifest is a string, []byte or *manifest.Objects, not %T", objects)
}

// open opens a runtime whose compiled code is shared by all tests of the user,
// and whose images are this test's own.
func (p *Pods) open(c config) error {
	dir, err := dataDir()
	if err != nil {
		return err
	}
	store, err := os.MkdirTemp(dir, imagesPrefix)
	if err != nil {
		return err
	}
	p.t.Cleanup(func() {
		if err := os.RemoveAll(store); err != nil {
			p.t.Errorf("podtest: %v", err)
		}
	})
	if p.images, err = image.Open(image.Config{Root: store}); err != nil {
		return err
	}
	c.runtime.DataDir = dir
	c.runtime.ImageStores = []string{store}
	c.runtime.Registries.Offline = true // a test depends on nothing outside
	c.runtime.NodeName = "podtest"
	// Of its own, so that no socket of the host is listened on for it: a bubble's
	// clock would wait for that one.
	c.runtime.PodIPs = podnet.DefaultPrefix
	c.runtime.OnEvent = p.recordEvent
	c.runtime.Worker = func(w *podworker.Config) {
		p.faults.install(w)
		w.OnStatus = p.recordStatus
	}
	p.r, err = runtime.Open(context.Background(), c.runtime)
	return err
}

// AddImage makes the module at path the image that manifests call ref, from now
// on: a pod that fails to pull it gets it with its next try.
func (p *Pods) AddImage(ref, path string) {
	p.t.Helper()
	spec := image.BuildSpec{Refs: []string{ref}, Module: path, ModuleName: moduleName(ref)}
	if _, err := p.images.Build(context.Background(), spec); err != nil {
		p.t.Fatalf("podtest: %v", err)
	}
}

// moduleName is that of the image, whatever the file is called: /app.wasm for
// registry/app:1.
func moduleName(ref string) string {
	name, _, _ := strings.Cut(ref[strings.LastIndexByte(ref, '/')+1:], "@")
	name, _, _ = strings.Cut(name, ":")
	return name + ".wasm"
}

func (p *Pods) close() { p.closed.Do(p.end) }

func (p *Pods) end() {
	if p.t.Failed() {
		p.dump()
	}
	pods := p.r.Pods()
	if err := p.r.Close(); err != nil {
		p.t.Errorf("podtest: ending the pods: %v", err)
	}
	for _, pod := range pods {
		if err := p.r.RemoveLogs(pod); err != nil {
			p.t.Errorf("podtest: %v", err)
		}
	}
}

// dump shows what a failed test's pods have done.
func (p *Pods) dump() {
	p.t.Logf("podtest: what has happened:\n%s", p.Timeline())
	for _, pod := range p.r.Pods() {
		for _, c := range append(append([]corev1.Container(nil), pod.Spec.InitContainers...), pod.Spec.Containers...) {
			if log := (&Pod{p, pod}).Logs(c.Name); log != "" {
				p.t.Logf("podtest: log of %s/%s:\n%s", pod.Name, c.Name, log)
			}
		}
	}
}

// All returns the pods, in the order in which they were made.
func (p *Pods) All() []*Pod {
	var all []*Pod
	for _, pod := range p.r.Pods() {
		all = append(all, &Pod{p, pod})
	}
	return all
}

// Get returns the pod of that name, or fails the test.
func (p *Pods) Get(name string) *Pod {
	p.t.Helper()
	for _, pod := range p.All() {
		if pod.pod.Name == name {
			return pod
		}
	}
	p.t.Fatalf("podtest: there is no pod %q", name)
	return nil
}

// WaitEnd waits until every pod and Job has ended.
func (p *Pods) WaitEnd() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), p.patience)
	defer cancel()
	if err := p.r.Wait(ctx, 0); err != nil {
		p.t.Fatalf("podtest: the pods have not ended: %v", err)
	}
}

// Pod is one pod of a test.
type Pod struct {
	pods *Pods
	pod  *corev1.Pod // as it was first seen
}

// Object returns the pod as it is now, with its status.
func (p *Pod) Object() *corev1.Pod {
	for _, pod := range p.pods.r.Pods() {
		if pod.UID == p.pod.UID {
			return pod
		}
	}
	return p.pod.DeepCopy()
}

// WaitFor waits until the pod is as condition wants it, and returns it as it was
// then. what says in messages what is waited for. It looks whenever the pod has
// changed.
func (p *Pod) WaitFor(what string, condition func(*corev1.Pod) bool) *corev1.Pod {
	t := p.pods.t
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), p.pods.patience)
	defer cancel()
	changes := p.pods.r.Watch()
	defer changes.Close()
	for {
		pod := p.Object()
		if condition(pod) {
			return pod
		}
		if _, err := changes.Next(ctx); err != nil {
			t.Fatalf("podtest: pod %q: no %s within %v: phase %s", pod.Name, what, p.pods.patience, pod.Status.Phase)
		}
	}
}

// WaitPhase waits until the pod is in a phase.
func (p *Pod) WaitPhase(phase corev1.PodPhase) *corev1.Pod {
	p.pods.t.Helper()
	return p.WaitFor("phase "+string(phase), func(pod *corev1.Pod) bool { return pod.Status.Phase == phase })
}

// WaitReady waits until the pod is Ready.
func (p *Pod) WaitReady() *corev1.Pod { p.pods.t.Helper(); return p.WaitCondition(corev1.PodReady) }

// WaitCondition waits until a condition of the pod is True.
func (p *Pod) WaitCondition(condition corev1.PodConditionType) *corev1.Pod {
	p.pods.t.Helper()
	return p.WaitFor("condition "+string(condition), func(pod *corev1.Pod) bool {
		for _, c := range pod.Status.Conditions {
			if c.Type == condition {
				return c.Status == corev1.ConditionTrue
			}
		}
		return false
	})
}

// WaitEvent waits until an event with that reason was recorded, and returns it.
func (p *Pod) WaitEvent(reason string) *corev1.Event {
	t := p.pods.t
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), p.pods.patience)
	defer cancel()
	for {
		next := p.pods.nextEvent()
		for _, e := range p.pods.r.Events() {
			if e.InvolvedObject.UID == p.pod.UID && e.Reason == reason {
				return e
			}
		}
		select {
		case <-next:
		case <-ctx.Done():
			t.Fatalf("podtest: pod %q: no event %s within %v", p.pod.Name, reason, p.pods.patience)
		}
	}
}

// Logs returns what the latest attempt of a container has written; nothing if it
// has not started.
func (p *Pod) Logs(container string) string {
	attempt, err := lifecycle.LogsOf(p.Object(), container, false)
	if err != nil {
		return ""
	}
	return p.AttemptLogs(container, attempt)
}

// AttemptLogs returns what one attempt of a container has written, the first
// being 0.
func (p *Pod) AttemptLogs(container string, attempt int) string {
	var b bytes.Buffer
	if err := p.pods.r.Logs(context.Background(), p.pod, container, attempt, &b); err != nil && !errors.Is(err, os.ErrNotExist) {
		p.pods.t.Errorf("podtest: log of %s: %v", container, err)
	}
	return b.String()
}

// Exec runs a command in a container, and returns its exit code and its output,
// that of stdout and stderr together. It fails the test if the command cannot be
// started.
func (p *Pod) Exec(container string, command ...string) (exitCode int, output string) {
	t := p.pods.t
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), p.pods.patience)
	defer cancel()
	var b bytes.Buffer
	code, err := p.pods.r.Exec(ctx, p.pod.UID, container, runtime.ExecConfig{Command: command, Stdout: &b, Stderr: &b, Prompt: true})
	if err != nil {
		t.Fatalf("podtest: exec %q in %s: %v", command, container, err)
	}
	return int(code), b.String()
}

// TryExec runs a command in a container and returns only why it could not be
// started, if it could not.
func (p *Pod) TryExec(container string, command ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), p.pods.patience)
	defer cancel()
	_, err := p.pods.r.Exec(ctx, p.pod.UID, container, runtime.ExecConfig{Command: command, Stdout: io.Discard, Stderr: io.Discard})
	return err
}

// Dial connects to the pod from within it: to "localhost:8080", or to the pod IP.
func (p *Pod) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return p.pods.r.Dial(ctx, p.pod.UID, network, address)
}

// HTTPClient returns a client all of whose connections are made within the pod.
// They are not kept.
func (p *Pod) HTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: p.Dial, DisableKeepAlives: true}, Timeout: p.pods.patience}
}

// Kill ends a container as the kernel would: exit code 137. What follows is up to
// the pod's restart policy.
func (p *Pod) Kill(container string) { p.pods.t.Helper(); p.Signal(container, 9) }

// Signal sends a signal of Linux's numbering to a container.
func (p *Pod) Signal(container string, signal int) {
	p.pods.t.Helper()
	if err := p.pods.r.Signal(p.pod.UID, container, signal); err != nil {
		p.pods.t.Fatalf("podtest: %v", err)
	}
}

// Volume returns the directory of the host in which a volume of the pod lies, for
// a test to fill, to look at or to break.
func (p *Pod) Volume(name string) string {
	p.pods.t.Helper()
	dir, ok := p.pods.r.Volume(p.pod.UID, name)
	if !ok {
		p.pods.t.Fatalf("podtest: pod %q has no volume %q", p.pod.Name, name)
	}
	return dir
}

// Delete asks the pod to end within its grace period, and waits until nothing of
// it is left.
func (p *Pod) Delete() {
	p.pods.t.Helper()
	grace := 30 * time.Second // TIME-01
	if s := p.pod.Spec.TerminationGracePeriodSeconds; s != nil {
		grace = time.Duration(*s) * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace+p.pods.patience)
	defer cancel()
	if err := p.pods.r.DeletePod(ctx, p.pod.UID, grace); err != nil {
		p.pods.t.Fatalf("podtest: pod %q has not ended: %v", p.pod.Name, err)
	}
}
