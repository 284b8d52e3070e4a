package store

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/runtime/lifecycle"
)

// maxEvents bounds the memory that events take: the oldest are forgotten first.
const maxEvents = 10_000

// Aggregation of events that differ only in their message (TIME-22): past
// similarLimit distinct messages within similarWindow, further ones are
// combined into one.
const (
	similarLimit  = 10
	similarWindow = 10 * time.Minute
)

type eventKey struct {
	pod                              types.UID
	kind, reason, message, fieldPath string
}

type similarKey struct {
	pod                     types.UID
	kind, reason, fieldPath string
}

type eventLog struct {
	list    []*corev1.Event
	index   map[eventKey]int // into list, offset by dropped
	dropped int
	similar map[similarKey]*similar
	seq     int64
}

type similar struct {
	messages map[string]struct{}
	last     time.Time
}

// RecordEvent adds an event about a pod. A repetition raises the count of the
// one that is there; many messages of one reason are combined (EVT-19). It
// returns the event as recorded.
func (s *Store) RecordEvent(pod *corev1.Pod, component string, e lifecycle.Event) *corev1.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.events
	message := l.combine(pod.UID, e)
	k := eventKey{pod.UID, e.Type, e.Reason, message, e.FieldPath}
	if i, ok := l.index[k]; ok {
		old := l.list[i-l.dropped]
		old.Count++
		old.LastTimestamp = metav1Time(e.At)
		old.ResourceVersion = s.nextVersion()
		return old.DeepCopy()
	}
	l.seq++
	ev := &corev1.Event{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace:         pod.Namespace,
			Name:              fmt.Sprintf("%s.%016x", pod.Name, e.At.UnixNano()+l.seq),
			CreationTimestamp: metav1Time(e.At),
			ResourceVersion:   s.nextVersion(),
		},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod",
			Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
			ResourceVersion: pod.ResourceVersion, FieldPath: e.FieldPath,
		},
		Type: e.Type, Reason: e.Reason, Message: message, Count: 1,
		FirstTimestamp: metav1Time(e.At), LastTimestamp: metav1Time(e.At),
		Source:              corev1.EventSource{Component: component},
		ReportingController: component,
	}
	if len(l.list) == maxEvents {
		l.forgetOldest()
	}
	l.index[k] = l.dropped + len(l.list)
	l.list = append(l.list, ev)
	return ev.DeepCopy()
}

// combine returns the message to record: e's own, or the combined one.
func (l *eventLog) combine(pod types.UID, e lifecycle.Event) string {
	k := similarKey{pod, e.Type, e.Reason, e.FieldPath}
	s := l.similar[k]
	if s == nil || e.At.Sub(s.last) > similarWindow {
		s = &similar{messages: make(map[string]struct{})}
		l.similar[k] = s
	}
	s.last = e.At
	if _, known := s.messages[e.Message]; !known && len(s.messages) >= similarLimit {
		return "(combined from similar events): " + e.Message
	}
	s.messages[e.Message] = struct{}{}
	return e.Message
}

func (l *eventLog) forgetOldest() {
	old := l.list[0]
	uid, path := old.InvolvedObject.UID, old.InvolvedObject.FieldPath
	delete(l.index, eventKey{uid, old.Type, old.Reason, old.Message, path})
	delete(l.similar, similarKey{uid, old.Type, old.Reason, path})
	l.list[0] = nil
	l.list = l.list[1:]
	l.dropped++
}

// Events returns what was recorded, oldest first.
func (s *Store) Events() []*corev1.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := make([]*corev1.Event, 0, len(s.events.list))
	for _, e := range s.events.list {
		events = append(events, e.DeepCopy())
	}
	return events
}

// metav1Time rounds like the API does when it serialises: to whole seconds.
func metav1Time(t time.Time) metav1.Time { return metav1.NewTime(t).Rfc3339Copy() }
