package seeds

import (
	"bufio"
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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// patience bounds every wait: machines may be slow, and nothing that is waited for
// takes this long.
const patience = 5 * time.Minute

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

// line is one of its stdout or stderr, and when it was read: some time after what
// it tells of, if the machine has much to do.
type line struct {
	at   time.Time
	text string
}

// stamp is when an event happened, to the second, as the line itself says.
func (r *running) stamp(l line) time.Time {
	r.t.Helper()
	word, _, _ := strings.Cut(l.text, " ")
	at, err := time.Parse(time.RFC3339, word)
	if err != nil {
		r.t.Fatalf("%q is no event: %v", l.text, err)
	}
	return at
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
	args := []string{"run", "--data-dir", data, "--events", "--status-file", r.status, "--egress", "deny", "--metrics-listen", "127.0.0.1:0", "--timeout", "15m"}
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

// around checks the time between two moments that wasmpod has told of, each to the
// second: no less than want, give or take early, and no more than slack later.
// Whether a machine keeps up is not what is tested, so that with -short, which is
// for machines that have other work, what is late is told of and no error.
func (r *running) around(what string, after, at time.Time, want, early time.Duration) {
	r.t.Helper()
	got := at.Sub(after)
	verdict := "ok"
	switch {
	case got < want-early-time.Second:
		verdict = "too early"
		r.t.Errorf("%s after %v, want %v", what, got, want)
	case got > want+early+slack && testing.Short():
		verdict = "late"
	case got > want+early+slack:
		verdict = "late"
		r.t.Errorf("%s after %v, want %v", what, got, want)
	}
	r.t.Logf("%-28s %6.1f s (%v, by %v earlier or later) %s", what, got.Seconds(), want, early, verdict)
}

// metric waits until the sample whose name and labels match is at least so much, and
// returns it.
func (r *running) metric(pattern string, least float64) (value float64) {
	r.t.Helper()
	re := regexp.MustCompile("^" + pattern + ` (\S+)$`)
	words := strings.Fields(r.await(1, "^wasmpod: metrics at ").text)
	url := words[len(words)-1]
	r.until(func() (bool, error) {
		text, err := r.request(url)
		for sample := range strings.Lines(text) {
			if m := re.FindStringSubmatch(strings.TrimSpace(sample)); m != nil {
				value, err = strconv.ParseFloat(m[1], 64)
				return value >= least, err
			}
		}
		return false, err
	}, pattern)
	return value
}

// until asks again and again, until the answer is yes.
func (r *running) until(ask func() (bool, error), what string) {
	r.t.Helper()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	tooLate := time.After(patience)
	for {
		yes, err := ask()
		if yes {
			return
		}
		select {
		case <-again.C:
		case <-r.ended:
			r.t.Fatalf("the run has ended before %s: %v", what, err)
		case <-tooLate:
			r.t.Fatalf("%s does not come: %v", what, err)
		}
	}
}

// request asks a server once.
func (r *running) request(url string) (string, error) {
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		r.t.Fatalf("%s: %s", url, response.Status)
	}
	return string(body), err
}

// ip waits for the pod's IP.
func (r *running) ip(pod string) string {
	r.t.Helper()
	words := strings.Fields(r.await(1, `^wasmpod: pod/`+pod+` has IP `).text)
	return strings.TrimSuffix(words[4], ",")
}

// get waits until a server answers, and returns what.
func (r *running) get(url string) (body string) {
	r.t.Helper()
	r.until(func() (bool, error) {
		var err error
		body, err = r.request(url)
		return err == nil, err
	}, url)
	return body
}

// answers checks that a server's answer has a text in it.
func (r *running) answers(url, want string) {
	r.t.Helper()
	if got := r.get(url); !strings.Contains(got, want) {
		r.t.Errorf("%s answers %q, want %q", url, got, want)
	}
}

// stop ends the run by SIGTERM and returns the final status of its pods, in the
// order of the manifests. Whether a container has used its grace period up is in
// its exit code.
func (r *running) stop() final {
	r.t.Helper()
	begin := time.Now()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	select {
	case <-r.ended:
	case <-time.After(patience):
		r.t.Fatal("the run does not end on SIGTERM")
	}
	r.t.Logf("SIGTERM to end took %v", time.Since(begin).Round(time.Millisecond))
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

// restarted is when the instance before the last of a container ended, and when
// the last one began.
func (f final) restarted(name string) (ended, began time.Time) {
	f.t.Helper()
	c := f.container(name)
	if c.LastTerminationState.Terminated == nil || c.State.Terminated == nil {
		f.t.Fatalf("%s: %+v after %+v, want two ends", name, c.State, c.LastTerminationState)
	}
	return c.LastTerminationState.Terminated.FinishedAt.Time, c.State.Terminated.StartedAt.Time
}
