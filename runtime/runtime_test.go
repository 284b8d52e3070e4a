package runtime

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
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
	"github.com/wasmpod/wasmpod/runtime/store"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// guest fails as often as its first argument says, counting in a file of a
// volume, and then succeeds. -1: always.
const guest = `package main

import (
	"fmt"
	"os"
	"time"
)

func main() {
	var failures, code int
	var sleep string
	fmt.Sscan(os.Args[1], &failures)
	fmt.Sscan(os.Args[2], &code)
	if len(os.Args) > 3 {
		sleep = os.Args[3]
		d, _ := time.ParseDuration(sleep)
		time.Sleep(d)
	}
	f, err := os.OpenFile("/count/runs", os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		fmt.Println(err)
		os.Exit(100)
	}
	f.WriteString(".")
	info, _ := f.Stat()
	if failures < 0 || int(info.Size()) <= failures {
		os.Exit(code)
	}
	fmt.Println("done after", info.Size(), "runs")
}
`

type output struct {
	mu sync.Mutex
	bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.Buffer.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.Buffer.String()
}

// inBubble opens a Runtime in a bubble of fake time, applies a manifest, and
// calls check.
func inBubble(t *testing.T, yaml string, check func(t *testing.T, r *Runtime, out *output)) {
	module := wasmtest.BuildGo(t, guest) // outside: it runs processes
	yaml = strings.ReplaceAll(yaml, "GUEST", module)
	yaml = strings.ReplaceAll(yaml, "COUNT", t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		out := new(output)
		r, err := Open(t.Context(), Config{
			DataDir:     dataDir(t),
			Interpreter: raceEnabled,
			Stdio:       func(container.Config) Stdio { return Stdio{Stdout: out, Stderr: out} },
			// Time stands still in a bubble that waits for real sockets, and what package
			// net keeps of the host's resolver would be the bubble's for ever.
			Registries: image.Registries{Offline: true},
		})
		if err != nil {
			t.Fatal(err)
		}
		objects, err := manifest.Parse("", manifest.Source{Name: t.Name(), Data: []byte(yaml)})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Apply(objects); err != nil {
			t.Fatal(err)
		}
		check(t, r, out)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

const podYAML = `
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: POLICY
  volumes: [{name: count, emptyDir: {}}]
  containers:
  - name: c
    image: GUEST
    args: [ARGS]
    volumeMounts: [{name: count, mountPath: /count}]
`

func podOf(policy, args string) string {
	return strings.NewReplacer("POLICY", policy, "ARGS", args).Replace(podYAML)
}

// Half an hour of a real guest's crash loop.
func TestCrashLoopRST03(t *testing.T) {
	inBubble(t, podOf("Always", `"-1", "3"`), func(t *testing.T, r *Runtime, _ *output) {
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		s := r.Pods()[0].Status
		// At 0, 0, 10, 30, 70, 150, 310, 610, 910, 1210, 1510 s.
		if c := s.ContainerStatuses[0]; s.Phase != corev1.PodRunning || c.RestartCount != 10 ||
			c.State.Waiting == nil || c.State.Waiting.Reason != "CrashLoopBackOff" ||
			c.LastTerminationState.Terminated.ExitCode != 3 {
			t.Errorf("phase %s, %d restarts, state %+v", s.Phase, c.RestartCount, c.State)
		}
		r.Delete()
		if err := r.Wait(t.Context(), 0); err != nil {
			t.Error(err)
		}
	})
}

func TestSucceedsAfterRestarts(t *testing.T) {
	inBubble(t, podOf("OnFailure", `"3", "1"`), func(t *testing.T, r *Runtime, out *output) {
		begin := time.Now()
		if err := r.Wait(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if f := r.Failure(); f != nil {
			t.Errorf("failure %+v", f)
		}
		if got := out.String(); got != "done after 4 runs\n" {
			t.Errorf("output %q", got)
		}
		if took := time.Since(begin); took != 30*time.Second {
			t.Errorf("took %v of fake time, want 0 s + 10 s + 20 s", took)
		}
	})
}

func TestDEAD02ActiveDeadline(t *testing.T) {
	yaml := strings.Replace(podOf("Always", `"0", "0", "1h"`), "spec:\n", "spec:\n  activeDeadlineSeconds: 100\n", 1)
	inBubble(t, yaml, func(t *testing.T, r *Runtime, _ *output) {
		begin := time.Now()
		if err := r.Wait(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		s := r.Pods()[0].Status
		if s.Phase != corev1.PodFailed || s.Reason != "DeadlineExceeded" || time.Since(begin) != 100*time.Second {
			t.Errorf("phase %s, reason %s after %v", s.Phase, s.Reason, time.Since(begin))
		}
		if f := r.Failure(); f == nil || f.ExitCode != 143 {
			t.Errorf("failure %+v", f)
		}
	})
}

const jobYAML = `
apiVersion: batch/v1
kind: Job
metadata: {name: j}
spec:
  backoffLimit: LIMIT
  template:
    spec:
      restartPolicy: Never
      volumes: [{name: count, hostPath: {path: COUNT}}]
      containers:
      - name: c
        image: GUEST
        args: ["3", "1"]
        volumeMounts: [{name: count, mountPath: /count}]
`

func TestJob(t *testing.T) {
	for limit, want := range map[string]string{"6": "Complete", "2": "Failed"} {
		t.Run(want, func(t *testing.T) {
			inBubble(t, strings.Replace(jobYAML, "LIMIT", limit, 1), func(t *testing.T, r *Runtime, _ *output) {
				if err := r.Wait(t.Context(), 0); err != nil {
					t.Fatal(err)
				}
				job := r.Jobs()[0]
				if c := job.Status.Conditions; len(c) != 1 || string(c[0].Type) != want {
					t.Errorf("conditions %+v", c)
				}
				if pods := len(r.Pods()); pods != map[string]int{"Complete": 4, "Failed": 3}[want] {
					t.Errorf("%d pods", pods)
				}
				if f := r.Failure(); (f == nil) != (want == "Complete") {
					t.Errorf("failure %+v", f)
				}
			})
		})
	}
}

func TestWaitGivesUpOnBlockedPods(t *testing.T) {
	yaml := strings.ReplaceAll(podOf("Always", `"0"`), "GUEST", "nobody/has:this")
	inBubble(t, yaml, func(t *testing.T, r *Runtime, _ *output) {
		begin := time.Now()
		err := r.Wait(t.Context(), 15*time.Second)
		var blocked *BlockedError
		if !errors.As(err, &blocked) || !strings.Contains(err.Error(), `pod "p" cannot start: container "c": ErrImagePull`) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(begin); took < 15*time.Second || took > 17*time.Second {
			t.Errorf("gave up after %v", took)
		}
		r.Kill()
		if err := r.Wait(t.Context(), 0); err != nil {
			t.Error(err)
		}
		// What the pod waited for is still told.
		pod := r.List().Items[0].Object.(*corev1.Pod)
		if w := pod.Status.ContainerStatuses[0].State.Waiting; w == nil || w.Reason != "ImagePullBackOff" {
			t.Errorf("IMG-08: state %+v", pod.Status.ContainerStatuses[0].State)
		}
	})
}

// Events are told before the status is shown: who ends a pod when it sees the event
// finds in its status what it has waited for all the same.
func TestEndedBeforeItsWaitWasShownIMG08(t *testing.T) {
	r := &Runtime{store: store.New(), blocked: make(map[types.UID]blockage), waiting: make(map[types.UID]corev1.PodStatus)}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", UID: "u"}}
	if err := r.store.AddPod(pod); err != nil {
		t.Fatal(err)
	}
	status := func(reason string) corev1.PodStatus {
		return corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{
			{Name: "c", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}},
		}}
	}
	fact := lifecycle.ContainerStartFailed{Container: lifecycle.ContainerRef{Name: "c"}, Reason: "CreateContainerConfigError"}
	r.waiting["u"] = status("ContainerCreating") // as it was when it was ended
	r.store.SetStatus("u", status(fact.Reason))
	r.blockages(pod, fact)
	if got := r.waiting["u"].ContainerStatuses[0].State.Waiting.Reason; got != fact.Reason {
		t.Errorf("it waited for %s, want %s", got, fact.Reason)
	}
	ended := status(fact.Reason)
	ended.Phase = corev1.PodFailed
	r.store.SetStatus("u", ended)
	r.blockages(pod, fact)
	if got := r.waiting["u"].Phase; got != corev1.PodPending {
		t.Errorf("what it waited for is lost: %s", got)
	}
}

// A process that was killed leaves a directory, which the next one removes; one
// that runs keeps its own.
func TestLeftovers(t *testing.T) {
	data := t.TempDir()
	open := func() *Runtime {
		r, err := Open(t.Context(), Config{DataDir: data})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	killed := filepath.Join(data, "run", "killed")
	if err := os.MkdirAll(filepath.Join(killed, "pods", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	first := open()
	if _, err := os.Stat(killed); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left by a killed process: %v", err)
	}
	second := open()
	if _, err := os.Stat(first.run.path); err != nil {
		t.Errorf("the directory of a process that runs is gone: %v", err)
	}
	for _, r := range []*Runtime{first, second} {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(data, "run")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestPruneLogs(t *testing.T) {
	root := t.TempDir()
	old, recent := filepath.Join(root, "old", "c", "0.log"), filepath.Join(root, "recent", "c", "0.log")
	for _, f := range []string{old, recent} {
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	then := time.Now().Add(-keepLogs - time.Hour)
	for _, p := range []string{old, filepath.Dir(old), filepath.Dir(filepath.Dir(old))} {
		if err := os.Chtimes(p, then, then); err != nil {
			t.Fatal(err)
		}
	}
	pruneLogs(root, slog.New(slog.DiscardHandler))
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("old log: %v", err)
	}
	if _, err := os.Stat(recent); err != nil {
		t.Error(err)
	}
}

func TestFailure(t *testing.T) {
	ended := func(code int32, at int64) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.Unix(at, 0)}}
	}
	pod := func(phase corev1.PodPhase, states ...corev1.ContainerState) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Status: corev1.PodStatus{Phase: phase}}
		for _, s := range states {
			p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{State: s})
		}
		return p
	}
	for name, tt := range map[string]struct {
		pods []*corev1.Pod
		want int32 // -1: no failure
	}{
		"no pods":                 {nil, -1},
		"all succeeded":           {[]*corev1.Pod{pod(corev1.PodSucceeded, ended(0, 1))}, -1},
		"first in time":           {[]*corev1.Pod{pod(corev1.PodFailed, ended(5, 9), ended(6, 3), ended(0, 1))}, 6},
		"of all pods":             {[]*corev1.Pod{pod(corev1.PodFailed, ended(5, 9)), pod(corev1.PodFailed, ended(7, 2))}, 7},
		"of those that failed":    {[]*corev1.Pod{pod(corev1.PodSucceeded, ended(3, 1)), pod(corev1.PodFailed, ended(7, 2))}, 7},
		"failed without an error": {[]*corev1.Pod{pod(corev1.PodFailed, ended(0, 1))}, 0},
		"never ended":             {[]*corev1.Pod{pod(corev1.PodPending)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := failure(tt.pods, nil)
			if (got == nil) != (tt.want == -1) || got != nil && got.ExitCode != tt.want {
				t.Errorf("failure %+v, want exit code %d", got, tt.want)
			}
		})
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	inBubble(t, podOf("Always", `"0", "0", "1h"`), func(t *testing.T, r *Runtime, _ *output) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := r.Wait(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}
