package podtest_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/podtest"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// hostile has a handler of signals that does nothing, and sleeps or talks for ever.
const hostile = `#include <stdio.h>
#include <string.h>
#include <unistd.h>

__attribute__((export_name("__wasm_signal"))) void on_signal(int signal) {}

int main(int argc, char **argv) {
	if (argc > 1 && !strcmp(argv[1], "flood")) {
		char line[1024];
		memset(line, 'x', sizeof line);
		for (int i = 0; i < 4096; i++) fwrite(line, 1, sizeof line, stdout);
		return 1;
	}
	for (;;) sleep(1000000);
}
`

// Probes, hooks and guests that do not come to an end, with all that is real.
func TestHostileGuests(t *testing.T) {
	module := wasmtest.BuildC(t, hostile)
	run := func(name, spec string, test func(*testing.T, *podtest.Pods, *podtest.Pod)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pods := podtest.Run(t, pod(spec), podtest.Image("app:1", module))
				podtest.Advance(time.Second)
				test(t, pods, pods.Get("p"))
			})
		})
	}
	// ends deletes the pod, which takes as long as it may.
	ends := func(t *testing.T, p *podtest.Pod, took time.Duration, code int32) {
		t.Helper()
		begin := time.Now()
		p.Delete()
		if got := time.Since(begin); got != took {
			t.Errorf("the end took %v, want %v", got, took)
		}
		if s := p.Object().Status.ContainerStatuses[0].State.Terminated; s == nil || s.ExitCode != code {
			t.Errorf("%+v, want exit code %d", s, code)
		}
	}
	run("DEL-06 DEL-08 a guest that ignores SIGTERM", "  containers: [{name: c, image: \"app:1\"}]\n", func(t *testing.T, _ *podtest.Pods, p *podtest.Pod) {
		ends(t, p, 5*time.Second, 137)
	})
	run("HOOK-03 MAIN-03 a postStart hook that never returns, and ignores signals", `
  containers: [{name: c, image: "app:1", lifecycle: {postStart: {exec: {command: [/app.wasm]}}}}]
`, func(t *testing.T, _ *podtest.Pods, p *podtest.Pod) {
		podtest.Advance(24 * time.Hour)
		if c := p.Object().Status.ContainerStatuses[0]; c.State.Waiting == nil || c.State.Waiting.Reason != "ContainerCreating" || c.RestartCount != 0 {
			t.Errorf("%+v", c)
		}
		ends(t, p, 5*time.Second, 137)
	})
	run("HOOK-05 TIME-02 a preStop hook that never returns has the grace period, and the container two seconds", `
  containers: [{name: c, image: "app:1", lifecycle: {preStop: {exec: {command: [/app.wasm]}}}}]
`, func(t *testing.T, _ *podtest.Pods, p *podtest.Pod) {
		ends(t, p, 7*time.Second, 137)
	})
	run("PROBE-22 PROBE-11 an exec probe that hangs and ignores signals", `
  containers: [{name: c, image: "app:1", livenessProbe: {periodSeconds: 5, timeoutSeconds: 2, exec: {command: [/app.wasm]}}}]
`, func(t *testing.T, _ *podtest.Pods, p *podtest.Pod) {
		e := p.WaitEvent("Unhealthy")
		if want := `Liveness probe failed: command timed out: "/app.wasm" timed out after 2s`; e.Message != want {
			t.Errorf("%q, want %q", e.Message, want)
		}
		p.WaitFor("restart", func(pod *corev1.Pod) bool { return pod.Status.ContainerStatuses[0].RestartCount == 1 })
	})
	run("PROBE-21 TIME-20 an exec probe that floods", `
  containers: [{name: c, image: "app:1", readinessProbe: {periodSeconds: 5, exec: {command: [/app.wasm, flood]}}}]
`, func(t *testing.T, _ *podtest.Pods, p *podtest.Pod) {
		e := p.WaitEvent("Unhealthy")
		if n := strings.Count(e.Message, "x"); n == 0 || n > 10<<10 {
			t.Errorf("%d bytes of output in the event", n)
		}
	})
}
