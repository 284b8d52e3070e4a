package workload_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wasmpod/wasmpod/runtime/manifest"
	"github.com/wasmpod/wasmpod/runtime/workload"
	"pgregory.net/rapid"
)

// names returns a source of suffixes: bbbb2, bbbb4, …
func names() func() string {
	const digits = "2456789"
	n := 0
	return func() string {
		n++
		return "bbb" + string(digits[n/len(digits)%len(digits)]) + string(digits[n%len(digits)])
	}
}

func parse(t testing.TB, text string) *manifest.Objects {
	t.Helper()
	objs, err := manifest.Parse("", manifest.Source{Name: "test.yaml", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return objs
}

const template = `
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {a: b}}
    spec:
      containers: [{name: c, image: i, resources: {limits: {memory: 1Mi}}}]
`

func TestPods(t *testing.T) {
	objs := parse(t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2`+template+`---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: rs}
spec:`+template+`---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: dbs
  replicas: 2
  ordinals: {start: 3}`+template+`---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log}
spec:`+template+`---
apiVersion: v1
kind: Pod
metadata: {name: single}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {generateName: made-}
spec: {containers: [{name: c, image: i}]}
`)
	pods := workload.Pods(objs, names())
	var got []string
	for _, p := range pods {
		got = append(got, p.Namespace+"/"+p.Name)
	}
	hash := workload.Hash(&objs.Deployments[0].Spec.Template)
	want := []string{"default/single", "default/made-bbb24", "shop/web-" + hash + "-bbb25", "shop/web-" + hash + "-bbb26", "default/rs-bbb27", "default/db-3", "default/db-4", "default/log-bbb28"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("pods\n got %v\nwant %v", got, want)
	}

	t.Run("WL-22 a Deployment's pods belong to a ReplicaSet", func(t *testing.T) {
		a, b := pods[2], pods[3]
		if !regexp.MustCompile(`^[bcdfghjklmnpqrstvwxz2456789]{1,10}$`).MatchString(hash) {
			t.Errorf("hash %q", hash)
		}
		o := a.OwnerReferences[0]
		if o.APIVersion != "apps/v1" || o.Kind != "ReplicaSet" || o.Name != "web-"+hash || o.UID != workload.UID("ReplicaSet", "shop", o.Name) || !*o.Controller || !*o.BlockOwnerDeletion {
			t.Errorf("owner %+v", o)
		}
		if o.UID != b.OwnerReferences[0].UID {
			t.Error("two pods of one ReplicaSet have owners with different UIDs")
		}
		if a.Labels["pod-template-hash"] != hash || a.Labels["app"] != "web" || a.Annotations["a"] != "b" {
			t.Errorf("labels %v, annotations %v", a.Labels, a.Annotations)
		}
		a.Labels["changed"], a.Spec.Containers[0].Name = "yes", "changed"
		if b.Labels["changed"] != "" || b.Spec.Containers[0].Name != "c" || objs.Deployments[0].Spec.Template.Labels["changed"] != "" {
			t.Error("pods share memory with one another or with the template")
		}
	})
	t.Run("MAN-08 pods of templates are defaulted as pods", func(t *testing.T) {
		p := pods[4]
		if !*p.Spec.EnableServiceLinks || p.Spec.Containers[0].Resources.Requests.Memory().String() != "1Mi" || p.Status.Phase != corev1.PodPending || p.Status.QOSClass != corev1.PodQOSBurstable {
			t.Errorf("%+v", p)
		}
		if errs := manifest.ValidatePod(p); len(errs) > 0 {
			t.Error(errs)
		}
	})
	t.Run("WL-26 ordinals", func(t *testing.T) {
		p := pods[5]
		if p.Spec.Hostname != "db-3" || p.Spec.Subdomain != "dbs" || p.Labels["apps.kubernetes.io/pod-index"] != "3" || p.Labels["statefulset.kubernetes.io/pod-name"] != "db-3" {
			t.Errorf("%+v", p.ObjectMeta)
		}
	})
	t.Run("a source of names that repeats itself", func(t *testing.T) {
		seen := map[string]bool{}
		for _, p := range workload.Pods(objs, func() string { return "bbbbb" }) {
			if key := p.Namespace + "/" + p.Name; seen[key] {
				t.Errorf("%s twice", key)
			} else {
				seen[key] = true
			}
		}
	})
	t.Run("long names are cut", func(t *testing.T) {
		objs := &manifest.Objects{ReplicaSets: objs.ReplicaSets}
		objs.ReplicaSets[0].Name = strings.Repeat("a", 100)
		if p := workload.Pods(objs, names())[0]; len(p.Name) != 63 {
			t.Errorf("%q", p.Name)
		}
	})
}

func job(t testing.TB, spec string) *batchv1.Job {
	return parse(t, `
apiVersion: batch/v1
kind: Job
metadata: {name: sum, namespace: shop}
spec: `+spec).Jobs[0]
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func ended(p *corev1.Pod, phase corev1.PodPhase, at time.Duration) {
	p.Status.Phase = phase
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(epoch.Add(at))}}}}
}

const never = `template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}`

func TestJobPods(t *testing.T) {
	t.Run("defaults: one pod, then complete", func(t *testing.T) {
		j := job(t, "{"+never+"}")
		pods, s := workload.JobPods(j, nil, names())
		if len(pods) != 1 || s.Finished() || !s.NotBefore.IsZero() {
			t.Fatalf("%v %+v", pods, s)
		}
		p := pods[0]
		if p.Name != "sum-bbb24" || p.Namespace != "shop" || p.Labels["job-name"] != "sum" || p.Labels["batch.kubernetes.io/job-name"] != "sum" ||
			p.Labels["controller-uid"] != string(p.OwnerReferences[0].UID) || p.Labels["batch.kubernetes.io/controller-uid"] == "" || p.OwnerReferences[0].Kind != "Job" {
			t.Errorf("%+v", p.ObjectMeta)
		}
		if more, s := workload.JobPods(j, pods, names()); len(more) > 0 || s.Active != 1 || s.Finished() {
			t.Errorf("while it runs: %v %+v", more, s)
		}
		ended(p, corev1.PodSucceeded, 0)
		more, s := workload.JobPods(j, pods, names())
		if len(more) > 0 || s.Condition != batchv1.JobComplete || s.Reason != "CompletionsReached" || s.Succeeded != 1 {
			t.Errorf("%v %+v", more, s)
		}
	})
	t.Run("completions and parallelism", func(t *testing.T) {
		j := job(t, "{completions: 3, parallelism: 2, "+never+"}")
		pods, _ := workload.JobPods(j, nil, names())
		if len(pods) != 2 {
			t.Fatal(len(pods))
		}
		ended(pods[0], corev1.PodSucceeded, 0)
		more, _ := workload.JobPods(j, pods, names())
		if len(more) != 1 || more[0].Name == pods[0].Name || more[0].Name == pods[1].Name {
			t.Fatal(more)
		}
		pods = append(pods, more...)
		ended(pods[1], corev1.PodSucceeded, 0)
		if more, s := workload.JobPods(j, pods, names()); len(more) > 0 || s.Finished() {
			t.Error("a fourth pod, or complete too early")
		}
		ended(pods[2], corev1.PodSucceeded, 0)
		if _, s := workload.JobPods(j, pods, names()); s.Condition != batchv1.JobComplete {
			t.Errorf("%+v", s)
		}
	})
	t.Run("backoffLimit, with a growing pause before each new pod", func(t *testing.T) {
		j := job(t, "{backoffLimit: 2, "+never+"}")
		var pods []*corev1.Pod
		for i, pause := range []time.Duration{0, 10 * time.Second, 20 * time.Second} {
			more, s := workload.JobPods(j, pods, names())
			if len(more) != 1 {
				t.Fatalf("failure %d: %+v", i, s)
			}
			if want := epoch.Add(time.Duration(i)*time.Minute + pause); i > 0 && !s.NotBefore.Equal(want) {
				t.Errorf("failure %d: not before %v, want %v", i, s.NotBefore, want)
			}
			ended(more[0], corev1.PodFailed, time.Duration(i+1)*time.Minute)
			pods = append(pods, more...)
		}
		more, s := workload.JobPods(j, pods, names())
		if len(more) > 0 || s.Condition != batchv1.JobFailed || s.Reason != "BackoffLimitExceeded" || s.Failed != 3 {
			t.Errorf("%v %+v", more, s)
		}
	})
	t.Run("OnFailure counts restarts", func(t *testing.T) {
		j := job(t, "{backoffLimit: 2, template: {spec: {restartPolicy: OnFailure, containers: [{name: c, image: i}]}}}")
		pods, _ := workload.JobPods(j, nil, names())
		pods[0].Status.Phase = corev1.PodRunning
		pods[0].Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: 1}}
		if _, s := workload.JobPods(j, pods, names()); s.Finished() {
			t.Errorf("%+v", s)
		}
		pods[0].Status.ContainerStatuses[0].RestartCount = 2
		if _, s := workload.JobPods(j, pods, names()); s.Reason != "BackoffLimitExceeded" || len(s.Stop) != 1 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("activeDeadlineSeconds", func(t *testing.T) {
		j := job(t, "{activeDeadlineSeconds: 60, "+never+"}")
		pods, s := workload.JobPods(j, nil, names())
		if !s.Deadline.IsZero() {
			t.Error("a deadline before the start")
		}
		start := metav1.NewTime(epoch)
		pods[0].Status.StartTime = &start
		_, s = workload.JobPods(j, pods, names())
		if !s.Deadline.Equal(epoch.Add(time.Minute)) {
			t.Errorf("%+v", s)
		}
		if s = s.Expire(pods); s.Condition != batchv1.JobFailed || s.Reason != "DeadlineExceeded" || len(s.Stop) != 1 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("a work queue has no completions", func(t *testing.T) {
		j := job(t, "{parallelism: 2, "+never+"}")
		pods, _ := workload.JobPods(j, nil, names())
		ended(pods[0], corev1.PodSucceeded, 0)
		if more, s := workload.JobPods(j, pods, names()); len(more) > 0 || s.Finished() {
			t.Errorf("%v %+v", more, s)
		}
		ended(pods[1], corev1.PodFailed, 0)
		if more, s := workload.JobPods(j, pods, names()); len(more) > 0 || s.Condition != batchv1.JobComplete {
			t.Errorf("%v %+v", more, s)
		}
	})
}

// Whatever the pods do, a Job never has more active pods than its parallelism,
// never succeeds without its completions, and ends after a bounded number of
// pods.
func TestJobPodsProperties(t *testing.T) {
	j := job(t, "{"+never+"}")
	rapid.Check(t, func(t *rapid.T) {
		j := j.DeepCopy()
		completions, parallelism, limit := rapid.Int32Range(1, 5).Draw(t, "completions"), rapid.Int32Range(1, 5).Draw(t, "parallelism"), rapid.Int32Range(0, 4).Draw(t, "backoffLimit")
		j.Spec.Completions, j.Spec.Parallelism, j.Spec.BackoffLimit = &completions, &parallelism, &limit
		var pods []*corev1.Pod
		newName := names()
		for step := 0; ; step++ {
			create, s := workload.JobPods(j, pods, newName)
			if s.Finished() {
				if len(create) > 0 {
					t.Fatal("a finished job creates pods")
				}
				if (s.Condition == batchv1.JobComplete) != (s.Succeeded >= completions) || (s.Condition == batchv1.JobFailed) != (s.Failed > limit) {
					t.Fatalf("%+v", s)
				}
				return
			}
			pods = append(pods, create...)
			var active []*corev1.Pod
			for _, p := range pods {
				if p.Status.Phase == corev1.PodPending {
					active = append(active, p)
				}
			}
			if len(active) > int(parallelism) || len(active) == 0 {
				t.Fatalf("%d pods active", len(active))
			}
			if len(pods) > int(completions+limit+parallelism) {
				t.Fatalf("%d pods", len(pods))
			}
			p := rapid.SampledFrom(active).Draw(t, "pod")
			ended(p, rapid.SampledFrom([]corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed}).Draw(t, "phase"), time.Duration(step)*time.Second)
		}
	})
}

func TestClaimsOfStatefulSetsVOL41(t *testing.T) {
	objs := parse(t, `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: db}}
  volumeClaimTemplates:
  - metadata: {name: data, labels: {a: b}}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
  template:
    metadata: {labels: {app: db}}
    spec:
      volumes: [{name: tmp, emptyDir: {}}, {name: data, emptyDir: {}}]
      containers: [{name: c, image: i, volumeMounts: [{name: data, mountPath: /data}, {name: tmp, mountPath: /tmp}]}]
`)
	var got []string
	for _, c := range workload.Claims(objs) {
		got = append(got, fmt.Sprint(c.Namespace, "/", c.Name, c.Labels, c.Spec.Resources.Requests.Storage()))
	}
	if want := "[shop/data-db-0map[a:b app:db] 1Gi shop/data-db-1map[a:b app:db] 1Gi]"; fmt.Sprint(got) != want {
		t.Errorf("claims %v, want %s", got, want)
	}
	for i, p := range workload.Pods(objs, names()) {
		v := p.Spec.Volumes
		if len(v) != 2 || v[0].Name != "tmp" || v[1].Name != "data" || v[1].EmptyDir != nil || v[1].PersistentVolumeClaim.ClaimName != fmt.Sprintf("data-db-%d", i) {
			t.Errorf("volumes of %s: %+v", p.Name, v)
		}
	}
	if v := objs.StatefulSets[0].Spec.Template.Spec.Volumes; len(v) != 2 || v[1].EmptyDir == nil {
		t.Errorf("the template has changed: %+v", v)
	}
}
