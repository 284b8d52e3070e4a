package runtime

import (
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Failure is why a run has failed.
type Failure struct {
	Pod, Container string // Container is empty if no container ended with an error
	ExitCode       int32
	Reason         string
}

// Failure returns the first container, in time, of a pod that did not succeed;
// nil if every pod Succeeded. Pods that a Job has replaced do not count: the
// Job does.
func (r *Runtime) Failure() *Failure { return failure(r.Pods(), r.Jobs()) }

func failure(pods []*corev1.Pod, jobs []*batchv1.Job) *Failure {
	complete := make(map[string]bool)
	for _, j := range jobs {
		for _, c := range j.Status.Conditions {
			if c.Type == batchv1.JobComplete && c.Status == corev1.ConditionTrue {
				complete[string(j.UID)] = true
			}
		}
	}
	var first *Failure
	var at metav1.Time
	for _, p := range pods {
		owner := metav1.GetControllerOf(p)
		if p.Status.Phase == corev1.PodSucceeded || owner != nil && complete[string(owner.UID)] {
			continue
		}
		if first == nil {
			first = &Failure{Pod: p.Name, Reason: p.Status.Reason}
		}
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			t := c.State.Terminated
			if t == nil || t.ExitCode == 0 || first.ExitCode != 0 && !t.FinishedAt.Before(&at) {
				continue
			}
			at = t.FinishedAt
			first = &Failure{Pod: p.Name, Container: c.Name, ExitCode: t.ExitCode, Reason: t.Reason}
		}
	}
	return first
}
