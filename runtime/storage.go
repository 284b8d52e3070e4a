package runtime

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/runtime/logs"
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

// podStorage is what a pod keeps on this node, in bytes.
type podStorage struct {
	emptyDirs  map[string]int64 // all, by volume
	volumes    int64            // on disk: emptyDirs that are not in memory
	containers map[string]int64 // what they wrote to their roots, and their logs
}

// limitsStorage says whether a pod has anything to be compared with.
func limitsStorage(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		if e := pod.Spec.Volumes[i].EmptyDir; e != nil && e.SizeLimit != nil && e.SizeLimit.Sign() > 0 {
			return true
		}
	}
	return storageLimit(pod) != nil
}

func ephemeral(c *corev1.Container) *resource.Quantity {
	if q, ok := c.Resources.Limits[corev1.ResourceEphemeralStorage]; ok && q.Sign() > 0 {
		return &q
	}
	return nil
}

// storageLimit is the sum of the containers' limits, or what an init container may
// use while they do not run yet; nil: there is none.
func storageLimit(pod *corev1.Pod) *resource.Quantity {
	var sum, sidecars, most resource.Quantity
	found := false
	for i := range pod.Spec.Containers {
		if q := ephemeral(&pod.Spec.Containers[i]); q != nil {
			sum.Add(*q)
			found = true
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		q := ephemeral(c)
		if q == nil {
			continue
		}
		found = true
		while := q.DeepCopy()
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sidecars.Add(*q)
			while = sidecars.DeepCopy()
		} else {
			while.Add(sidecars)
		}
		if while.Cmp(most) > 0 {
			most = while
		}
	}
	sum.Add(sidecars)
	if most.Cmp(sum) > 0 {
		sum = most
	}
	if !found {
		return nil
	}
	return &sum
}

// storageEviction is why a pod is evicted for what it keeps, in the kubelet's words
// (RES-30); empty: it is not.
func storageEviction(pod *corev1.Pod, u *podStorage) string {
	over := func(used int64, limit *resource.Quantity) bool {
		return limit != nil && limit.Sign() > 0 && resource.NewQuantity(used, resource.BinarySI).Cmp(*limit) > 0
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.EmptyDir != nil && over(u.emptyDirs[v.Name], v.EmptyDir.SizeLimit) {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, v.EmptyDir.SizeLimit.String())
		}
	}
	total := u.volumes
	for _, n := range u.containers {
		total += n
	}
	if limit := storageLimit(pod); over(total, limit) {
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", limit.String())
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if limit := ephemeral(c); over(u.containers[c.Name], limit) {
			return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", c.Name, limit.String())
		}
	}
	return ""
}

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
			if !limitsStorage(pod) || time.Now().Before(next[pod.UID]) {
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
	if message := storageEviction(pod, r.storageOf(ctx, pod)); message != "" && ctx.Err() == nil {
		w.Evict(evictionGrace, message)
		r.events.Evicted("ephemeralstorage")
	}
}

// storageOf measures. What cannot be measured counts as far as it was seen.
func (r *Runtime) storageOf(ctx context.Context, pod *corev1.Pod) *podStorage {
	u := &podStorage{emptyDirs: map[string]int64{}, containers: map[string]int64{}}
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
		u.emptyDirs[v.Name] = bytes
		if !memory {
			u.volumes += bytes
		}
	}
	w := r.worker(pod.UID)
	for ref, c := range w.Live() {
		u.containers[ref.Name] += max(0, c.Usage().FileBytes)
	}
	for _, name := range containerNames(pod) {
		dir := filepath.Dir(logs.Path(r.logRoot(), pod.Namespace, pod.Name, string(pod.UID), name, 0))
		bytes, _, err := volume.DiskUsage(ctx, dir)
		if bytes > 0 {
			note(err) // else it has not started yet
		}
		u.containers[name] += bytes
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
