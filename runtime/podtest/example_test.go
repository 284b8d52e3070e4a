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
