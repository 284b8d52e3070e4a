package podtest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

var update = flag.Bool("podtest.update", false, "rewrite the golden timelines of podtest")

// timeline is what has been recorded of a test's pods.
type timeline struct {
	lines []string
	next  chan struct{} // closed by the next event
}

func newTimeline() timeline { return timeline{next: make(chan struct{})} }

func (p *Pods) recordEvent(e *corev1.Event) {
	at := time.Since(p.begin).Round(time.Millisecond)
	from := e.InvolvedObject.Name
	if _, name, ok := strings.Cut(e.InvolvedObject.FieldPath, "{"); ok {
		from += "/" + strings.TrimSuffix(name, "}")
	}
	line := fmt.Sprintf("%-10v %-8s %-18s %s: %s", at, e.Type, e.Reason, from, strings.NewReplacer("\n", `\n`, string(e.InvolvedObject.UID), "UID").Replace(e.Message))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timeline.lines = append(p.timeline.lines, line)
	close(p.timeline.next)
	p.timeline.next = make(chan struct{})
}

func (p *Pods) nextEvent() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.timeline.next
}

// Timeline returns all events so far, one a line, with the time since the start,
// and then how each container is now. In a bubble of testing/synctest it is the
// same for every run (UIDs are left out), but for events of one moment in different pods.
func (p *Pods) Timeline() string {
	p.mu.Lock()
	lines := append([]string(nil), p.timeline.lines...)
	p.mu.Unlock()
	for _, pod := range p.r.Pods() {
		lines = append(lines, fmt.Sprintf("pod %s: %s", pod.Name, pod.Status.Phase))
		for _, s := range append(append([]corev1.ContainerStatus(nil), pod.Status.InitContainerStatuses...), pod.Status.ContainerStatuses...) {
			lines = append(lines, fmt.Sprintf("  %s: %s, %d restarts", s.Name, state(s.State), s.RestartCount))
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func state(s corev1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "Running"
	case s.Terminated != nil:
		return fmt.Sprintf("Terminated (%s, %d)", s.Terminated.Reason, s.Terminated.ExitCode)
	case s.Waiting != nil:
		return fmt.Sprintf("Waiting (%s)", s.Waiting.Reason)
	}
	return "Waiting"
}

// Golden compares the timeline with a file, which -podtest.update writes. It is
// for tests in a bubble.
func (p *Pods) Golden(file string) {
	p.t.Helper()
	p.golden(file, p.Timeline())
}

func (p *Pods) golden(file, got string) {
	p.t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			p.t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			p.t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		p.t.Fatalf("podtest: %v (go test -podtest.update writes it)", err)
	}
	if got != string(want) {
		p.t.Errorf("podtest: this differs from %s:\n%s\nwant:\n%s", file, got, want)
	}
}
