package runtime

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/lifecycle"
	"github.com/wasmpod/wasmpod/runtime/logs"
)

// garbagePeriod is how often dead instances of containers are collected (TIME-12).
const garbagePeriod = time.Minute

// startLogCollector starts what collects garbage.
func (r *Runtime) startLogCollector() {
	r.tasks.Go(func() {
		tick := time.NewTicker(garbagePeriod)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				r.collect(r.ctx)
			case <-r.ctx.Done():
				return
			}
		}
	})
}

// collect removes the logs of all dead instances of containers but the newest of
// each, besides the one that runs: what --previous shows (TIME-12, LOG-11, INIT-10).
// Nothing else of an instance outlives it.
func (r *Runtime) collect(ctx context.Context) {
	for _, pod := range r.store.Pods() {
		if ctx.Err() != nil {
			return
		}
		s := &pod.Status
		if slices.ContainsFunc(s.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.AllContainersRestarting }) {
			continue // RST-20: what was removed in place has left its logs
		}
		for _, c := range slices.Concat(s.InitContainerStatuses, s.ContainerStatuses) {
			if c.RestartCount < 2 {
				continue
			}
			oldest, ok := oldestKept(pod, c.Name)
			if !ok {
				continue
			}
			if err := logs.Prune(logs.Path(r.logRoot(), pod.Namespace, pod.Name, string(pod.UID), c.Name, oldest)); err != nil {
				r.cfg.Log.Warn("removing the logs of dead containers", "pod", pod.Name, "container", c.Name, "error", err)
			}
		}
	}
}

// oldestKept is the oldest attempt of a container whose log is kept.
func oldestKept(pod *corev1.Pod, container string) (attempt int, ok bool) {
	for _, previous := range []bool{true, false} {
		if n, err := lifecycle.LogsOf(pod, container, previous); err == nil {
			return n, true
		}
	}
	return 0, false
}
