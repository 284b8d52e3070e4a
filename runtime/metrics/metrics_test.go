package metrics

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/wasmpod/wasmpod/cgroup"
	"github.com/wasmpod/wasmpod/probes"
	"github.com/wasmpod/wasmpod/runtime/lifecycle"
)

var now = time.Unix(1_700_000_000, 0)

func testPod() *corev1.Pod {
	started := metav1.NewTime(now.Add(-time.Minute))
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u"},
		Spec:       corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c"}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, QOSClass: corev1.PodQOSBurstable, StartTime: &started,
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "c", RestartCount: 2,
				State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
				LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3, Reason: "Error"}},
			}},
		},
	}
}

func testSnapshot() Snapshot {
	return Snapshot{
		Time: now,
		Node: Node{
			Name: "n", Started: now.Add(-time.Hour), CPUs: 2, CPU: 100 * time.Second,
			Memory:  NodeMemory{Capacity: 1000, Available: 400, WorkingSet: 600},
			FS:      Filesystem{Capacity: 500, Available: 200, Used: 300, Inodes: 50, InodesFree: 20},
			Compile: Compile{Compiled: 1, Cached: 2, Time: time.Second},
			Wall:    &Wall{Path: "/w", MemoryLimit: 800}, CPUResting: true,
		},
		Pods: []Pod{{
			Pod:     testPod(),
			Network: &Network{RxBytes: 10, TxBytes: 20, RxPackets: 1, TxPackets: 2},
			Containers: []Container{{
				Name: "c", ID: "u-0/c/2", Image: "busybox:1", Started: now.Add(-10 * time.Second),
				CPU: 2500 * time.Millisecond, Throttle: cgroup.ThrottleStats{Periods: 100, Throttled: 40, Time: 3 * time.Second},
				Fuel: 7, Safepoints: 3, Memory: 64, MemoryPeak: 80, MemoryLimit: 128, CPUMilli: 250, CPUShares: 256,
				FSBytes: 5, FSInodes: 2,
			}},
		}},
	}
}

func TestCollector(t *testing.T) {
	s := testSnapshot()
	c := New(func() Snapshot { return s }, nil)
	const at = `{container="c",id="/kubepods/burstable/podu/u-0/c/2",image="busybox:1",name="u-0/c/2",namespace="default",pod="p"`
	var names []string
	var want strings.Builder
	expect := func(name, kind, help string, lines ...string) {
		names = append(names, name)
		fmt.Fprintf(&want, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
		for _, l := range lines {
			fmt.Fprintln(&want, name+l)
		}
	}
	expect("kube_pod_container_status_last_terminated_exitcode", "gauge", "Exit code of the container's last end.",
		`{container="c",namespace="default",pod="p",uid="u"} 3`)
	expect("kube_pod_container_status_restarts_total", "counter", "How often the container was restarted.",
		`{container="c",namespace="default",pod="p",uid="u"} 2`)
	expect("kube_pod_container_status_waiting_reason", "gauge", "1 for the reason why the container waits.",
		`{container="c",namespace="default",pod="p",reason="CrashLoopBackOff",uid="u"} 1`)
	expect("container_cpu_usage_seconds_total", "counter", "CPU time consumed.",
		`{container="",cpu="total",id="/kubepods/burstable/podu",image="",name="",namespace="default",pod="p"} 2.5`,
		strings.Replace(at, `,id=`, `,cpu="total",id=`, 1)+`} 2.5`)
	expect("container_cpu_cfs_throttled_periods_total", "counter", "Enforcement periods in which the container had to wait.", at+"} 40")
	expect("container_cpu_cfs_throttled_seconds_total", "counter", "How long the container was throttled.", at+"} 3")
	expect("container_spec_cpu_quota", "gauge", "CPU time that may be used in each period, in microseconds.", at+"} 25000")
	expect("wasmpod_cpu_accounting_resting", "gauge", "1 while the programs that measure CPU time in the kernel are taken off, because no container runs or a processor switches contexts too often: threads' clocks are read then, and no waits for a processor and no page faults are counted.", " 1")
	expect("container_spec_memory_limit_bytes", "gauge", "Memory limit; 0 if there is none.", at+"} 128")
	expect("container_network_receive_bytes_total", "counter", "Payload that the pod received.",
		`{container="",id="/kubepods/burstable/podu",image="",interface="eth0",name="",namespace="default",pod="p"} 10`)
	expect("kubelet_running_pods", "gauge", "Number of pods that have a running pod sandbox.", " 1")
	expect("wasmpod_fuel_total", "counter",
		"Work that the container's code was charged, in units of about 64 bytes of code executed. It does not depend on the machine.",
		`{container="c",namespace="default",pod="p",uid="u"} 7`)
	if err := testutil.CollectAndCompare(c, strings.NewReader(want.String()), names...); err != nil {
		t.Error(err)
	}
	t.Run("what is gone leaves no series", func(t *testing.T) {
		before := testutil.CollectAndCount(c)
		s.Pods = nil
		after := testutil.CollectAndCount(c)
		if left := testutil.CollectAndCount(c, "container_cpu_usage_seconds_total", "kube_pod_info"); left != 0 || after >= before {
			t.Errorf("%d series of pods that are gone; %d series before, %d after", left, before, after)
		}
	})
	t.Run("names that are not text", func(t *testing.T) {
		s := testSnapshot()
		s.Pods[0].Containers[0].Image = "\xff\xfe"
		r := prometheus.NewRegistry()
		r.MustRegister(New(func() Snapshot { return s }, nil))
		if _, err := r.Gather(); err != nil {
			t.Error(err)
		}
	})
}

// lintExceptions are names that others have given and that dashboards know.
var lintExceptions = []string{"container_fs_inodes_total", "kubelet_evictions", "kube_pod_container_status_"}

func TestLint(t *testing.T) {
	e := NewEvents()
	observe(e, testPod())
	e.Evicted("memory.available")
	for _, c := range []prometheus.Collector{New(testSnapshot, e), e, resourceCollector{testSnapshot}} {
		problems, err := testutil.CollectAndLint(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			if !slices.ContainsFunc(lintExceptions, func(n string) bool { return strings.HasPrefix(p.Metric, n) }) {
				t.Errorf("%s: %s", p.Metric, p.Text)
			}
		}
	}
}

func observe(e *Events, pod *corev1.Pod) {
	c := lifecycle.ContainerRef{Name: "c"}
	for _, f := range []lifecycle.Fact{
		lifecycle.PodAdmitted{At: now},
		lifecycle.SandboxCreated{At: now},
		lifecycle.ContainerStarted{At: now.Add(3 * time.Millisecond), Container: c},
		lifecycle.ProbeFinished{At: now, Began: now.Add(-time.Second), Container: c, Kind: probes.Readiness, Result: probes.Success},
		lifecycle.ProbeFinished{At: now, Began: now, Container: c, Kind: probes.Liveness, Result: probes.Failure},
		lifecycle.ProbeFinished{At: now, Began: now, Container: c, Kind: probes.Liveness, Error: "no"},
		lifecycle.ContainerExited{At: now, Container: c, ExitCode: 137, Reason: "OOMKilled"},
		lifecycle.ContainerStarted{At: now.Add(time.Hour), Container: lifecycle.ContainerRef{Name: "c", Attempt: 1}},
		lifecycle.ContainerExited{At: now, Container: c, ExitCode: 137, Reason: "OOMKilled"},
		lifecycle.ContainerStartFailed{At: now, Container: c, Reason: "CreateContainerError"},
	} {
		e.Observe(pod, f)
	}
}

func TestEvents(t *testing.T) {
	e, pod := NewEvents(), testPod()
	observe(e, pod)
	const probe = `prober_probe_total{container="c",namespace="default",pod="p",pod_uid="u",probe_type=`
	want := `# HELP prober_probe_total Results of liveness, readiness and startup probes.
# TYPE prober_probe_total counter
` + probe + `"Liveness",result="failed"} 1
` + probe + `"Liveness",result="unknown"} 1
` + probe + `"Readiness",result="successful"} 1
# HELP kubelet_started_containers_total Containers that were started.
# TYPE kubelet_started_containers_total counter
kubelet_started_containers_total{container_type="container"} 2
`
	if err := testutil.CollectAndCompare(e, strings.NewReader(want), "prober_probe_total", "kubelet_started_containers_total"); err != nil {
		t.Error(err)
	}
	t.Run("the start of a pod is counted once", func(t *testing.T) {
		r := prometheus.NewRegistry()
		r.MustRegister(e)
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "kubelet_pod_start_duration_seconds" {
				if h := f.Metric[0].GetHistogram(); h.GetSampleCount() != 1 || h.GetSampleSum() != 0.003 {
					t.Errorf("%v", h)
				}
			}
		}
	})
	t.Run("OOM-01 kills outlive the container", func(t *testing.T) {
		s := testSnapshot()
		s.Pods[0].Containers = nil
		want := `# HELP container_oom_events_total How often the container was killed for want of memory.
# TYPE container_oom_events_total counter
container_oom_events_total{container="c",id="/kubepods/burstable/podu",image="",name="",namespace="default",pod="p"} 2
`
		c := New(func() Snapshot { return s }, e)
		if err := testutil.CollectAndCompare(c, strings.NewReader(want), "container_oom_events_total"); err != nil {
			t.Error(err)
		}
	})
	t.Run("thousands of pods that are gone leave nothing", func(t *testing.T) {
		few := NewEvents()
		observe(few, pod)
		few.Forget(pod)
		many := NewEvents()
		for i := range 5000 {
			p := testPod()
			p.UID, p.Name = types.UID(fmt.Sprint("u", i)), fmt.Sprint("p", i)
			observe(many, p)
			many.Forget(p)
		}
		if got, want := testutil.CollectAndCount(many), testutil.CollectAndCount(few); got != want || len(many.pods) != 0 {
			t.Errorf("%d series, want %d; %d pods remembered", got, want, len(many.pods))
		}
	})
}

func TestHandler(t *testing.T) {
	e := NewEvents()
	r := prometheus.NewRegistry()
	if err := Register(r, testSnapshot, e); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(Handler(r, testSnapshot, e))
	defer server.Close()
	get := func(path, accept string) (string, string) {
		request, _ := http.NewRequestWithContext(t.Context(), "GET", server.URL+path, nil)
		request.Header.Set("Accept", accept)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		b, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %v", path, response.Status, err)
		}
		return string(b), response.Header.Get("Content-Type")
	}
	t.Run("OpenMetrics", func(t *testing.T) {
		body, kind := get("/metrics", "application/openmetrics-text; version=1.0.0")
		if !strings.HasPrefix(kind, "application/openmetrics-text") || !strings.HasSuffix(body, "# EOF\n") {
			t.Errorf("%s, ends with %q", kind, body[max(0, len(body)-20):])
		}
	})
	t.Run("the metrics server's samples have a time", func(t *testing.T) {
		body, _ := get("/metrics/resource", "")
		for _, want := range []string{
			`container_cpu_usage_seconds_total{container="c",namespace="default",pod="p"} 2.5 1700000000000`,
			`container_memory_working_set_bytes{container="c",namespace="default",pod="p"} 64 1700000000000`,
			`container_start_time_seconds{container="c",namespace="default",pod="p"} 1.69999999e+09`,
			`node_cpu_usage_seconds_total 100 1700000000000`,
			`node_memory_working_set_bytes 600 1700000000000`,
			`pod_cpu_usage_seconds_total{namespace="default",pod="p"} 2.5 1700000000000`,
			"resource_scrape_error 0",
		} {
			if !strings.Contains(body, want+"\n") {
				t.Errorf("no %q in\n%s", want, body)
			}
		}
	})
	t.Run("cAdvisor's series alone", func(t *testing.T) {
		body, _ := get("/metrics/cadvisor", "")
		if !strings.Contains(body, "container_cpu_usage_seconds_total{") || strings.Contains(body, "kube_pod_") {
			t.Error(body)
		}
	})
	t.Run("summary", func(t *testing.T) {
		body, _ := get("/stats/summary", "")
		var got stats.Summary
		d := json.NewDecoder(strings.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(&got); err != nil {
			t.Fatal(err)
		}
		c := got.Pods[0].Containers[0]
		if got.Node.NodeName != "n" || *c.CPU.UsageCoreNanoSeconds != 2_500_000_000 || *c.CPU.UsageNanoCores != 250_000_000 ||
			*c.Memory.WorkingSetBytes != 64 || *c.Memory.AvailableBytes != 64 || *got.Pods[0].Network.RxBytes != 10 {
			t.Errorf("%s", body)
		}
	})
}

func TestRates(t *testing.T) {
	r := &Rates{}
	s := testSnapshot()
	if got := r.Observe(&s)["u-0/c/2"]; got != 0.25 {
		t.Errorf("since the start: %v cores", got)
	}
	s.Time = now.Add(10 * time.Second)
	s.Pods[0].Containers[0].CPU += 5 * time.Second
	s.Node.CPU += 20 * time.Second
	if got := r.Observe(&s); got["u-0/c/2"] != 0.5 || got["/"] != 2 {
		t.Errorf("of late: %v cores", got)
	}
	s.Pods = nil
	s.Time = now.Add(30 * time.Second)
	r.Observe(&s)
	s.Time = now.Add(60 * time.Second)
	if r.Observe(&s); len(r.old) != 1 || len(r.last) != 1 {
		t.Errorf("remembers %v %v", r.old, r.last)
	}
}
