// Package store keeps the objects of this node: the only meeting place of
// those who declare pods and of the workers that run them.
package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// ErrAlreadyExists is returned when an object of that kind, namespace and name
// is there already.
var ErrAlreadyExists = errors.New("already exists")

type key struct{ namespace, name string }

// Store holds objects in memory. It is safe for concurrent use. Objects that go
// in or come out are copies: a caller owns what it holds.
type Store struct {
	mu         sync.Mutex
	version    int64 // resourceVersion of the newest change
	pods       map[types.UID]*corev1.Pod
	names      map[key]types.UID
	order      []types.UID // pods as they were added
	configMaps map[key]*corev1.ConfigMap
	secrets    map[key]*corev1.Secret
	events     eventLog
	watchers   map[*Watcher]struct{}
}

// New returns an empty Store.
func New() *Store {
	return &Store{
		pods:       make(map[types.UID]*corev1.Pod),
		names:      make(map[key]types.UID),
		configMaps: make(map[key]*corev1.ConfigMap),
		secrets:    make(map[key]*corev1.Secret),
		events:     eventLog{index: make(map[eventKey]int), similar: make(map[similarKey]*similar)},
		watchers:   make(map[*Watcher]struct{}),
	}
}

func (s *Store) nextVersion() string {
	s.version++
	return strconv.FormatInt(s.version, 10)
}

// AddPod adds a pod, which must have a UID.
func (s *Store) AddPod(pod *corev1.Pod) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key{pod.Namespace, pod.Name}
	if _, ok := s.names[k]; ok {
		return fmt.Errorf("pods %q in namespace %q %w", pod.Name, pod.Namespace, ErrAlreadyExists)
	}
	p := pod.DeepCopy()
	p.ResourceVersion = s.nextVersion()
	s.pods[p.UID], s.names[k] = p, p.UID
	s.order = append(s.order, p.UID)
	s.notify(p.UID)
	return nil
}

// Pod returns the pod with that UID, or nil.
func (s *Store) Pod(uid types.UID) *corev1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pods[uid].DeepCopy()
}

// Pods returns all pods in the order in which they were added.
func (s *Store) Pods() []*corev1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	pods := make([]*corev1.Pod, 0, len(s.order))
	for _, uid := range s.order {
		pods = append(pods, s.pods[uid].DeepCopy())
	}
	return pods
}

// SetStatus replaces a pod's status. A status of a pod that is not there is
// dropped: its worker is about to learn of the removal.
func (s *Store) SetStatus(uid types.UID, status corev1.PodStatus) {
	s.update(uid, func(p *corev1.Pod) bool { status.DeepCopyInto(&p.Status); return true })
}

// update has change work on a pod, and tells of it if it returns true.
func (s *Store) update(uid types.UID, change func(*corev1.Pod) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.pods[uid]
	if !ok || !change(p) {
		return
	}
	p.ResourceVersion = s.nextVersion()
	s.notify(uid)
}

// PutConfigMap adds or replaces a ConfigMap.
func (s *Store) PutConfigMap(cm *corev1.ConfigMap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := cm.DeepCopy()
	c.ResourceVersion = s.nextVersion()
	s.configMaps[key{c.Namespace, c.Name}] = c
}

// ConfigMap looks a ConfigMap up.
func (s *Store) ConfigMap(namespace, name string) (*corev1.ConfigMap, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.configMaps[key{namespace, name}]
	return c.DeepCopy(), ok
}

// PutSecret adds or replaces a Secret.
func (s *Store) PutSecret(secret *corev1.Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := secret.DeepCopy()
	c.ResourceVersion = s.nextVersion()
	s.secrets[key{c.Namespace, c.Name}] = c
}

// Secret looks a Secret up.
func (s *Store) Secret(namespace, name string) (*corev1.Secret, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.secrets[key{namespace, name}]
	return c.DeepCopy(), ok
}

// Watcher tells which pods have changed. A burst of changes to one pod is one
// notice: who asks then reads the newest state, so a slow reader holds nobody
// up and costs no memory per change.
type Watcher struct {
	store   *Store
	pending []types.UID // guarded by store.mu
	ready   chan struct{}
}

// Watch returns a Watcher that starts with a notice for every pod there is.
// Close it when done.
func (s *Store) Watch() *Watcher {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &Watcher{store: s, pending: slices.Clone(s.order), ready: make(chan struct{}, 1)}
	if len(w.pending) > 0 {
		w.ready <- struct{}{}
	}
	s.watchers[w] = struct{}{}
	return w
}

// Next blocks until a pod has changed since its last notice.
func (w *Watcher) Next(ctx context.Context) (types.UID, error) {
	for {
		w.store.mu.Lock()
		if len(w.pending) > 0 {
			uid := w.pending[0]
			w.pending = w.pending[1:]
			w.store.mu.Unlock()
			return uid, nil
		}
		w.store.mu.Unlock()
		select {
		case <-w.ready:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// Changed returns at once which pods have changed since their last notice.
func (w *Watcher) Changed() []types.UID {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	changed := w.pending
	w.pending = nil
	return changed
}

// Close ends the notices.
func (w *Watcher) Close() {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	delete(w.store.watchers, w)
}

func (s *Store) notify(uid types.UID) {
	for w := range s.watchers {
		if !slices.Contains(w.pending, uid) {
			w.pending = append(w.pending, uid)
		}
		select {
		case w.ready <- struct{}{}:
		default:
		}
	}
}
