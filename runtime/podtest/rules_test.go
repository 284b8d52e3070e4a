package podtest_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/wasmpod/wasmpod/runtime"
	"github.com/wasmpod/wasmpod/runtime/podtest"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// worker does what its arguments say, one after the other.
const worker = `#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void show(const char *name) {
	char b[4096];
	FILE *f = fopen(name, "r");
	if (!f) { printf("%s: %s\n", name, strerror(errno)); return; }
	size_t n = fread(b, 1, sizeof b - 1, f);
	b[n] = 0;
	printf("%s: %s\n", name, b);
	fclose(f);
}

int main(int argc, char **argv) {
	for (int i = 1; i < argc; i++) {
		char *a = argv[i], *v = strchr(a, '=');
		if (v) v++;
		if (!strncmp(a, "sleep", 5)) sleep(v ? atoi(v) : 1000000);
		else if (!strncmp(a, "exit=", 5)) return atoi(v);
		else if (!strncmp(a, "env=", 4)) { char *e = getenv(v); printf("%s=%s\n", v, e ? e : "(unset)"); }
		else if (!strncmp(a, "cat=", 4)) show(v);
		else if (!strncmp(a, "write=", 6)) { FILE *f = fopen(v, "a"); if (!f) printf("%s: %s\n", v, strerror(errno)); else { fputs("x", f); fclose(f); } }
		else if (!strcmp(a, "argv0")) puts(argv[0]);
		else if (!strcmp(a, "trap")) __builtin_trap();
		else if (!strcmp(a, "spin")) for (;;) ;
		else puts(a);
		fflush(stdout);
	}
	return 0;
}
`

// inBubble runs a manifest with the worker as app:1, in fake time.
func inBubble(t *testing.T, manifest string, test func(*testing.T, *podtest.Pods)) {
	t.Helper()
	module := wasmtest.BuildC(t, worker)
	synctest.Test(t, func(t *testing.T) { test(t, podtest.Run(t, manifest, podtest.Image("app:1", module))) })
}

func pod(spec string) string {
	return "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  terminationGracePeriodSeconds: 5\n" + spec
}

func TestSandboxIsNotListed(t *testing.T) {
	t.Run("SBX-12 the infra module is in no status", func(t *testing.T) {
		inBubble(t, threeContainers, func(t *testing.T, pods *podtest.Pods) {
			podtest.Advance(time.Second)
			s := pods.Get("web").Object().Status
			var names []string
			for _, c := range slices.Concat(s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses) {
				names = append(names, c.Name)
			}
			if !slices.Equal(names, []string{"init", "sidecar", "app"}) {
				t.Errorf("%q", names)
			}
		})
	})
}

func TestFilesOfAttempts(t *testing.T) {
	inBubbleRun := func(name string, spec string, check func(*testing.T, *podtest.Pod)) {
		t.Run(name, func(t *testing.T) {
			inBubble(t, pod(spec), func(t *testing.T, pods *podtest.Pods) {
				podtest.Advance(time.Second)
				check(t, pods.Get("p"))
			})
		})
	}
	const restarting = `
  restartPolicy: OnFailure
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - {name: c, image: "app:1", args: [write=/own, write=/v/kept, cat=/own, cat=/v/kept, exit=1], volumeMounts: [{name: v, mountPath: /v}]}
  - {name: other, image: "app:1", args: [sleep=1, cat=/own, cat=/v/kept, sleep], volumeMounts: [{name: v, mountPath: /v}]}
`
	inBubbleRun("MAIN-08 VOL-02 the root is new for every attempt and a container's own, an emptyDir is the pod's", restarting, func(t *testing.T, p *podtest.Pod) {
		podtest.Advance(time.Second) // the other looks when this one has written
		if got := p.AttemptLogs("c", 0); got != "/own: x\n/v/kept: x\n" {
			t.Errorf("first attempt: %q", got)
		}
		if got := p.AttemptLogs("c", 1); got != "/own: x\n/v/kept: xx\n" {
			t.Errorf("second attempt: %q", got)
		}
		if got := p.Logs("other"); !strings.Contains(got, "/own: No such file") || !strings.Contains(got, "/v/kept: x") {
			t.Errorf("the other container: %q", got)
		}
	})
	inBubbleRun("INIT-14 init containers see what others do", `
  hostname: h
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
  - {name: i, image: "app:1", args: [write=/v/f, "env=A", "env=HOSTNAME", "cat=/etc/hostname"], env: [{name: A, value: b}], volumeMounts: [{name: v, mountPath: /v}]}
  containers:
  - {name: c, image: "app:1", args: [cat=/v/f, "env=A", "env=HOSTNAME", "cat=/etc/hostname", sleep], env: [{name: A, value: b}], volumeMounts: [{name: v, mountPath: /v}]}
`, func(t *testing.T, p *podtest.Pod) {
		const both = "A=b\nHOSTNAME=h\n/etc/hostname: h\n\n"
		if i, c := p.Logs("i"), p.Logs("c"); i != both || c != "/v/f: x\n"+both {
			t.Errorf("%q and %q", i, c)
		}
	})
	inBubbleRun("ENV-14 argv[0] is the entry point", `
  containers: [{name: c, image: "app:1", args: [argv0, sleep]}]
`, func(t *testing.T, p *podtest.Pod) {
		if got := p.Logs("c"); got != "/app.wasm\n" {
			t.Errorf("%q", got)
		}
	})
	inBubbleRun("HOOK-10 what a hook writes is in no log", `
  containers: [{name: c, image: "app:1", args: [main, sleep], lifecycle: {postStart: {exec: {command: [/app.wasm, of the hook]}}}}]
`, func(t *testing.T, p *podtest.Pod) {
		if got := p.Logs("c"); got != "main\n" {
			t.Errorf("%q", got)
		}
	})
	inBubbleRun("PROBE-28 EXEC-07 an exec probe is an instance of its own in the container's files, and its exit code counts", `
  containers:
  - name: c
    image: "app:1"
    args: [sleep]
    env: [{name: A, value: b}]
    livenessProbe: {periodSeconds: 1, failureThreshold: 1000, exec: {command: [/app.wasm, "env=A", write=/seen, cat=/seen, exit=3]}}
`, func(t *testing.T, p *podtest.Pod) {
		e := p.WaitEvent("Unhealthy")
		if e.Message != "Liveness probe failed: A=b\n/seen: x\n" {
			t.Errorf("%q", e.Message)
		}
		if _, out := p.Exec("c", "/app.wasm", "cat=/seen"); !strings.HasPrefix(out, "/seen: x") {
			t.Errorf("%q", out)
		}
	})
	inBubbleRun("TMSG-04 what the engine says comes before the file", `
  restartPolicy: Never
  containers: [{name: c, image: "app:1", args: [write=/dev/termination-log, trap]}]
`, func(t *testing.T, p *podtest.Pod) {
		got := p.Object().Status.ContainerStatuses[0].State.Terminated
		if got == nil || !strings.HasSuffix(got.Message, ": x") || !strings.Contains(got.Message, "unreachable") {
			t.Errorf("%+v", got)
		}
	})
	inBubbleRun("TIME-19 TMSG-03 80 lines of the log at most", `
  restartPolicy: Never
  containers: [{name: c, image: "app:1", args: [`+strings.Repeat("ab,", 100)+`exit=1], terminationMessagePolicy: FallbackToLogsOnError}]
`, func(t *testing.T, p *podtest.Pod) {
		if got := p.Object().Status.ContainerStatuses[0].State.Terminated; got == nil || got.Message != strings.Repeat("ab\n", 80) {
			t.Errorf("%+v", got)
		}
	})
	inBubbleRun("TIME-19 TMSG-03 2048 bytes of the log at most", `
  restartPolicy: Never
  containers: [{name: c, image: "app:1", args: [`+strings.Repeat(strings.Repeat("x", 99)+",", 30)+`exit=1], terminationMessagePolicy: FallbackToLogsOnError}]
`, func(t *testing.T, p *podtest.Pod) {
		if got := p.Object().Status.ContainerStatuses[0].State.Terminated; got == nil || len(got.Message) != 2048 {
			t.Errorf("%+v", got)
		}
	})
}

func TestVolumesVOL01_VOL02(t *testing.T) {
	host := t.TempDir()
	inBubble(t, pod(`
  volumes: [{name: v, emptyDir: {}}, {name: h, hostPath: {path: `+host+`}}]
  containers: [{name: c, image: "app:1", args: [write=/v/f, write=/h/f, sleep], volumeMounts: [{name: v, mountPath: /v}, {name: h, mountPath: /h}]}]
`), func(t *testing.T, pods *podtest.Pods) {
		podtest.Advance(time.Second)
		p := pods.Get("p")
		if got := p.Logs("c"); got != "" {
			t.Errorf("%q", got)
		}
		own := p.Volume("v")
		if info, err := os.Stat(own); err != nil || info.Mode().Perm() != 0o777 {
			t.Errorf("VOL-02: %v, %v", info.Mode(), err)
		}
		p.Delete()
		if _, err := os.Stat(own); !os.IsNotExist(err) {
			t.Errorf("VOL-01: the emptyDir is left behind: %v", err)
		}
		if _, err := os.Stat(filepath.Join(host, "f")); err != nil {
			t.Errorf("VOL-01: the hostPath is gone: %v", err)
		}
	})
}

func TestLogsLOG11(t *testing.T) {
	inBubble(t, pod(`
  containers: [{name: c, image: "app:1", args: [said, exit=1]}]
`), func(t *testing.T, pods *podtest.Pods) {
		podtest.Advance(59 * time.Second) // 0, 0, 10, 30 s: four attempts
		p := pods.Get("p")
		if n := p.Object().Status.ContainerStatuses[0].RestartCount; n != 3 {
			t.Fatalf("%d restarts", n)
		}
		for attempt := range 4 {
			if got := p.AttemptLogs("c", attempt); got != "said\n" {
				t.Errorf("attempt %d: %q", attempt, got)
			}
		}
		podtest.Advance(2 * time.Second) // TIME-12: all but the newest are collected
		for attempt, want := range []string{"", "", "", "said\n"} {
			if got := p.AttemptLogs("c", attempt); got != want {
				t.Errorf("attempt %d after a minute: %q", attempt, got)
			}
		}
		p.Delete()
		if got := p.Logs("c"); got != "said\n" {
			t.Errorf("after the end: %q", got)
		}
		p.Remove()
		if got := p.AttemptLogs("c", 3); got != "" {
			t.Errorf("after the removal: %q", got)
		}
	})
}

func TestPodsOfOneNameDEL13(t *testing.T) {
	manifest := pod("  containers: [{name: c, image: \"app:1\", args: [sleep]}]\n")
	inBubble(t, manifest, func(t *testing.T, pods *podtest.Pods) {
		podtest.Advance(time.Second)
		p := pods.Get("p")
		uid := p.Object().UID
		p.Delete()
		p.Remove()
		pods.Apply(manifest)
		podtest.Advance(time.Second)
		again := pods.Get("p").Object()
		if again.UID == uid || again.Status.Phase != corev1.PodRunning {
			t.Errorf("UID %s after %s, %s", again.UID, uid, again.Status.Phase)
		}
		// The same name in another namespace is another pod.
		pods.Apply(strings.Replace(manifest, "name: p", "name: p, namespace: other", 1))
		podtest.Advance(time.Second)
		if all := pods.All(); len(all) != 2 || all[1].Object().Status.Phase != corev1.PodRunning {
			t.Errorf("%d pods", len(all))
		}
	})
}

func TestExecNeedsARunningContainerEXEC01(t *testing.T) {
	inBubble(t, pod(`
  restartPolicy: OnFailure
  initContainers: [{name: i, image: "app:1", args: [sleep=10]}]
  containers: [{name: c, image: "app:1", args: [sleep]}]
`), func(t *testing.T, pods *podtest.Pods) {
		podtest.Advance(time.Second)
		p := pods.Get("p")
		if code, _ := p.Exec("i", "/app.wasm", "exit=4"); code != 4 {
			t.Errorf("in an init container: %d", code)
		}
		if err := p.TryExec("c", "/app.wasm"); err == nil || err.Error() != `container not found ("c")` {
			t.Errorf("in one that does not run yet: %v", err)
		}
		podtest.Advance(20 * time.Second)
		if err := p.TryExec("i", "/app.wasm"); err == nil || err.Error() != `container not found ("i")` {
			t.Errorf("in one that has ended: %v", err)
		}
	})
}

func TestFaults(t *testing.T) {
	t.Run("a pull fails until it does not", func(t *testing.T) {
		module := wasmtest.BuildC(t, worker)
		synctest.Test(t, func(t *testing.T) {
			pods := podtest.Run(t, pod("  containers: [{name: c, image: \"app:1\", args: [sleep]}]\n"),
				podtest.Image("app:1", module), podtest.FailPull("app:1", "connection reset by peer"))
			podtest.Advance(15 * time.Second)
			w := pods.Get("p").Object().Status.ContainerStatuses[0].State.Waiting
			if w == nil || w.Reason != "ImagePullBackOff" || !strings.Contains(w.Message, "connection reset by peer") {
				t.Errorf("%+v", w)
			}
			pods.FailPull("app:1", "")
			podtest.Advance(30 * time.Second)
			pods.GoldenTransitions("testdata/pull-fails.txt")
		})
	})
	t.Run("OOM-01 OOM", func(t *testing.T) {
		inBubble(t, pod("  containers: [{name: c, image: \"app:1\", args: [sleep]}]\n"), func(t *testing.T, pods *podtest.Pods) {
			podtest.Advance(time.Second)
			pods.Get("p").OOM("c")
			podtest.Advance(time.Second)
			pods.GoldenTransitions("testdata/oom.txt")
		})
	})
	t.Run("PROBE-22 delayed probes fail by their timeout, and kill", func(t *testing.T) {
		inBubble(t, pod(`
  containers: [{name: c, image: "app:1", args: [sleep], livenessProbe: {periodSeconds: 10, timeoutSeconds: 2, exec: {command: [/app.wasm]}}}]
`), func(t *testing.T, pods *podtest.Pods) {
			podtest.Advance(15 * time.Second)
			p := pods.Get("p")
			p.DelayProbes("c", 3*time.Second)
			podtest.Advance(30 * time.Second)
			p.DelayProbes("c", 0)
			podtest.Advance(time.Minute)
			pods.Golden("testdata/probes-late.txt")
		})
	})
	t.Run("COND-06 COND-12 a gate, a label, a debugger and more memory", func(t *testing.T) {
		inBubble(t, pod(`
  readinessGates: [{conditionType: example.com/up}]
  containers: [{name: c, image: "app:1", args: [sleep], resources: {requests: {memory: 1Mi}, limits: {memory: 16Mi}}}]
`), func(t *testing.T, pods *podtest.Pods) {
			podtest.Advance(time.Second)
			p := pods.Get("p")
			p.SetCondition("example.com/up", corev1.ConditionTrue)
			podtest.Advance(time.Second)
			p.Update(func(pod *corev1.Pod) {
				pod.Spec.Containers[0].Resources.Limits[corev1.ResourceMemory] = resource.MustParse("32Mi")
			})
			podtest.Advance(time.Second)
			p.AddEphemeral(corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Name: "debug", Image: "app:1", Args: []string{"looked around"},
			}})
			podtest.Advance(time.Second)
			if got := p.Logs("debug"); got != "looked around\n" {
				t.Errorf("%q", got)
			}
			if s := p.Object().Status; s.ObservedGeneration != 3 || s.ContainerStatuses[0].Resources.Limits.Memory().Value() != 32<<20 {
				t.Errorf("%+v", s)
			}
			pods.GoldenTransitions("testdata/changes.txt")
		})
	})
	t.Run("a volume is filled and emptied", func(t *testing.T) {
		inBubble(t, pod(`
  volumes: [{name: v, emptyDir: {}}]
  containers: [{name: c, image: "app:1", args: [sleep], volumeMounts: [{name: v, mountPath: /v}]}]
`), func(t *testing.T, pods *podtest.Pods) {
			podtest.Advance(time.Second)
			p := pods.Get("p")
			p.Fill("v", 3<<20)
			entries, err := os.ReadDir(p.Volume("v"))
			if err != nil || len(entries) != 1 {
				t.Fatalf("%v %v", entries, err)
			}
			if info, _ := entries[0].Info(); info.Size() != 3<<20 {
				t.Errorf("%d bytes", info.Size())
			}
			p.Fill("v", 0)
		})
	})
}

// The guest has no say: one that spins through its grace period is killed. In real
// time, because a guest that spins keeps a bubble's clock from moving.
func TestSpinsThroughItsGraceDEL08(t *testing.T) {
	pods := podtest.Run(t, `
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "app:1", args: [spinning, spin]}]
`, podtest.Image("app:1", wasmtest.BuildC(t, worker)), realPatience)
	p := pods.Get("p")
	p.WaitReady()
	p.Delete()
	if s := p.Object().Status; s.Phase != corev1.PodFailed { // DEL-10
		t.Errorf("%s", s.Phase)
	}
}

// TIME-23: a command whose streams are idle for 4 hours is killed, and nothing else.
func TestIdleStreamsTIME23(t *testing.T) {
	module := wasmtest.BuildC(t, worker)
	synctest.Test(t, func(t *testing.T) {
		pods := podtest.Run(t, pod(`
  containers: [{name: c, image: "app:1", args: [sleep]}]
`), podtest.Image("app:1", module), podtest.Patience(24*time.Hour))
		p := pods.Get("p")
		p.WaitReady()
		begin := time.Now()
		err := p.TryExec("c", "/app.wasm", "sleep=10000", "said", "sleep")
		if !errors.Is(err, runtime.ErrIdle) || time.Since(begin) != 10000*time.Second+4*time.Hour {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if n := p.Object().Status.ContainerStatuses[0].RestartCount; n != 0 {
			t.Errorf("%d restarts", n)
		}
	})
}

// MAIN-04 MAIN-05: a container whose image is changed runs again with the new one.
func TestNewImageMAIN04(t *testing.T) {
	module := wasmtest.BuildC(t, worker)
	synctest.Test(t, func(t *testing.T) {
		pods := podtest.Run(t, pod(`
  restartPolicy: Never
  containers: [{name: c, image: "app:1", args: [argv0, sleep]}]
`), podtest.Image("app:1", module), podtest.Image("next:2", module))
		p := pods.Get("p")
		p.WaitReady()
		p.Update(func(pod *corev1.Pod) { pod.Spec.Containers[0].Image = "next:2" })
		got := p.WaitFor("restart", func(pod *corev1.Pod) bool {
			c := pod.Status.ContainerStatuses[0]
			return c.RestartCount == 1 && c.State.Running != nil
		}).Status.ContainerStatuses[0]
		if !strings.Contains(got.Image, "next:2") || got.LastTerminationState.Terminated.ExitCode != 143 {
			t.Errorf("%+v", got)
		}
		podtest.Advance(time.Second)
		if log := p.Logs("c"); log != "/next.wasm\n" {
			t.Errorf("log %q", log)
		}
		if e := p.WaitEvent("Killing"); e.Message != "Container c definition changed, will be restarted" {
			t.Errorf("%q", e.Message)
		}
	})
}

// NET-04 EVT-17: what of a pod's resolver configuration does not fit is left out, and
// told of.
func TestDNSConfigFormingEVT17(t *testing.T) {
	inBubble(t, pod(`
  dnsConfig: {nameservers: [192.0.2.1, 192.0.2.2, 192.0.2.3]}
  containers: [{name: c, image: "app:1", args: [sleep]}]
`), func(t *testing.T, pods *podtest.Pods) {
		e := pods.Get("p").WaitEvent("DNSConfigForming")
		if e.Type != corev1.EventTypeWarning || e.InvolvedObject.FieldPath != "" ||
			!strings.HasPrefix(e.Message, "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: ") ||
			!strings.HasSuffix(e.Message, " 192.0.2.1 192.0.2.2") {
			t.Errorf("%+v", e)
		}
	})
}
