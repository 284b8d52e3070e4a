package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime"
	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/lifecycle"
)

// screen puts what several containers write, and what happens to them, on
// stdout and stderr without mixing lines. On a terminal a status line at the
// bottom tells what each container that does not run yet waits for; elsewhere
// that is a line each.
type screen struct {
	options  screenOptions
	terminal bool

	mu             sync.Mutex
	stdout, stderr io.Writer
	waiting        []waiting // in the order in which they began
	drawn          bool      // the status line is on the terminal
	open           io.Writer // whose last line is not finished, or nil
	writers        []*lineWriter
	told           map[string]bool // Services whose addresses were printed
	closed         bool
	stop           chan struct{} // closed with closed
	stopped        sync.WaitGroup
}

type screenOptions struct {
	prefix   bool // name the container before each line
	progress bool
	events   bool
}

type waiting struct {
	container string
	step      string
	since     time.Time
	told      bool // that it takes long
}

// long is after what time a step is told of that should take a moment.
const long = 3 * time.Second

func newScreen(stdout, stderr io.Writer, options screenOptions) *screen {
	f, ok := stderr.(*os.File)
	s := &screen{
		options: options, stdout: stdout, stderr: stderr,
		terminal: ok && term.IsTerminal(int(f.Fd())),
		told:     make(map[string]bool),
		stop:     make(chan struct{}),
	}
	if options.progress {
		s.stopped.Go(s.tick)
	}
	return s
}

// tick tells what takes long: on the status line, or once in a line of its own.
func (s *screen) tick() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
		}
		s.mu.Lock()
		if s.terminal {
			s.erase()
			s.draw()
		} else {
			s.tellLong(time.Now())
		}
		s.mu.Unlock()
	}
}

func (s *screen) tellLong(now time.Time) {
	for i := range s.waiting {
		w := &s.waiting[i]
		if w.told || now.Sub(w.since) < long {
			continue
		}
		w.told = true
		text := w.container + ": " + w.step
		if w.step == compiling {
			text += ", which takes a while the first time"
		}
		s.line(text)
	}
}

// services tells where the Services are, those that have not been told of yet. A
// headless one has no address of its own.
func (s *screen) services(services []*corev1.Service) {
	if !s.options.progress {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, svc := range services {
		ip := svc.Spec.ClusterIP
		if ip == "" || ip == corev1.ClusterIPNone || s.told[svc.Namespace+"/"+svc.Name] {
			continue
		}
		var ports []string
		for _, p := range svc.Spec.Ports {
			port := fmt.Sprintf("%d/%s", p.Port, p.Protocol)
			if p.NodePort != 0 {
				port += fmt.Sprintf(" (node port %d)", p.NodePort)
			}
			ports = append(ports, port)
		}
		s.told[svc.Namespace+"/"+svc.Name] = true
		s.line(fmt.Sprintf("service/%s has cluster IP %s, ports %s", svc.Name, ip, strings.Join(ports, ", ")))
	}
}

// metrics tells where metrics are served.
func (s *screen) metrics(url string) {
	if s.options.progress {
		s.message("metrics at " + url)
	}
}

// podAddress is where a pod can be reached from the host.
func podAddress(pod *corev1.Pod, ip string) string {
	text := fmt.Sprintf("pod/%s has IP %s", pod.Name, ip)
	var ports []string
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, p := range c.Ports {
			if p.HostPort == 0 {
				continue
			}
			at := strconv.Itoa(int(p.HostPort))
			if p.HostIP != "" {
				at = net.JoinHostPort(p.HostIP, at)
			}
			ports = append(ports, fmt.Sprintf("%s -> %d/%s", at, p.ContainerPort, p.Protocol))
		}
	}
	if len(ports) > 0 {
		text += ", host ports " + strings.Join(ports, ", ")
	}
	return text
}

// stdio connects a container's output to the screen.
func (s *screen) stdio(c container.Config) runtime.Stdio {
	if !s.options.prefix {
		return runtime.Stdio{Stdout: &plainWriter{s, s.stdout}, Stderr: &plainWriter{s, s.stderr}}
	}
	name := c.Pod.Name + "/" + c.Name
	out := &lineWriter{screen: s, to: s.stdout, container: name}
	err := &lineWriter{screen: s, to: s.stderr, container: name}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writers = append(s.writers, out, err)
	return runtime.Stdio{Stdout: out, Stderr: err}
}

// write puts whole lines, or a container's raw output, on the screen. The
// caller holds s.mu.
func (s *screen) write(to io.Writer, p []byte) {
	s.erase()
	_, _ = to.Write(p) // a reader that went away must not stop the pods
	s.draw()
}

// plainWriter passes on what a container writes as it comes, so that prompts
// and binary output work.
type plainWriter struct {
	screen *screen
	to     io.Writer
}

func (w *plainWriter) Write(p []byte) (int, error) {
	w.screen.mu.Lock()
	defer w.screen.mu.Unlock()
	w.screen.open = nil
	if len(p) > 0 && p[len(p)-1] != '\n' {
		w.screen.open = w.to
	}
	w.screen.write(w.to, p)
	return len(p), nil
}

// maxLine bounds what is held back of a line that does not end.
const maxLine = 64 << 10

// lineWriter writes whole lines, each with its container's name before it.
type lineWriter struct {
	screen    *screen
	to        io.Writer
	container string // pod/container
	rest      []byte // guarded by screen.mu
}

func (w *lineWriter) appendLine(b, line []byte) []byte {
	return append(fmt.Appendf(b, "[pod/%s] ", w.container), line...)
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.screen.mu.Lock()
	defer w.screen.mu.Unlock()
	w.rest = append(w.rest, p...)
	var lines []byte
	for {
		i := bytes.IndexByte(w.rest, '\n')
		if i < 0 && len(w.rest) < maxLine {
			break
		}
		end := min(i+1, len(w.rest))
		if i < 0 {
			end = len(w.rest)
		}
		lines = w.appendLine(lines, w.rest[:end])
		if i < 0 {
			lines = append(lines, '\n')
		}
		w.rest = w.rest[end:]
	}
	if len(lines) > 0 {
		w.screen.write(w.to, lines)
	}
	if len(w.rest) == 0 {
		w.rest = nil
	}
	return len(p), nil
}

// flush ends the last line of a container that ended without ending it. The
// caller holds screen.mu.
func (w *lineWriter) flush() {
	if len(w.rest) > 0 {
		w.screen.write(w.to, append(w.appendLine(nil, w.rest), '\n'))
		w.rest = nil
	}
}

// message prints a line of our own on stderr.
func (s *screen) message(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line(text)
}

func (s *screen) line(text string) {
	end := ""
	if s.open == s.stderr && s.open != nil {
		end, s.open = "\n", nil
	}
	s.write(s.stderr, []byte(end+"wasmpod: "+strings.ReplaceAll(text, "\n", "\n  ")+"\n"))
}

// event prints a Kubernetes event.
func (s *screen) event(e *corev1.Event) {
	if !s.options.events {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	object := "pod/" + e.InvolvedObject.Name
	if e.InvolvedObject.Kind == "Node" {
		object = "node/" + e.InvolvedObject.Name
	}
	if e.InvolvedObject.FieldPath != "" {
		object += " " + e.InvolvedObject.FieldPath
	}
	times := ""
	if e.Count > 1 {
		times = fmt.Sprintf(" (x%d)", e.Count)
	}
	s.write(s.stderr, fmt.Appendf(nil, "%s %s %s %s: %s%s\n",
		e.LastTimestamp.UTC().Format(time.RFC3339), e.Type, e.Reason, object, strings.TrimSpace(e.Message), times))
}

// fact follows the containers' progress. Errors are always printed; the steps
// on the way to running only when progress was asked for.
func (s *screen) fact(pod *corev1.Pod, fact lifecycle.Fact) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := func(c lifecycle.ContainerRef) string { return pod.Name + "/" + c.Name }
	switch f := fact.(type) {
	case lifecycle.SandboxCreated:
		if f.IP != "" && s.options.progress {
			s.line(podAddress(pod, f.IP))
		}
	case lifecycle.ImagePulling:
		s.step(name(f.Container), "pulling "+f.Image, f.At)
	case lifecycle.ImagePulled:
		s.step(name(f.Container), compiling, f.At)
	case lifecycle.ContainerCreated:
		s.step(name(f.Container), "starting", f.At)
	case lifecycle.ContainerStarted:
		s.step(name(f.Container), "", f.At)
	case lifecycle.ContainerExited:
		s.exited(name(f.Container), f)
	case lifecycle.ImageFailed:
		s.failed(name(f.Container), f.Reason, f.Message)
	case lifecycle.ContainerStartFailed:
		s.failed(name(f.Container), f.Reason, f.Message)
	case lifecycle.VolumesFailed:
		for _, m := range f.Messages {
			s.failed(pod.Name, "FailedMount", m)
		}
	case lifecycle.SandboxFailed:
		s.failed(pod.Name, "FailedCreatePodSandBox", f.Message)
	}
}

func (s *screen) exited(name string, f lifecycle.ContainerExited) {
	s.writers = slices.DeleteFunc(s.writers, func(w *lineWriter) bool {
		if w.container != name {
			return false
		}
		w.flush()
		return true
	})
	switch {
	case f.ExitCode != 0 && f.Message != "":
		s.line(fmt.Sprintf("%s ended with %d (%s): %s", name, f.ExitCode, f.Reason, f.Message))
	case f.ExitCode != 0 || s.options.progress && !s.terminal:
		s.line(fmt.Sprintf("%s ended with %d (%s)", name, f.ExitCode, f.Reason))
	}
}

func (s *screen) failed(name, reason, message string) {
	s.remove(name)
	s.line(fmt.Sprintf("%s: %s: %s", name, reason, message))
}

const compiling = "compiling"

// step records what a container is doing; an empty step: it runs.
func (s *screen) step(name, step string, at time.Time) {
	if !s.options.progress || s.closed {
		return
	}
	s.erase()
	s.remove(name)
	switch {
	case step != "":
		s.waiting = append(s.waiting, waiting{container: name, step: step, since: at})
	case !s.terminal:
		s.line(name + " started")
	}
	s.draw()
}

func (s *screen) remove(name string) {
	s.waiting = slices.DeleteFunc(s.waiting, func(w waiting) bool { return w.container == name })
}

func (s *screen) erase() {
	if s.drawn {
		fmt.Fprint(s.stderr, "\r\x1b[K")
		s.drawn = false
	}
}

// draw shows the status line, unless a container is in the middle of a line.
func (s *screen) draw() {
	if !s.terminal || len(s.waiting) == 0 || s.open != nil || s.closed {
		return
	}
	text := make([]string, len(s.waiting))
	for i, w := range s.waiting {
		text[i] = w.container + ": " + w.step
		if d := time.Since(w.since); d >= long {
			text[i] += fmt.Sprintf(" (%d s)", int(d.Seconds()))
		}
	}
	line := []rune(strings.Join(text, "  "))
	width := 80
	if f, ok := s.stderr.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 1 {
			width = w
		}
	}
	fmt.Fprint(s.stderr, string(line[:min(len(line), width-1)]))
	s.drawn = true
}

// summary says how the pods have ended.
func (s *screen) summary(pods []*corev1.Pod) {
	if !s.options.progress {
		return
	}
	for _, p := range pods {
		restarts := int32(0)
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			restarts += c.RestartCount
		}
		text := fmt.Sprintf("pod/%s %s", p.Name, p.Status.Phase)
		if p.Status.Reason != "" {
			text += " (" + p.Status.Reason + ")"
		}
		s.message(fmt.Sprintf("%s, %d restarts", text, restarts))
	}
}

// close ends what is held back and takes the status line away.
func (s *screen) close() {
	defer s.stopped.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.writers {
		w.flush()
	}
	s.erase()
	if !s.closed {
		s.closed = true
		close(s.stop)
	}
}
