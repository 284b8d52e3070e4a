package seeds

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// patience bounds every wait: machines may be slow, and nothing that is waited for
// takes this long.
const patience = 3 * time.Minute

// running is a wasmpod that runs a seed.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string
	status string
	ended  chan struct{}

	mu      sync.Mutex
	lines   []line
	changed chan struct{} // closed with the next line
}

// line is one of its stdout or stderr, and when it came.
type line struct {
	at   time.Time
	text string
}

// start starts wasmpod with the seed's file and those beside it.
func (s scenario) start(t *testing.T, bin, data string) *running {
	t.Helper()
	name, _, _ := strings.Cut(s.name, "/")
	files, err := filepath.Glob(filepath.Join(manifests, name+".*"))
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(files, func(f string) bool { return strings.Contains(f, ".fixed.") }); i >= 0 {
		files = files[i : i+1]
	}
	if len(files) != 1 {
		t.Fatalf("%d manifests of %s", len(files), name)
	}
	r := &running{t: t, dir: t.TempDir(), ended: make(chan struct{}), changed: make(chan struct{})}
	r.status = filepath.Join(r.dir, "status.json")
	beside := filepath.Join(r.dir, "manifests")
	if err := os.Mkdir(beside, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(s.more)) {
		r.write(name, s.more[name])
	}
	if len(s.more) > 0 {
		files = append(files, beside)
	}
	args := []string{"run", "--data-dir", data, "--events", "--status-file", r.status, "--egress", "deny", "--timeout", "10m"}
	if s.stores != nil {
		args = append(args, "--image-stores", s.stores(t)+","+filepath.Join(filepath.Dir(bin), "images"))
	}
	r.cmd = exec.Command(bin, append(args, files...)...)
	// Whoever tries to reach a registry fails.
	r.cmd.Env = append(os.Environ(), "HTTP_PROXY=http://127.0.0.1:9", "HTTPS_PROXY=http://127.0.0.1:9", "NO_PROXY=")
	pr, pw := io.Pipe()
	r.cmd.Stdout, r.cmd.Stderr = pw, pw
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go r.read(pr)
	go func() {
		_ = r.cmd.Wait()
		pw.Close()
	}()
	t.Cleanup(func() {
		if _, over := r.over(); !over {
			_ = r.cmd.Process.Kill()
			<-r.ended
		}
		if t.Failed() {
			t.Logf("%s\n%s", r.cmd, r.output())
		}
	})
	return r
}

// write writes a manifest beside the seed: whole, as an editor does.
func (r *running) write(name, text string) {
	r.t.Helper()
	file := filepath.Join(r.dir, "manifests", name)
	if err := os.WriteFile(file+".tmp", []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(file+".tmp", file); err != nil {
		r.t.Fatal(err)
	}
}

func (r *running) read(from io.Reader) {
	lines := bufio.NewReader(from)
	for {
		text, err := lines.ReadString('\n')
		if text != "" {
			r.mu.Lock()
			r.lines = append(r.lines, line{time.Now(), strings.TrimSuffix(text, "\n")})
			close(r.changed)
			r.changed = make(chan struct{})
			r.mu.Unlock()
		}
		if err != nil {
			close(r.ended)
			return
		}
	}
}

func (r *running) over() (code int, over bool) {
	select {
	case <-r.ended:
		return r.cmd.ProcessState.ExitCode(), true
	default:
		return 0, false
	}
}

// output is what has been printed, each line with its time since the first.
func (r *running) output() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, l := range r.lines {
		fmt.Fprintf(&b, "%7.2f %s\n", l.at.Sub(r.lines[0].at).Seconds(), l.text)
	}
	return b.String()
}

// find returns the lines that match.
func (r *running) find(pattern string) (found []line) {
	re := regexp.MustCompile(pattern)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lines {
		if re.MatchString(l.text) {
			found = append(found, l)
		}
	}
	return found
}

// await waits for the n-th line that matches, and returns it.
func (r *running) await(n int, pattern string) line {
	r.t.Helper()
	tooLate := time.After(patience)
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		if found := r.find(pattern); len(found) >= n {
			return found[n-1]
		}
		select {
		case <-changed:
		case <-r.ended:
			if found := r.find(pattern); len(found) >= n {
				return found[n-1]
			}
			r.t.Fatalf("ended before line %d of %q", n, pattern)
		case <-tooLate:
			r.t.Fatalf("line %d of %q does not come", n, pattern)
		}
	}
}

// never fails the test if a line matches.
func (r *running) never(pattern string) {
	r.t.Helper()
	for _, l := range r.find(pattern) {
		r.t.Errorf("not expected: %s", l.text)
	}
}

// around checks when a line came: at a moment after another, give or take.
func (r *running) around(what string, l, after line, want, tolerance time.Duration) {
	r.t.Helper()
	got := l.at.Sub(after.at)
	if (got - want).Abs() > tolerance {
		r.t.Errorf("%s after %.1f s, want %v ± %v", what, got.Seconds(), want, tolerance)
	}
	r.t.Logf("%-28s %6.1f s (%v ± %v)", what, got.Seconds(), want, tolerance)
}

// ip waits for the pod's IP.
func (r *running) ip(pod string) string {
	r.t.Helper()
	words := strings.Fields(r.await(1, `^wasmpod: pod/`+pod+` has IP `).text)
	return strings.TrimSuffix(words[4], ",")
}

// get waits until a server answers, and returns what.
func (r *running) get(url string) string {
	r.t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	tooLate := time.After(patience)
	for {
		response, err := client.Get(url)
		if err == nil {
			var body []byte
			body, err = io.ReadAll(response.Body)
			response.Body.Close()
			if err == nil && response.StatusCode != http.StatusOK {
				r.t.Fatalf("%s: %s", url, response.Status)
			}
			if err == nil {
				return string(body)
			}
		}
		select {
		case <-retry.C:
		case <-r.ended:
			r.t.Fatalf("%s: %v, and the run has ended", url, err)
		case <-tooLate:
			r.t.Fatalf("%s: %v", url, err)
		}
	}
}

// answers checks that a server's answer has a text in it.
func (r *running) answers(url, want string) {
	r.t.Helper()
	if got := r.get(url); !strings.Contains(got, want) {
		r.t.Errorf("%s answers %q, want %q", url, got, want)
	}
}

// pass lets real time go by, to see that nothing happens in it.
func (r *running) pass(d time.Duration) {
	r.t.Helper()
	select {
	case <-time.After(d):
	case <-r.ended:
		r.t.Fatal("the run has ended")
	}
}

// stop ends the run by SIGTERM and returns the final status of its pods, in the
// order of the manifests. It must take no longer than within.
func (r *running) stop(within time.Duration) final {
	r.t.Helper()
	begin := time.Now()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	select {
	case <-r.ended:
	case <-ctx.Done():
		r.t.Fatal("the run does not end on SIGTERM")
	}
	if took := time.Since(begin); took > within {
		r.t.Errorf("SIGTERM to end took %v, want less than %v", took, within)
	}
	return r.final()
}

// final is the status file.
type final struct {
	t    *testing.T
	pods []corev1.Pod
}

func (r *running) final() final {
	r.t.Helper()
	data, err := os.ReadFile(r.status)
	if err != nil {
		r.t.Fatal(err)
	}
	var list struct{ Items []json.RawMessage }
	err = json.Unmarshal(data, &list)
	f := final{t: r.t}
	for _, item := range list.Items {
		var pod corev1.Pod
		var kind struct{ Kind string }
		err = errors.Join(err, json.Unmarshal(item, &kind))
		if kind.Kind == "Pod" {
			err = errors.Join(err, json.Unmarshal(item, &pod))
			f.pods = append(f.pods, pod)
		}
	}
	if err != nil {
		r.t.Fatal(err)
	}
	if len(f.pods) == 0 {
		r.t.Fatal("no pod in the status file")
	}
	return f
}

// container is the final status of a container of the first pod.
func (f final) container(name string) corev1.ContainerStatus {
	f.t.Helper()
	for _, c := range slices.Concat(f.pods[0].Status.InitContainerStatuses, f.pods[0].Status.ContainerStatuses) {
		if c.Name == name {
			return c
		}
	}
	f.t.Fatalf("no container %q in the status of pod %q", name, f.pods[0].Name)
	return corev1.ContainerStatus{}
}

// ended checks how a container of the first pod has ended, and how often it had
// been restarted.
func (f final) ended(name string, exitCode, restarts int32) {
	f.t.Helper()
	c := f.container(name)
	switch {
	case c.State.Terminated == nil:
		f.t.Errorf("%s: %+v, want it terminated", name, c.State)
	case c.State.Terminated.ExitCode != exitCode || c.RestartCount != restarts:
		f.t.Errorf("%s: exit code %d, %d restarts, want %d and %d", name, c.State.Terminated.ExitCode, c.RestartCount, exitCode, restarts)
	}
}
