package metrics

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestCollector(t *testing.T) {
	pods := []*corev1.Pod{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u"},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning,
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "c", RestartCount: 2,
				State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
				LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3}},
			}},
		},
	}}
	c := New(func() []*corev1.Pod { return pods })
	want := `
# HELP kube_pod_container_status_last_terminated_exitcode Exit code of the container's last end.
# TYPE kube_pod_container_status_last_terminated_exitcode gauge
kube_pod_container_status_last_terminated_exitcode{container="c",namespace="default",pod="p",uid="u"} 3
# HELP kube_pod_container_status_restarts_total How often the container was restarted.
# TYPE kube_pod_container_status_restarts_total counter
kube_pod_container_status_restarts_total{container="c",namespace="default",pod="p",uid="u"} 2
# HELP kube_pod_container_status_waiting_reason 1 for the reason why the container waits.
# TYPE kube_pod_container_status_waiting_reason gauge
kube_pod_container_status_waiting_reason{container="c",namespace="default",pod="p",reason="CrashLoopBackOff",uid="u"} 1
`
	if err := testutil.CollectAndCompare(c, strings.NewReader(want),
		"kube_pod_container_status_last_terminated_exitcode",
		"kube_pod_container_status_restarts_total",
		"kube_pod_container_status_waiting_reason"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.CollectAndLint(c); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	pods = nil
	if n := testutil.CollectAndCount(c); n != 0 {
		t.Errorf("%d series left of pods that are gone", n)
	}
}
