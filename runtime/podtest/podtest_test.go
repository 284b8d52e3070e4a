package podtest_test

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/podtest"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

func TestMain(m *testing.M) {
	// The process's accounting of CPU time loads its program a while after it was first
	// asked for, and is never closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/wasmpod/wasmpod/cgroup/bpf.(*Accounting).startResting.func1"))
}

// realPatience is that of tests in real time: nothing that they wait for takes as
// long, on a machine that has other work either.
var realPatience = podtest.Patience(5 * time.Minute)

// guest does as its first argument says.
const guest = `#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "sleep")) sleep(1000000);
		else if (!strncmp(argv[i], "exit=", 5)) return atoi(argv[i] + 5);
		else puts(argv[i]);
		fflush(stdout);
	}
	return 0;
}
`

const threeContainers = `
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: data, emptyDir: {}}]
  initContainers:
  - {name: init, image: "app:1", args: [prepared]}
  - {name: sidecar, image: "app:1", args: [sleep], restartPolicy: Always}
  containers:
  - {name: app, image: "app:1", args: [hello, sleep], volumeMounts: [{name: data, mountPath: /data}]}
`

const crashes = `
apiVersion: v1
kind: Pod
metadata: {name: crash}
spec:
  containers: [{name: c, image: "app:1", args: [exit=3]}]
`

func TestRun(t *testing.T) {
	pods := podtest.Run(t, threeContainers, podtest.Image("app:1", wasmtest.BuildC(t, guest)), realPatience)
	pod := pods.Get("web")
	pod.WaitReady()
	pod.WaitEvent("Started")
	if got := pod.Logs("init"); got != "prepared\n" {
		t.Errorf("log of init: %q", got)
	}
	if code, out := pod.Exec("app", "/app.wasm", "executed", "exit=7"); code != 7 || out != "executed\n" {
		t.Errorf("exec: %d %q", code, out)
	}
	if err := os.WriteFile(pod.Volume("data")+"/x", nil, 0o644); err != nil {
		t.Error(err)
	}
	pod.Kill("app")
	got := pod.WaitFor("restart", func(p *corev1.Pod) bool {
		return p.Status.ContainerStatuses[0].RestartCount == 1 && p.Status.ContainerStatuses[0].State.Running != nil
	})
	if code := got.Status.ContainerStatuses[0].LastTerminationState.Terminated.ExitCode; code != 137 {
		t.Errorf("exit code %d", code)
	}
	pod.Delete()
}

func TestMissingImage(t *testing.T) {
	module := wasmtest.BuildC(t, guest)
	synctest.Test(t, func(t *testing.T) {
		pods := podtest.Run(t, crashes)
		pod := pods.Get("crash")
		pod.WaitEvent("Failed")
		pods.AddImage("app:1", module)
		pod.WaitEvent("Started")
	})
}

// RST-03: half an hour of a real guest's crash loop.
func TestCrashLoop(t *testing.T) {
	module := wasmtest.BuildC(t, guest)
	synctest.Test(t, func(t *testing.T) {
		pods := podtest.Run(t, crashes, podtest.Image("app:1", module))
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if n := pods.Get("crash").Object().Status.ContainerStatuses[0].RestartCount; n != 10 {
			t.Errorf("%d restarts", n)
		}
		pods.Golden("testdata/crash.txt")
	})
}

func TestTimelineOnFailure(t *testing.T) {
	pods := podtest.Run(t, crashes, podtest.Image("app:1", wasmtest.BuildC(t, guest)), realPatience)
	pods.Get("crash").WaitEvent("BackOff")
	if got := pods.Timeline(); !strings.Contains(got, "BackOff") || !strings.Contains(got, "pod crash:") {
		t.Error(got)
	}
}

func BenchmarkThreeContainers(b *testing.B) {
	module := wasmtest.BuildC(b, guest)
	for b.Loop() {
		pods := podtest.Run(b, threeContainers, podtest.Image("app:1", module))
		pods.Get("web").WaitReady()
		podtest.Close(pods)
	}
}

// A server in C is ready by its httpGet probe, live by its tcpSocket and exec
// probes, and answers a client that enters its pod.
func TestServer(t *testing.T) {
	source, err := os.ReadFile("../../wasm-examples/httpecho-c/httpecho.c")
	if err != nil {
		t.Fatal(err)
	}
	include, err := filepath.Abs("../../wasm-examples/httpecho-c")
	if err != nil {
		t.Fatal(err)
	}
	pods := podtest.Run(t, `
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - name: app
    image: app:1
    args: [serve, "8080"]
    ports: [{name: http, containerPort: 8080}]
    readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
    livenessProbe: {tcpSocket: {port: 8080}}
  - name: tool
    image: tool:1
    args: [sleep]
    livenessProbe: {exec: {command: [/tool.wasm, fine]}}
`, podtest.Image("app:1", wasmtest.BuildC(t, string(source), "-D_GNU_SOURCE", "-I"+include)), podtest.Image("tool:1", wasmtest.BuildC(t, guest)), realPatience)
	pod := pods.Get("web")
	pod.WaitReady()
	res, err := pod.HTTPClient().Get("http://localhost:8080/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		t.Errorf("status %s", res.Status)
	}
	t.Run("EXEC-05 from the host, through a forwarded port", func(t *testing.T) {
		for range 2 {
			res, err := http.Get("http://" + pod.Forward(8080) + "/")
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != 200 {
				t.Errorf("status %s", res.Status)
			}
		}
		conn, err := net.Dial("tcp", pod.Forward(9)) // where nobody listens: that connection ends, no more
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}
