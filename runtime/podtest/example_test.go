package podtest_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/podtest"
)

// A pod in real time: wait until it is ready, ask it, look at its log.
func ExampleRun() {
	_ = func(t *testing.T) {
		pods := podtest.Run(t, `
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - name: app
    image: app:1
    readinessProbe: {httpGet: {path: /healthz, port: 8080}}
`, podtest.Image("app:1", "testdata/app.wasm"))
		pod := pods.Get("web")
		pod.WaitReady()
		res, err := pod.HTTPClient().Get("http://localhost:8080/")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		fmt.Println(res.Status, pod.Logs("app"))
	}
}

// A crash in fake time: an hour passes in milliseconds.
func ExamplePods_Golden() {
	_ = func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			pods := podtest.Run(t, `{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: "app:1"}]}}`,
				podtest.Image("app:1", "testdata/app.wasm"))
			pod := pods.Get("p")
			pod.WaitPhase(corev1.PodRunning)
			pod.Kill("c")
			time.Sleep(time.Hour)
			synctest.Wait()
			pods.Golden("testdata/killed.txt")
		})
	}
}

// What a cluster does to a pod once a year, in one test: its image cannot be
// pulled, its probes are late, it runs out of memory.
func ExamplePods_FailPull() {
	_ = func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			pods := podtest.Run(t, `
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers: [{name: c, image: "app:1", livenessProbe: {exec: {command: [/app.wasm, check]}}}]
`, podtest.Image("app:1", "testdata/app.wasm"), podtest.FailPull("app:1", "connection reset by peer"))
			podtest.Advance(time.Minute)
			pods.FailPull("app:1", "") // now it can
			pod := pods.Get("p")
			pod.WaitPhase(corev1.PodRunning)
			pod.DelayProbes("c", 5*time.Second) // longer than their timeout
			podtest.Advance(time.Minute)
			pod.DelayProbes("c", 0)
			pod.OOM("c")
			podtest.Advance(time.Minute)
			pods.GoldenTransitions("testdata/bad-day.txt")
		})
	}
}

// A container is killed, as by the kernel, and restarts.
func ExamplePod_Kill() {
	_ = func(t *testing.T) {
		pods := podtest.Run(t, `{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: "app:1"}]}}`,
			podtest.Image("app:1", "testdata/app.wasm"))
		pod := pods.Get("p")
		pod.WaitReady()
		pod.Kill("c")
		pod.WaitFor("restart", func(pod *corev1.Pod) bool {
			c := pod.Status.ContainerStatuses[0]
			return c.RestartCount == 1 && c.LastTerminationState.Terminated.ExitCode == 137
		})
	}
}

// A container runs out of memory: that is exit code 137 with reason OOMKilled.
func ExamplePod_OOM() {
	_ = func(t *testing.T, pod *podtest.Pod) {
		pod.OOM("c")
		pod.WaitFor("end", func(pod *corev1.Pod) bool {
			s := pod.Status.ContainerStatuses[0].LastTerminationState.Terminated
			return s != nil && s.Reason == "OOMKilled"
		})
	}
}

// Probes are late: beyond their timeout they fail.
func ExamplePod_DelayProbes() {
	_ = func(t *testing.T, pod *podtest.Pod) {
		pod.DelayProbes("c", 5*time.Second)
		fmt.Println(pod.WaitEvent("Unhealthy").Message)
		pod.DelayProbes("c", 0)
	}
}

// A volume is filled beside what the pod writes, and emptied again.
func ExamplePod_Fill() {
	_ = func(t *testing.T, pod *podtest.Pod) {
		pod.Fill("data", 100<<20)
		fmt.Println(pod.WaitEvent("Evicted").Message) // if the volume has a sizeLimit below that
		pod.Fill("data", 0)
	}
}

// The clock jumps by a day: all that was due until then happens at once.
func ExampleAdvance() {
	_ = func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			pods := podtest.Run(t, `{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {activeDeadlineSeconds: 3600, containers: [{name: c, image: "app:1"}]}}`,
				podtest.Image("app:1", "testdata/app.wasm"))
			podtest.Advance(24 * time.Hour)
			pods.Get("p").WaitPhase(corev1.PodFailed)
		})
	}
}
