package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/runtime/lifecycle"
)

func pod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)}}
}

func TestPodsAreCopies(t *testing.T) {
	s := New()
	p := pod("a")
	if err := s.AddPod(p); err != nil {
		t.Fatal(err)
	}
	p.Name = "changed"
	s.Pods()[0].Name = "changed"
	if got := s.Pod(p.UID).Name; got != "a" {
		t.Errorf("stored pod is now called %q", got)
	}
	if err := s.AddPod(pod("a")); !errors.Is(err, ErrAlreadyExists) {
		t.Errorf("second pod of that name: err = %v, want ErrAlreadyExists", err)
	}
	if s.Pod("nobody") != nil {
		t.Error("Pod of an unknown UID is not nil")
	}
}

func TestWatchCoalescesAndNeverBlocksWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		for _, name := range []string{"a", "b"} {
			if err := s.AddPod(pod(name)); err != nil {
				t.Fatal(err)
			}
		}
		w := s.Watch()
		defer w.Close()
		for i := range 1000 {
			s.SetStatus("uid-b", corev1.PodStatus{Message: fmt.Sprint(i)})
		}
		for _, want := range []types.UID{"uid-a", "uid-b"} {
			if got, err := w.Next(t.Context()); err != nil || got != want {
				t.Fatalf("Next = %v, %v, want %v", got, err, want)
			}
		}
		if got := s.Pod("uid-b").Status.Message; got != "999" {
			t.Errorf("status read after the notice: %q, want the newest", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if uid, err := w.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a third notice, of %q (err %v), for changes that were told already", uid, err)
		}
	})
}

func TestDeletionIsInWholeSeconds(t *testing.T) {
	s := New()
	s.AddPod(pod("a"))
	s.Delete("uid-a", time.Unix(70, 999), 30*time.Second)
	p := s.Pod("uid-a")
	if p.DeletionTimestamp.UnixNano() != 100e9 || *p.DeletionGracePeriodSeconds != 30 {
		t.Errorf("deletion = %v, grace %d", p.DeletionTimestamp, *p.DeletionGracePeriodSeconds)
	}
}

func TestEventsEVT19(t *testing.T) {
	s, p := New(), pod("a")
	start := time.Unix(1000, 0)
	record := func(at time.Time, reason, message string) *corev1.Event {
		return s.RecordEvent(p, "kubelet", lifecycle.Event{At: at, Type: "Warning", Reason: reason, Message: message})
	}
	t.Run("EVT-19 repetition raises the count", func(t *testing.T) {
		record(start, "BackOff", "again")
		e := record(start.Add(time.Minute), "BackOff", "again")
		if e.Count != 2 || !e.FirstTimestamp.Time.Equal(start) || !e.LastTimestamp.Time.Equal(start.Add(time.Minute)) {
			t.Errorf("count %d, first %v, last %v", e.Count, e.FirstTimestamp, e.LastTimestamp)
		}
		if n := len(s.Events()); n != 1 {
			t.Errorf("%d events, want 1", n)
		}
	})
	t.Run("EVT-19 TIME-22 more than ten messages of one reason are combined", func(t *testing.T) {
		var last *corev1.Event
		for i := range 12 {
			last = record(start.Add(time.Duration(i)*time.Second), "Failed", fmt.Sprint("error ", i))
		}
		if want := "(combined from similar events): error 11"; last.Message != want {
			t.Errorf("message %q, want %q", last.Message, want)
		}
		later := record(start.Add(time.Hour), "Failed", "error 99")
		if later.Message != "error 99" {
			t.Errorf("an hour later still combined: %q", later.Message)
		}
	})
	t.Run("the oldest are forgotten first", func(t *testing.T) {
		for i := range maxEvents + 5 {
			s.RecordEvent(pod(fmt.Sprint("p", i)), "kubelet", lifecycle.Event{At: start, Reason: "Started"})
		}
		if n := len(s.Events()); n != maxEvents {
			t.Errorf("%d events kept, want %d", n, maxEvents)
		}
		e := record(start.Add(2*time.Hour), "BackOff", "again")
		if e.Count != 1 {
			t.Errorf("a forgotten event was counted on: %d", e.Count)
		}
	})
}
