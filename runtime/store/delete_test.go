package store

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestDelete(t *testing.T) {
	start := time.Unix(1000, 0)
	type call struct {
		after, grace time.Duration
		period       time.Duration // what counts
		changed      bool
		by           time.Duration // deletionTimestamp, after start
	}
	for _, tt := range []struct {
		name  string
		phase corev1.PodPhase
		calls []call
	}{
		{"DEL-01 the period asked for", corev1.PodRunning, []call{{0, 30 * time.Second, 30 * time.Second, true, 30 * time.Second}}},
		{"DEL-01 a negative period is a second", corev1.PodRunning, []call{{0, -1, time.Second, true, time.Second}}},
		{"DEL-14 nothing for a pod that has succeeded", corev1.PodSucceeded, []call{{0, 30 * time.Second, 0, true, 0}}},
		{"DEL-14 nothing for a pod that has failed", corev1.PodFailed, []call{{0, 30 * time.Second, 0, true, 0}}},
		{"DEL-02 a second one shortens, from the first on", corev1.PodRunning, []call{
			{0, 30 * time.Second, 30 * time.Second, true, 30 * time.Second},
			{5 * time.Second, 10 * time.Second, 10 * time.Second, true, 10 * time.Second},
		}},
		{"DEL-02 what is over cannot be had again", corev1.PodRunning, []call{
			{0, 30 * time.Second, 30 * time.Second, true, 30 * time.Second},
			{20 * time.Second, 10 * time.Second, 10 * time.Second, true, 21 * time.Second},
		}},
		{"DEL-02 a longer one is no news", corev1.PodRunning, []call{
			{0, 30 * time.Second, 30 * time.Second, true, 30 * time.Second},
			{0, 40 * time.Second, 30 * time.Second, false, 30 * time.Second},
			{0, 30 * time.Second, 30 * time.Second, false, 30 * time.Second},
		}},
		{"DEL-04 by force, at once", corev1.PodRunning, []call{
			{0, 30 * time.Second, 30 * time.Second, true, 30 * time.Second},
			{7 * time.Second, 0, 0, true, 7 * time.Second},
			{8 * time.Second, 0, 0, false, 7 * time.Second},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, p := New(), pod("a")
			p.Generation, p.Status.Phase = 1, tt.phase
			if err := s.AddPod(p); err != nil {
				t.Fatal(err)
			}
			for i, c := range tt.calls {
				period, changed := s.Delete(p.UID, start.Add(c.after), c.grace)
				if period != c.period || changed != c.changed {
					t.Errorf("call %d: %v, changed %v; want %v, %v", i, period, changed, c.period, c.changed)
				}
				got := s.Pod(p.UID)
				if by := got.DeletionTimestamp.Sub(start); by != c.by {
					t.Errorf("call %d: deletionTimestamp after %v, want %v", i, by, c.by)
				}
				if *got.DeletionGracePeriodSeconds != int64(c.period/time.Second) || got.Generation != 2 {
					t.Errorf("call %d: deletionGracePeriodSeconds %d, generation %d", i, *got.DeletionGracePeriodSeconds, got.Generation)
				}
			}
		})
	}
	if _, changed := New().Delete("nobody", start, 0); changed {
		t.Error("a pod that is not there was deleted")
	}
}

func TestRemove(t *testing.T) {
	s, p := New(), pod("a")
	s.AddPod(p)
	s.Remove(p.UID)
	s.Remove(p.UID)
	if s.Pod(p.UID) != nil || len(s.Pods()) != 0 {
		t.Error("the pod is still there")
	}
	if err := s.AddPod(p); err != nil {
		t.Errorf("DEL-13: a pod of the same name: %v", err)
	}
}

func TestChange(t *testing.T) {
	s, p := New(), pod("a")
	p.Generation = 1
	s.AddPod(p)
	refused := errors.New("refused")
	if _, err := s.Change(p.UID, func(*corev1.Pod) error { return refused }); !errors.Is(err, refused) || s.Pod(p.UID).Generation != 1 {
		t.Errorf("err = %v, generation %d", err, s.Pod(p.UID).Generation)
	}
	got, err := s.Change(p.UID, func(p *corev1.Pod) error { p.Spec.NodeName = "n"; return nil })
	if err != nil || got.Generation != 2 || s.Pod(p.UID).Spec.NodeName != "n" {
		t.Errorf("COND-12: %v, generation %d", err, got.Generation)
	}
	s.Delete(p.UID, time.Unix(0, 0), time.Second)
	if _, err := s.Change(p.UID, func(*corev1.Pod) error { return nil }); err == nil {
		t.Error("a pod that is being deleted was changed")
	}
}
