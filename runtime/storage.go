package runtime

import (
	"context"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/runtime/lifecycle"
	"github.com/wasmpod/wasmpod/runtime/logs"
	"github.com/wasmpod/wasmpod/runtime/podworker"
	"github.com/wasmpod/wasmpod/runtime/volume"
)

const (
	// storagePeriod is how often what pods keep on disk is compared with their
	// limits (TIME-21).
	storagePeriod = 10 * time.Second
	// storageShare bounds what measuring takes: who took a second to be measured
	// is left alone for that many.
	storageShare = 20
)

// watchStorage evicts pods that keep more than they may, until ctx ends.
func (r *Runtime) watchStorage(ctx context.Context) {
	tick := time.NewTicker(storagePeriod)
	defer tick.Stop()
	next := map[types.UID]time.Time{} // of those that take long
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		pods := r.store.Pods()
		seen := make(map[types.UID]bool, len(pods))
		for _, pod := range pods {
			seen[pod.UID] = true
			if !lifecycle.LimitsStorage(pod) || time.Now().Before(next[pod.UID]) {
				continue
			}
			start := time.Now()
			r.checkStorage(ctx, pod)
			if took := time.Since(start); took > storagePeriod/storageShare {
				next[pod.UID] = time.Now().Add(storageShare * took)
			}
		}
		for uid := range next {
			if !seen[uid] {
				delete(next, uid)
			}
		}
	}
}

// checkStorage evicts one pod if it keeps more than it may.
func (r *Runtime) checkStorage(ctx context.Context, pod *corev1.Pod) {
	w := r.worker(pod.UID)
	if w == nil || pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return
	}
	if message := lifecycle.StorageEviction(pod, r.storageOf(ctx, pod, w)); message != "" && ctx.Err() == nil {
		w.Evict(evictionGrace, message)
		r.events.Evicted("ephemeralstorage")
	}
}

// storageOf measures what a pod keeps, which w runs. What cannot be measured counts as
// far as it was seen.
func (r *Runtime) storageOf(ctx context.Context, pod *corev1.Pod, w *podworker.Worker) lifecycle.StorageUsage {
	u := lifecycle.StorageUsage{EmptyDirs: map[string]int64{}, Containers: map[string]int64{}}
	note := func(err error) {
		if err != nil && ctx.Err() == nil {
			r.cfg.Log.Debug("what a pod keeps is not known in full", "pod", pod.Name, "error", err)
		}
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.EmptyDir == nil {
			continue
		}
		bytes, memory, err := r.volume.Usage(ctx, pod.UID, v.Name)
		note(err)
		u.EmptyDirs[v.Name] = bytes
		if !memory {
			u.Volumes += bytes
		}
	}
	for ref, c := range w.Live() {
		u.Containers[ref.Name] += max(0, c.Usage().FileBytes)
	}
	for _, name := range containerNames(pod) {
		dir := filepath.Dir(logs.Path(r.logRoot(), pod.Namespace, pod.Name, string(pod.UID), name, 0))
		bytes, _, err := volume.DiskUsage(ctx, dir)
		if bytes > 0 {
			note(err) // else it has not started yet
		}
		u.Containers[name] += bytes
	}
	return u
}

func containerNames(pod *corev1.Pod) []string {
	var names []string
	for i := range pod.Spec.InitContainers {
		names = append(names, pod.Spec.InitContainers[i].Name)
	}
	for i := range pod.Spec.Containers {
		names = append(names, pod.Spec.Containers[i].Name)
	}
	for i := range pod.Spec.EphemeralContainers {
		names = append(names, pod.Spec.EphemeralContainers[i].Name)
	}
	return names
}
