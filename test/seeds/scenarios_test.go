package seeds

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// slack is how late a moment may be that is no probe's.
const slack = 3 * time.Second

var scenarios = []scenario{
	{name: "01-sidecar-war-tomcat", check: sidecarWar},
	{name: "02-configmap-reload-deployment", more: map[string]string{"config.yaml": appConfig("one")}, check: configmapReload},
	{name: "03-initcontains-deployment", more: map[string]string{"etcd.yaml": etcd}, check: waitForEtcd},
	{name: "04-lifecycle-demo", check: lifecycleDemo},
	{name: "05-liveness-exec", slow: true, check: livenessExec(143, 0)},
	{name: "05-liveness-exec/ignores SIGTERM", slow: true, stores: busyboxAsInit, check: livenessExec(137, 30*time.Second)},
	{name: "06-liveness-httpget", check: exitsAtOnce("liveness-httpget")},
	{name: "07-liveness-tcpsocket", check: exitsAtOnce("liveness-tcpsocket")},
	{name: "09-myapp-pod-hello", check: hello},
	{name: "10-kubia-manual", check: kubia("kubia-manual")},
	{name: "11-liveness-http", check: livenessHTTP},
	{name: "12-myapp-pod-initcontainers", more: map[string]string{"namespace.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n"}, check: initContainers},
	{name: "13-kubia-manual-v2", check: kubia("kubia-manual-v2")},
	{name: "14-kubia-gpu", check: kubia("kubia-gpu")},
	{name: "15-custom-namespace", check: namespaceOnly},
	{name: "16-nginx-deployment", more: map[string]string{"service.yaml": nginxService}, check: replicas},
	{name: "17-nginx-deployment-latest", more: map[string]string{"service.yaml": nginxService}, check: replicas},
	{name: "18-pod-header-map", check: nginx("pod-header")},
	{name: "19-pod-header-map", check: nginx("pod-header")},
	{name: "20-ydzs-site-metadata", check: nginx("ydzs-site")},
	{name: "21-kube100-site-metadata", check: nginx("ydzs-site")},
	{name: "22-args-list", check: notAnObject},
	{name: "24-ydzs-site-two-containers", check: twoContainers},
	{name: "25-ydzs-site-two-containers", check: twoContainers},
	{name: "26-counter-sidecar-log", root: true, check: counter},
}

// An init container copies a war where the servlet container looks for it.
func sidecarWar(t *testing.T, r *running) {
	r.await(1, `tomcat\] INFO: Server startup complete`)
	r.answers("http://"+r.ip("sidecar-war-tomcat")+":8080/xxx/", "Hello from xxx.war")
	r.answers("http://127.0.0.1:8001/xxx/", "Hello from xxx.war") // hostPort
	r.answers("http://127.0.0.1:8001/xxx/cgi-bin/hello?name=seed", "Hello, seed")
	f := r.stop()
	f.ended("war", 0, 0)
	f.ended("tomcat", 143, 0)
}

func appConfig(value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app-config-configmap-obj}\ndata: {index.html: \"%s\\n\"}\n", value)
}

// Editing the ConfigMap's source has the app restarted with the new file (VOL-10,
// RST-03: the first restart is at once), and nothing else.
func configmapReload(t *testing.T, r *running) {
	ip := r.ip("app-[a-z0-9]+-[a-z0-9]+")
	r.answers("http://"+ip+"/", "one")
	r.write("config.yaml", appConfig("two"))
	r.await(1, "taken up: configmap/app-config-configmap-obj")
	r.await(1, "/app ended with 0")
	r.await(2, `Started .*\{app\}`)
	r.answers("http://"+ip+"/", "two")
	for _, l := range r.find("Unhealthy|Failed") {
		// One probe that the machine has no time for has no consequence.
		if !testing.Short() || !strings.Contains(l.text, "deadline exceeded") {
			t.Errorf("not expected: %s", l.text)
		}
	}
	f := r.stop()
	f.ended("app", 0, 1)
	ended, began := f.restarted("app")
	r.around("the app starts again", ended, began, 0, 0)
	f.ended("configmap-reload", 0, 0)
}

// A database that comes up late: the pods of a StatefulSet have names (WL-26).
const etcd = `apiVersion: v1
kind: Service
metadata: {name: etcd-statefulset, namespace: namespace}
spec: {clusterIP: None, selector: {app: etcd}, ports: [{port: 2379}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: etcd-statefulset, namespace: namespace}
spec:
  serviceName: etcd-statefulset
  selector: {matchLabels: {app: etcd}}
  template:
    metadata: {labels: {app: etcd}}
    spec:
      containers:
      - name: etcd
        image: registry/busybox:1.31.1
        command: [sh, -c, "sleep 5; while :; do nc -l -p 2379 </dev/null; done"]
`

// The app starts when its init container has reached the database (INIT-01).
func waitForEtcd(t *testing.T, r *running) {
	r.await(2, "waiting for etcd etcd-statefulset-0")
	r.await(1, "/init-db ended with 0")
	app := r.stamp(r.await(1, `Started .*\{app\}`))
	r.await(1, "serving /etc/app on :80")
	f := r.stop()
	r.around("the app starts", f.container("init-db").State.Terminated.FinishedAt.Time, app, 0, 0)
}

// Both hooks run, and the server ends because of its preStop hook (HOOK-01,
// HOOK-05).
func lifecycleDemo(t *testing.T, r *running) {
	r.answers("http://"+r.ip("lifecycle-demo")+"/", "Welcome")
	// The API shows a container as running when its postStart hook has returned (MAIN-03).
	r.metric(`kube_pod_container_status_running\{.*container="lifecycle-demo-container".*\}`, 1)
	f := r.stop()
	r.await(1, "^signal quit received")
	// The hook told it to quit. If it does before the hook itself has returned, it takes
	// that along, as the first process of a Linux container would: FailedPreStopHook.
	r.never("FailedPostStartHook|ended with 143")
	f.ended("lifecycle-demo-container", 0, 0)
}

// livenessExec is the timeline that semantics.md derives for seed 05: the file goes
// after 30 s, and the probes of 35, 40 and 45 s fail, give or take a tick. With
// what exit code a container ends on SIGTERM, and after what time, is its own
// business: a process without a handler does at once, unless it is the first one
// of a Linux container.
func livenessExec(exitCode int32, after time.Duration) func(*testing.T, *running) {
	const tick = 5 * time.Second
	const healthy = `prober_probe_total\{.*container="liveness".*probe_type="Liveness".*result="successful".*\}`
	return func(t *testing.T, r *running) {
		started := r.stamp(r.await(1, "Normal Started "))
		for i := range 3 {
			at := time.Duration(35+5*i) * time.Second
			failed := r.await(i+1, "Unhealthy .* Liveness probe failed: cat: can't open '/tmp/healthy'")
			r.around(fmt.Sprintf("failure %d of the probe", i+1), started, r.stamp(failed), at, tick)
		}
		killing := r.stamp(r.await(1, "Killing .* Container liveness failed liveness probe, will be restarted"))
		r.around("Killing", r.stamp(r.await(3, "Unhealthy")), killing, 0, 0)
		r.await(1, fmt.Sprintf("liveness-exec/liveness ended with %d ", exitCode))
		r.await(2, "Normal Started ")
		// Healthy again: the file is there. So is the handler of SIGTERM, where there is one.
		r.metric(healthy, 1+r.metric(healthy, 0))
		if n := len(r.find("Unhealthy .* can't open")); n != 3 {
			t.Errorf("%d failures of the probe, want 3", n)
		}
		f := r.stop()
		f.ended("liveness", exitCode, 1)
		if c := f.container("liveness"); c.LastTerminationState.Terminated == nil || c.LastTerminationState.Terminated.ExitCode != exitCode {
			t.Errorf("lastState %+v, want %d", c.LastTerminationState, exitCode)
		}
		ended, began := f.restarted("liveness")
		r.around("the container ends", killing, ended, after, 0)
		r.around("it is started again", ended, began, 0, 0)
	}
}

// busyboxAsInit makes an image store whose busybox takes SIGTERM as the first
// process of a Linux container does: not at all.
func busyboxAsInit(t *testing.T) string {
	bin, err := filepath.Abs(*wasmpod)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(bin, "image", "build", "--data-dir", dir, "-t", "busybox",
		"--entrypoint", "busybox", "--entrypoint", "sh", "--entrypoint", "-c", "--entrypoint", `trap "" TERM; "$@"`, "--entrypoint", "init",
		"../../wasm-examples/bin/busybox.wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "images")
}

// exitsAtOnce is a pod whose busybox has nothing to do: it succeeds, and is
// restarted with a back-off all the same (RST-03). It is never up for a probe.
func exitsAtOnce(pod string) func(*testing.T, *running) {
	return func(t *testing.T, r *running) {
		delays := []time.Duration{0, 10 * time.Second, 20 * time.Second}
		last := r.stamp(r.await(1, "Normal Started "))
		for i, delay := range delays {
			next := r.stamp(r.await(i+2, "Normal Started "))
			// Up to half of it more (RST-07).
			r.around(fmt.Sprintf("restart %d", i+1), last, next, delay+delay/4, delay/4)
			last = next
		}
		r.await(4, "/liveness ended with 0")
		r.await(1, "Warning BackOff .* Back-off restarting failed container liveness in pod "+pod+"_default")
		r.never("Killing")
		// With -short the machine may let an instance wait until a probe is due, which
		// finds it up and not serving. One failure has no consequence.
		if n := len(r.find("Unhealthy")); n > 0 && (!testing.Short() || n > len(delays)+1) {
			t.Errorf("%d probes have failed of a container that is never up for one", n)
		}
		f := r.stop()
		f.ended("liveness", 0, 3)
	}
}

func hello(t *testing.T, r *running) {
	r.await(1, "^Hello Kubernetes!$")
	r.stop().ended("myapp-container", 143, 0)
}

func kubia(pod string) func(*testing.T, *running) {
	return func(t *testing.T, r *running) {
		r.answers("http://"+r.ip(pod)+":8080/", "You've hit "+pod+"\n")
		r.await(1, "^Received request from ")
		r.stop().ended("kubia", 0, 0)
	}
}

// livenessHTTP: the server is healthy for 10 s; its probe begins at the first tick
// after 15 s (PROBE-02), fails three times, and the container is restarted at
// once, the second time too: its back-off counts from the end before that (RST-08).
// The ticks stay where they are.
func livenessHTTP(t *testing.T, r *running) {
	const tick = 10 * time.Second
	started := r.stamp(r.await(1, "Normal Started "))
	rounds := 1
	if !testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		for i := range 3 {
			what := fmt.Sprintf("failure %d of round %d", i+1, round+1)
			at := time.Duration(20+10*i) * time.Second
			// A probe that the machine has no time for fails with another text.
			r.around(what, started, r.stamp(r.await(3*round+i+1, "Unhealthy .* Liveness probe failed: ")), at, tick)
		}
		killing := r.stamp(r.await(round+1, "Killing .* Container liveness failed liveness probe, will be restarted"))
		r.await(round+1, "liveness-http/liveness ended with 143")
		started = r.stamp(r.await(round+2, "Normal Started "))
		r.around("it is started again", killing, started, 0, 0)
	}
	r.await(1, "Liveness probe failed: HTTP probe failed with statuscode: 500")
	r.metric(`prober_probe_total\{.*container="liveness".*probe_type="Liveness".*result="failed".*\}`, float64(3*rounds))
	r.stop().ended("liveness", 143, int32(rounds))
}

const initServices = `apiVersion: v1
kind: Service
metadata: {name: %s}
spec: {ports: [{port: 80}], selector: {app: none}}
`

// The init containers wait, one after the other, for Services that are made while
// they do (INIT-01).
func initContainers(t *testing.T, r *running) {
	r.await(3, "waiting for myservice")
	r.write("myservice.yaml", fmt.Sprintf(initServices, "myservice"))
	r.await(1, "myapp-pod/init-myservice ended with 0")
	r.await(2, "waiting for mydb")
	r.never("The app is running!")
	r.write("mydb.yaml", fmt.Sprintf(initServices, "mydb"))
	r.await(1, "myapp-pod/init-mydb ended with 0")
	app := r.stamp(r.await(1, `Started .*\{myapp-container\}`))
	r.await(1, `myapp-container\] The app is running!`)
	f := r.stop()
	f.ended("init-myservice", 0, 0)
	f.ended("init-mydb", 0, 0)
	r.around("the app starts", f.container("init-mydb").State.Terminated.FinishedAt.Time, app, 0, 0)
	f.ended("myapp-container", 143, 0)
}

func namespaceOnly(t *testing.T, r *running) {
	r.await(1, "there is no pod in")
	<-r.ended
	if code, _ := r.over(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

const nginxService = `apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: nginx}, ports: [{port: 80}]}
`

// Two replicas take turns behind a Service (WL-30).
func replicas(t *testing.T, r *running) {
	port := regexp.MustCompile(`node port (\d+)`).FindStringSubmatch(r.await(1, "^wasmpod: service/web has cluster IP ").text)
	r.await(2, "serving /usr/share/nginx/html on :80")
	const line = `/nginx\] .* GET /`
	asked := 0
	served := func() map[string]int {
		r.await(asked, line)
		by := make(map[string]int)
		for _, l := range r.find(line) {
			pod, _, _ := strings.Cut(l.text, "]")
			by[pod]++
		}
		return by
	}
	ask := func() {
		r.answers("http://127.0.0.1:"+port[1]+"/", "Welcome")
		asked++
	}
	// A server says that it serves before its pod is ready, and gets requests then.
	for ask(); len(served()) < 2; ask() {
		if asked > 10_000 {
			t.Fatalf("requests by pod: %v, want some of the other one", served())
		}
	}
	before := served()
	for range 4 {
		ask()
	}
	for pod, n := range served() {
		if n -= before[pod]; n != 2 {
			t.Errorf("%d of 4 requests came to %s, want two of each", n, pod)
		}
	}
	f := r.stop()
	if len(f.pods) != 2 {
		t.Errorf("%d pods, want 2", len(f.pods))
	}
	f.ended("nginx", 0, 0)
}

func nginx(pod string) func(*testing.T, *running) {
	return func(t *testing.T, r *running) {
		r.answers("http://"+r.ip(pod)+"/", "Welcome")
		r.stop().ended("main", 0, 0)
	}
}

// A fragment is told of, and nothing is run.
func notAnObject(t *testing.T, r *running) {
	r.await(1, "the manifest is not valid")
	<-r.ended
	if code, _ := r.over(); code != 2 {
		t.Errorf("exit code %d, want 2", code)
	}
}

func twoContainers(t *testing.T, r *running) {
	ip := r.ip("ydzs-site")
	r.answers("http://"+ip+":80/", "Welcome")
	r.answers("http://"+ip+":5000/", "Host: "+ip+":5000")
	f := r.stop()
	f.ended("front-end", 0, 0)
	f.ended("flaskapp-demo", 0, 0)
}

// What one container writes into a volume the other one prints as it comes.
func counter(t *testing.T, r *running) {
	const dir = "/var/log/counter" // of the host, as the manifest has it
	t.Cleanup(func() { os.Remove(dir + "/1.log"); os.Remove(dir) })
	var dates []time.Time // of the guest
	for _, n := range []string{"0", "10"} {
		_, text, _ := strings.Cut(r.await(1, `count-log\] `+n+`: [A-Z][a-z]{2} `).text, n+": ")
		date, err := time.Parse(time.UnixDate, text)
		if err != nil {
			t.Fatal(err)
		}
		dates = append(dates, date)
	}
	r.around("ten numbers", dates[0], dates[1], 10*time.Second, 0)
	r.never(`\$\(`) // ENV-04: what is for the shell stays
	r.stop().ended("count", 143, 0)
}
