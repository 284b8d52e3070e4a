package runtime

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wasmpod/wasmpod/runtime/store"
	"github.com/wasmpod/wasmpod/runtime/workload"
)

// job drives one Job: it looks at the Job's pods whenever one changes, and
// creates those that workload.JobPods asks for.
type job struct {
	done chan struct{}
	stop context.CancelFunc

	mu     sync.Mutex
	object *batchv1.Job // with its status
}

func (r *Runtime) startJob(object *batchv1.Job) {
	ctx, stop := context.WithCancel(r.ctx)
	j := &job{object: object.DeepCopy(), done: make(chan struct{}), stop: stop}
	r.mu.Lock()
	r.jobs = append(r.jobs, j)
	r.mu.Unlock()
	r.tasks.Go(func() {
		defer close(j.done)
		if err := r.runJob(ctx, j); err != nil && ctx.Err() == nil {
			r.cfg.Log.Error("job", "name", j.object.Name, "error", err)
		}
	})
}

func (r *Runtime) runJob(ctx context.Context, j *job) error {
	changes := r.store.Watch()
	defer changes.Close()
	for {
		pods := slices.DeleteFunc(r.store.Pods(), func(p *corev1.Pod) bool { return !metav1.IsControlledBy(p, j.object) })
		create, state := workload.JobPods(j.object, pods, newName)
		now := time.Now()
		if !state.Finished() && !state.Deadline.IsZero() && !now.Before(state.Deadline) {
			create, state = nil, state.Expire(pods)
		}
		j.setStatus(state, now)
		for _, pod := range state.Stop {
			if w := r.worker(pod.UID); w != nil && pod.DeletionTimestamp == nil {
				w.Delete(gracePeriod(pod))
			}
		}
		if state.Finished() {
			return nil
		}
		next := state.Deadline
		if now.Before(state.NotBefore) {
			create = nil
			if next.IsZero() || state.NotBefore.Before(next) {
				next = state.NotBefore
			}
		}
		for _, pod := range create {
			if err := r.startPod(r.newPod(pod)); err != nil {
				return fmt.Errorf("creating pod %q: %w", pod.Name, err)
			}
		}
		if err := waitUntil(ctx, changes, next); err != nil {
			return err
		}
	}
}

// waitUntil waits for a change, but not past t if that is not zero.
func waitUntil(ctx context.Context, changes *store.Watcher, t time.Time) error {
	wait := ctx
	if !t.IsZero() {
		var cancel context.CancelFunc
		wait, cancel = context.WithDeadline(ctx, t)
		defer cancel()
	}
	if _, err := changes.Next(wait); err != nil && ctx.Err() != nil {
		return err
	}
	return nil
}

// setStatus brings the Job's status up to date.
func (j *job) setStatus(state workload.JobState, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := &j.object.Status
	t := metav1.NewTime(now).Rfc3339Copy()
	if s.StartTime == nil {
		s.StartTime = &t
	}
	s.Active, s.Succeeded, s.Failed = state.Active, state.Succeeded, state.Failed
	if state.Condition == "" || len(s.Conditions) > 0 {
		return
	}
	s.Conditions = []batchv1.JobCondition{{
		Type: state.Condition, Status: corev1.ConditionTrue,
		Reason: state.Reason, Message: state.Message,
		LastProbeTime: t, LastTransitionTime: t,
	}}
	if state.Condition == batchv1.JobComplete {
		s.CompletionTime = &t
	}
}

func (j *job) snapshot() *batchv1.Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.object.DeepCopy()
}

// stopJobs ends the Jobs' controllers: their pods are about to be deleted.
func (r *Runtime) stopJobs() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range r.jobs {
		j.stop()
	}
}
