package podtest

import (
	corev1 "k8s.io/api/core/v1"
)

// Apply starts the pods of another manifest beside those that there are.
func (p *Pods) Apply(objects any) {
	p.t.Helper()
	parsed, err := parse(p.t, objects)
	if err == nil {
		err = p.r.Apply(parsed)
	}
	if err != nil {
		p.t.Fatalf("podtest: %v", err)
	}
}

// Update changes the pod as far as a living pod may be changed, and fails the test
// if it may not: labels and annotations, a shorter deadline, images, and the cpu and
// memory of its containers. It returns before that is done.
func (p *Pod) Update(change func(*corev1.Pod)) {
	p.pods.t.Helper()
	pod := p.Object()
	change(pod)
	if err := p.pods.r.UpdatePod(pod); err != nil {
		p.pods.t.Fatalf("podtest: %v", err)
	}
}

// SetCondition sets a condition of the pod, such as that of a readiness gate.
func (p *Pod) SetCondition(condition corev1.PodConditionType, status corev1.ConditionStatus) {
	p.pods.t.Helper()
	if err := p.pods.r.SetCondition(p.pod.UID, corev1.PodCondition{Type: condition, Status: status}); err != nil {
		p.pods.t.Fatalf("podtest: %v", err)
	}
}

// AddEphemeral adds an ephemeral container to the pod.
func (p *Pod) AddEphemeral(c corev1.EphemeralContainer) {
	p.pods.t.Helper()
	if err := p.pods.r.AddEphemeral(p.pod.UID, c); err != nil {
		p.pods.t.Fatalf("podtest: %v", err)
	}
}

// Remove forgets a pod that has ended, with its logs, so that Apply may make
// another one of its name.
func (p *Pod) Remove() {
	p.pods.t.Helper()
	if err := p.pods.r.RemovePod(p.pod.UID); err != nil {
		p.pods.t.Fatalf("podtest: %v", err)
	}
}
