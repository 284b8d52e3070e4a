package store

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Delete records at the time at that a pod is to be deleted within grace, as an
// API server does. It returns the period that counts, in whole seconds: nothing
// if the pod has ended (DEL-14) and a second if grace is negative (DEL-01). A
// further deletion may only shorten the period (DEL-02); with one that does not,
// and for a pod that is not there, changed is false. The object stays until
// Remove: the one of a force deletion, whose period is nothing, is removed at once
// (DEL-04), any other one when its worker is done (DEL-06).
func (s *Store) Delete(uid types.UID, at time.Time, grace time.Duration) (period time.Duration, changed bool) {
	s.update(uid, func(p *corev1.Pod) bool {
		period = grace.Truncate(time.Second)
		switch {
		case p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
			period = 0
		case grace < 0:
			period = time.Second
		}
		by := at.Add(period)
		if before := p.DeletionGracePeriodSeconds; p.DeletionTimestamp == nil {
			p.Generation++
		} else {
			old := time.Duration(*before) * time.Second
			if period >= old {
				period = old
				return false
			}
			// It counts from the first deletion, but what is over cannot be had again.
			by = p.DeletionTimestamp.Add(period - old)
			if earliest := at.Add(min(period, time.Second)); by.Before(earliest) {
				by = earliest
			}
		}
		seconds, t := int64(period/time.Second), metav1Time(by)
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &t, &seconds
		changed = true
		return true
	})
	return period, changed
}

// Change has change work on the definition of a pod that is not being deleted, and
// returns the pod as it is then. If change returns an error, it must have changed
// nothing.
func (s *Store) Change(uid types.UID, change func(*corev1.Pod) error) (*corev1.Pod, error) {
	var changed *corev1.Pod
	err := fmt.Errorf("pod %q not found", uid)
	s.update(uid, func(p *corev1.Pod) bool {
		if p.DeletionTimestamp != nil {
			err = fmt.Errorf("pod %q is being deleted", p.Name)
			return false
		}
		if err = change(p); err != nil {
			return false
		}
		p.Generation++
		changed = p.DeepCopy()
		return true
	})
	return changed, err
}

// Remove removes a pod. Watchers are given notice of it, and find it gone.
func (s *Store) Remove(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.pods[uid]
	if !ok {
		return
	}
	delete(s.pods, uid)
	delete(s.names, key{p.Namespace, p.Name})
	s.order = slices.DeleteFunc(s.order, func(u types.UID) bool { return u == uid })
	s.nextVersion()
	s.notify(uid)
}
