package runtime

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/manifest"
	"github.com/wasmpod/wasmpod/runtime/podworker"
	"github.com/wasmpod/wasmpod/runtime/workload"
)

// Apply stores the objects and starts their pods. Volumes of running pods show the
// ConfigMaps and Secrets among them at once; see Update.
func (r *Runtime) Apply(objects *manifest.Objects) error {
	r.putConfig(objects)
	if err := r.refreshVolumes(r.ctx); err != nil {
		r.cfg.Log.Warn("volumes keep their old content", "error", err)
	}
	if err := r.network.put(r.ctx, objects); err != nil {
		return err
	}
	for _, pod := range workload.Pods(objects, newName) {
		if err := r.startPod(r.newPod(pod)); err != nil {
			return err
		}
	}
	for _, j := range objects.Jobs {
		j = j.DeepCopy()
		j.UID = workload.UID("Job", j.Namespace, j.Name)
		identify(&j.ObjectMeta)
		r.startJob(j)
	}
	return nil
}

func (r *Runtime) putConfig(objects *manifest.Objects) {
	for _, cm := range objects.ConfigMaps {
		r.store.PutConfigMap(cm)
	}
	for _, s := range objects.Secrets {
		r.store.PutSecret(s)
	}
	for _, c := range slices.Concat(objects.Claims, workload.Claims(objects)) {
		r.claims.put(c)
	}
}

// newPod gives a pod what the API server would: an identity, and its node.
func (r *Runtime) newPod(pod *corev1.Pod) *corev1.Pod {
	pod = pod.DeepCopy()
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	identify(&pod.ObjectMeta)
	if pod.Spec.NodeName == "" {
		pod.Spec.NodeName = r.node.Name
	}
	return pod
}

func identify(m *metav1.ObjectMeta) {
	if m.Name == "" {
		m.Name = m.GenerateName + newName()
	}
	if m.UID == "" {
		m.UID = uuid.NewUUID()
	}
	m.CreationTimestamp = metav1.Now().Rfc3339Copy()
	m.Generation = 1
}

// newName returns the random part of a generated name (WL-22).
func newName() string {
	b := make([]byte, workload.SuffixLen)
	rand.Read(b)
	for i := range b {
		b[i] = workload.Alphabet[int(b[i])%len(workload.Alphabet)]
	}
	return string(b)
}

// Blueprints returns what each container of the pods would be started with. No
// pod is started; a pod IP is not known yet.
func (r *Runtime) Blueprints(ctx context.Context, objects *manifest.Objects) ([]container.Config, error) {
	r.putConfig(objects)
	pods := workload.Pods(objects, newName)
	for _, j := range objects.Jobs {
		create, _ := workload.JobPods(j, nil, newName)
		pods = append(pods, create...)
	}
	var configs []container.Config
	var errs []error
	for _, pod := range pods {
		pod = r.newPod(pod)
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			config, err := r.blueprint(ctx, pod, &c)
			if err != nil {
				errs = append(errs, fmt.Errorf("pod %q, container %q: %w", pod.Name, c.Name, err))
				continue
			}
			configs = append(configs, config)
		}
	}
	return configs, errors.Join(errs...)
}

func (r *Runtime) blueprint(ctx context.Context, pod *corev1.Pod, c *corev1.Container) (container.Config, error) {
	img, err := r.images.Resolve(ctx, c.Image, c.ImagePullPolicy)
	if err != nil {
		return container.Config{}, err
	}
	return container.NewConfig(pod, c, container.Inputs{
		Image: img.Config, ImageRef: img.Ref, ImageID: img.ID, Module: img.Module,
		HostIP: r.node.HostIP, NodeName: r.node.Name, NodeAllocatable: r.node.Allocatable,
		ConfigMaps: r.store.ConfigMap, Secrets: r.store.Secret,
	})
}

// BlockedError says that no pod that is left can get on.
type BlockedError struct{ Pods []string }

func (e *BlockedError) Error() string { return strings.Join(e.Pods, "\n") }

// Wait blocks until every pod and every Job has ended. When patience is not
// zero and every pod that is left has been waiting for longer than that for
// something that is not there (an image, a ConfigMap), it returns a
// *BlockedError; the pods go on trying.
func (r *Runtime) Wait(ctx context.Context, patience time.Duration) error {
	look := time.NewTicker(max(patience/10, 100*time.Millisecond))
	defer look.Stop()
	for {
		next, blocked := r.unfinished(patience)
		switch {
		case next == nil:
			return nil
		case blocked != nil:
			return blocked
		}
		select {
		case <-next:
		case <-look.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// unfinished returns the end of one pod or Job that has not ended, nil if there
// is none, and an error if all that are left have been blocked for longer than
// patience.
func (r *Runtime) unfinished(patience time.Duration) (next <-chan struct{}, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var blocked []string
	free := patience == 0
	for uid, w := range r.workers {
		if ended(w.Done()) {
			continue
		}
		next = w.Done()
		b, ok := r.blocked[uid]
		if !ok || time.Since(b.since) < patience {
			free = true
			continue
		}
		pod := r.store.Pod(uid)
		blocked = append(blocked, fmt.Sprintf("pod %q cannot start: %s", pod.Name, b.message))
	}
	if next != nil && !free {
		slices.Sort(blocked)
		return next, &BlockedError{Pods: blocked}
	}
	for _, j := range r.jobs {
		if next == nil && !ended(j.done) {
			next = j.done
		}
	}
	return next, nil
}

func ended(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// Delete asks every pod to end within its grace period, and keeps Jobs from
// making new ones.
func (r *Runtime) Delete() {
	r.each(func(pod *corev1.Pod, w *podworker.Worker) { w.Delete(gracePeriod(pod)) })
}

// Kill ends every pod at once.
func (r *Runtime) Kill() {
	r.each(func(_ *corev1.Pod, w *podworker.Worker) {
		w.Delete(0)
		w.Kill()
	})
}

// each ends pods, and remembers how those were that have not started: what
// they were waiting for is gone from the status when they have ended.
func (r *Runtime) each(end func(*corev1.Pod, *podworker.Worker)) {
	r.stopJobs()
	for _, pod := range r.store.Pods() {
		r.mu.Lock()
		w := r.workers[pod.UID]
		// As it is now: see blockages, which has what is shown later.
		if p := r.store.Pod(pod.UID); p != nil && p.Status.Phase == corev1.PodPending {
			if _, known := r.waiting[pod.UID]; !known {
				r.waiting[pod.UID] = p.Status
			}
		}
		r.mu.Unlock()
		if w != nil {
			end(pod, w)
		}
	}
}

func (r *Runtime) worker(uid types.UID) *podworker.Worker {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.workers[uid]
}

func gracePeriod(pod *corev1.Pod) time.Duration {
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return 30 * time.Second // TIME-01
}

// Pods returns the pods with their status, in the order in which they were
// made.
func (r *Runtime) Pods() []*corev1.Pod { return r.store.Pods() }

// Services returns the Services with their cluster IPs and node ports.
func (r *Runtime) Services() []*corev1.Service { return r.network.list() }

// Jobs returns the Jobs with their status.
func (r *Runtime) Jobs() []*batchv1.Job {
	r.mu.Lock()
	defer r.mu.Unlock()
	jobs := make([]*batchv1.Job, 0, len(r.jobs))
	for _, j := range r.jobs {
		jobs = append(jobs, j.snapshot())
	}
	return jobs
}

// FuelAnnotation and the name of a container is the annotation, in the result of
// List, of what its attempts that have ended were charged, in units of about 64
// bytes of code executed: the same for the same module and input, on every
// machine.
const FuelAnnotation = "fuel.wasmpod.dev/"

// List returns the pods, Jobs and Services with their status as a v1 List. A pod that was ended
// before any of its containers had started is listed as it was then, because
// its status says why it did not start. A nil Runtime has nothing.
//
// Its pods are annotated with the fuel of their containers, see [FuelAnnotation].
func (r *Runtime) List() *corev1.List {
	list := &corev1.List{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "List"},
		Items:    []kruntime.RawExtension{},
	}
	if r == nil {
		return list
	}
	for _, p := range r.Pods() {
		r.mu.Lock()
		status, ok := r.waiting[p.UID]
		r.mu.Unlock()
		if ok && neverStarted(status) && !hasRun(p.Status) {
			p.Status = status
		}
		if w := r.worker(p.UID); w != nil {
			for name, fuel := range w.Fuel() {
				metav1.SetMetaDataAnnotation(&p.ObjectMeta, FuelAnnotation+name, strconv.FormatUint(fuel, 10))
			}
		}
		list.Items = append(list.Items, kruntime.RawExtension{Object: p})
	}
	for _, j := range r.Jobs() {
		list.Items = append(list.Items, kruntime.RawExtension{Object: j})
	}
	for _, svc := range r.Services() {
		svc.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
		list.Items = append(list.Items, kruntime.RawExtension{Object: svc})
	}
	return list
}

// hasRun reports whether a container has run that a status of before did not show
// as started: one whose postStart hook had not ended (HOOK-01).
func hasRun(s corev1.PodStatus) bool {
	return slices.ContainsFunc(slices.Concat(s.InitContainerStatuses, s.ContainerStatuses), func(c corev1.ContainerStatus) bool {
		return c.State.Terminated != nil && !c.State.Terminated.StartedAt.IsZero()
	})
}

func neverStarted(s corev1.PodStatus) bool {
	for _, c := range slices.Concat(s.InitContainerStatuses, s.ContainerStatuses) {
		if c.State.Waiting == nil || c.LastTerminationState.Terminated != nil {
			return false
		}
	}
	return true
}
