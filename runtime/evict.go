package runtime

import (
	"context"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/cgroup"
	"github.com/wasmpod/wasmpod/runtime/podworker"
)

const (
	// evictionPeriod is how often the node looks whether it is short of memory. A
	// kubelet has 10 s and is woken by the kernel besides.
	evictionPeriod = time.Second
	// evictionGrace is what an evicted pod has to end (RES-30).
	evictionGrace = time.Second
	// evictionPatience is how long the node waits for a victim's memory before it
	// looks for another one.
	evictionPatience = 30 * time.Second
)

// evictor evicts pods while less memory than the threshold is available.
type evictor struct {
	threshold int64
	available func() int64
	users     func() ([]cgroup.MemoryUser, []*podworker.Worker)
	evicted   func()
	observe   func(short bool) // if not nil: of each look at what is available
}

// watchMemory runs until ctx ends.
func (e *evictor) watchMemory(ctx context.Context) {
	tick := time.NewTicker(evictionPeriod)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		e.relieve(ctx)
	}
}

// relieve evicts one pod if memory is short, and waits for it to be gone.
func (e *evictor) relieve(ctx context.Context) {
	available := e.available()
	short := memoryShort(available, e.threshold)
	if e.observe != nil {
		e.observe(short)
	}
	if !short {
		return
	}
	users, workers := e.users()
	i, ok := cgroup.MemoryVictim(users)
	if !ok {
		return
	}
	workers[i].Evict(evictionGrace, cgroup.MemoryEviction(&users[i], e.threshold, available))
	e.evicted()
	patience := time.NewTimer(evictionPatience)
	defer patience.Stop()
	select {
	case <-workers[i].Done():
	case <-patience.C:
	case <-ctx.Done():
	}
}

// startEvictor starts it if there is a threshold.
func (r *Runtime) startEvictor(threshold int64) {
	if threshold <= 0 {
		return
	}
	e := &evictor{
		threshold: threshold, available: r.memoryAvailable, users: r.memoryUsers,
		evicted: func() { r.events.Evicted("memory.available") },
		observe: func(short bool) {
			r.observe(func(s *nodeState, now time.Time) {
				if short {
					s.MemoryShort = now
				}
				if r.mechanisms.Load() != nil { // or to find them takes long
					s.Checks = r.Mechanisms()
				}
			})
		},
	}
	r.tasks.Go(func() { e.watchMemory(r.ctx) })
}

// memoryAvailable is what pods could still have before either the machine's memory
// or what the kernel grants this process is used up.
func (r *Runtime) memoryAvailable() int64 {
	available := machineMemory().Available
	if w := r.wall.stats(); w != nil && w.MemoryLimit > 0 {
		available = min(available, max(1, w.MemoryLimit-w.WorkingSet))
	}
	return available
}

// memoryUsers are the pods that run, with their workers.
func (r *Runtime) memoryUsers() (users []cgroup.MemoryUser, workers []*podworker.Worker) {
	for _, pod := range r.store.Pods() {
		w := r.worker(pod.UID)
		if w == nil || pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		var u cgroup.MemoryUser
		if pod.Spec.Priority != nil {
			u.Priority = *pod.Spec.Priority
		}
		for ref, c := range w.Live() {
			u.Containers = append(u.Containers, cgroup.ContainerMemory{
				Name: ref.Name, Used: c.Usage().MemoryBytes, Request: memoryRequest(pod, ref.Name),
			})
		}
		slices.SortFunc(u.Containers, func(a, b cgroup.ContainerMemory) int { return strings.Compare(a.Name, b.Name) })
		users, workers = append(users, u), append(workers, w)
	}
	return users, workers
}

func memoryRequest(pod *corev1.Pod, container string) int64 {
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if c.Name == container {
			q := c.Resources.Requests[corev1.ResourceMemory]
			return q.Value()
		}
	}
	return 0
}
