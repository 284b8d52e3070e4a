package workload

import (
	"sort"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// JobState is how far a Job is.
type JobState struct {
	// Active, Succeeded and Failed count pods, those to create not included.
	Active, Succeeded, Failed int32

	// Condition is JobComplete or JobFailed once the Job is finished, and ""
	// before. Reason and Message say why.
	Condition       batchv1.JobConditionType
	Reason, Message string

	// Stop are active pods that must be deleted, because the Job failed or has
	// more pods than it needs.
	Stop []*corev1.Pod

	// NotBefore is when the pods to create may be created: pods that replace
	// failed ones wait 10 s, 20 s, 40 s and so on, at most 10 minutes, after the
	// last failure. Zero: at once.
	NotBefore time.Time

	// Deadline is when the Job fails unless it is finished: the caller then
	// calls Expire. Zero: never.
	Deadline time.Time
}

// Finished reports whether the Job is complete or failed. Its pods may still
// have to be stopped.
func (s JobState) Finished() bool { return s.Condition != "" }

// Conditions of finished jobs, with upstream's texts.
const (
	messageBackoffLimit = "Job has reached the specified backoff limit"
	messageDeadline     = "Job was active longer than specified deadline"
	messageCompletions  = "Reached expected number of succeeded pods"
)

const (
	failureBackoff    = 10 * time.Second
	maxFailureBackoff = 10 * time.Minute
	// maxCreate is how many pods one step creates at most.
	maxCreate = 500
)

// JobPods is one control step of a Job: given its pods so far, with their
// statuses, it returns the pods to create next and the state of the Job.
// existing holds every pod ever created for the Job, finished ones too; a pod
// that is gone without having finished is replaced as if it had never been.
// newName is as for Pods. Call it again whenever a pod's status changes.
func JobPods(job *batchv1.Job, existing []*corev1.Pod, newName func() string) (create []*corev1.Pod, state JobState) {
	var active []*corev1.Pod
	for _, p := range existing {
		switch p.Status.Phase {
		case corev1.PodSucceeded:
			state.Succeeded++
		case corev1.PodFailed:
			state.Failed++
		default:
			// A pod being deleted counts neither as active nor as failed until it
			// has ended.
			if p.DeletionTimestamp == nil {
				active = append(active, p)
			}
		}
	}
	state.Active = int32(len(active))
	state.Deadline = deadline(job, existing)
	limit := backoffLimit(job)
	if state.Failed > limit || restartsExceed(job, existing, limit) {
		return nil, state.fail(batchv1.JobReasonBackoffLimitExceeded, messageBackoffLimit, active)
	}
	want := wanted(job, state)
	switch {
	case state.Active > want:
		// The youngest go first: they have done least.
		sort.SliceStable(active, func(i, j int) bool { return lessDone(active[i], active[j]) })
		state.Stop = active[:state.Active-want]
		return nil, state
	case done(job, state):
		state.Condition, state.Reason, state.Message = batchv1.JobComplete, batchv1.JobReasonCompletionsReached, messageCompletions
		state.Deadline = time.Time{}
		return nil, state
	}
	n := namer{newName: newName, taken: map[types.NamespacedName]bool{}}
	for _, p := range existing {
		n.taken[types.NamespacedName{Namespace: p.Namespace, Name: p.Name}] = true
	}
	for range min(want-state.Active, maxCreate) {
		create = append(create, jobPod(job, &n))
	}
	if len(create) > 0 {
		state.NotBefore = notBefore(existing)
	}
	return create, state
}

// Expire fails the Job because its Deadline has passed; existing is as for
// JobPods. A finished Job stays as it is.
func (s JobState) Expire(existing []*corev1.Pod) JobState {
	if s.Finished() {
		return s
	}
	var active []*corev1.Pod
	for _, p := range existing {
		if !ended(p) && p.DeletionTimestamp == nil {
			active = append(active, p)
		}
	}
	return s.fail(batchv1.JobReasonDeadlineExceeded, messageDeadline, active)
}

func (s JobState) fail(reason, message string, active []*corev1.Pod) JobState {
	s.Condition, s.Reason, s.Message = batchv1.JobFailed, reason, message
	s.Stop, s.NotBefore, s.Deadline = active, time.Time{}, time.Time{}
	return s
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func backoffLimit(job *batchv1.Job) int32 {
	if job.Spec.BackoffLimit == nil {
		return 6
	}
	return *job.Spec.BackoffLimit
}

// restartsExceed counts container restarts against the limit where containers
// restart within their pod.
func restartsExceed(job *batchv1.Job, existing []*corev1.Pod, limit int32) bool {
	if job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	restarts := int32(0)
	for _, p := range existing {
		if ended(p) {
			continue
		}
		for _, c := range p.Status.InitContainerStatuses {
			restarts += c.RestartCount
		}
		for _, c := range p.Status.ContainerStatuses {
			restarts += c.RestartCount
		}
	}
	if limit == 0 {
		return restarts > 0
	}
	return restarts >= limit
}

// wanted is how many pods should be active.
func wanted(job *batchv1.Job, s JobState) int32 {
	parallelism := int32(1)
	if job.Spec.Parallelism != nil {
		parallelism = *job.Spec.Parallelism
	}
	if job.Spec.Completions == nil {
		// A work queue: the first success says that the work is done; the
		// others may finish what they are at.
		if s.Succeeded > 0 {
			return s.Active
		}
		return parallelism
	}
	return max(0, min(parallelism, *job.Spec.Completions-s.Succeeded))
}

func done(job *batchv1.Job, s JobState) bool {
	if s.Active > 0 {
		return false
	}
	if job.Spec.Completions == nil {
		return s.Succeeded > 0
	}
	return s.Succeeded >= *job.Spec.Completions
}

// deadline is when a Job with activeDeadlineSeconds fails; its time begins
// with its first pod if no start time is recorded.
func deadline(job *batchv1.Job, existing []*corev1.Pod) time.Time {
	if job.Spec.ActiveDeadlineSeconds == nil {
		return time.Time{}
	}
	var start time.Time
	if job.Status.StartTime != nil {
		start = job.Status.StartTime.Time
	} else {
		for _, p := range existing {
			at := p.CreationTimestamp.Time
			if p.Status.StartTime != nil && (at.IsZero() || p.Status.StartTime.Time.Before(at)) {
				at = p.Status.StartTime.Time
			}
			if !at.IsZero() && (start.IsZero() || at.Before(start)) {
				start = at
			}
		}
	}
	if start.IsZero() {
		return time.Time{}
	}
	const century = 100 * 365 * 24 * 3600
	return start.Add(time.Duration(min(*job.Spec.ActiveDeadlineSeconds, century)) * time.Second)
}

// notBefore is when a pod may replace the one that failed last. Failures are
// counted since the last success.
func notBefore(existing []*corev1.Pod) time.Time {
	var lastSuccess, lastFailure time.Time
	var failures []time.Time
	for _, p := range existing {
		at := endedAt(p)
		switch p.Status.Phase {
		case corev1.PodSucceeded:
			if at.After(lastSuccess) {
				lastSuccess = at
			}
		case corev1.PodFailed:
			failures = append(failures, at)
			if at.After(lastFailure) {
				lastFailure = at
			}
		}
	}
	n := 0
	for _, at := range failures {
		if !at.Before(lastSuccess) {
			n++
		}
	}
	if n == 0 || lastFailure.IsZero() {
		return time.Time{}
	}
	delay := failureBackoff
	for range n - 1 {
		if delay >= maxFailureBackoff {
			break
		}
		delay *= 2
	}
	return lastFailure.Add(min(delay, maxFailureBackoff))
}

// endedAt is when the last container of a pod ended.
func endedAt(p *corev1.Pod) time.Time {
	var last time.Time
	for _, statuses := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for _, c := range statuses {
			if t := c.State.Terminated; t != nil && t.FinishedAt.After(last) {
				last = t.FinishedAt.Time
			}
		}
	}
	if last.IsZero() && p.Status.StartTime != nil {
		last = p.Status.StartTime.Time
	}
	return last
}

// lessDone orders pods by how little would be lost with them.
func lessDone(a, b *corev1.Pod) bool {
	if pa, pb := a.Status.Phase == corev1.PodRunning, b.Status.Phase == corev1.PodRunning; pa != pb {
		return !pa
	}
	return a.CreationTimestamp.After(b.CreationTimestamp.Time)
}
