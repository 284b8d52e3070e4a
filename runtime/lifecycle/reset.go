package lifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

const resettingMessage = "The container is removed because RestartAllContainers in place"

// ruleFor is the first of a container's rules that its exit code matches
// (RST-11).
func ruleFor(c *corev1.Container, exitCode int32) *corev1.ContainerRestartRule {
	for i := range c.RestartPolicyRules {
		if matches(c.RestartPolicyRules[i].ExitCodes, exitCode) {
			return &c.RestartPolicyRules[i]
		}
	}
	return nil
}

// resetsOn reports whether the pod has a rule that restarts all containers.
func resetsOn(pod *corev1.Pod) (yes bool) {
	each(pod, func(c *corev1.Container, _ bool) {
		for i := range c.RestartPolicyRules {
			yes = yes || c.RestartPolicyRules[i].Action == corev1.ContainerRestartRuleActionRestartAllContainers
		}
	})
	return yes
}

// triggers reports whether the end of a container restarts all (RST-20, RST-22).
func (a *applying) triggers(spec *corev1.Container, exitCode int32) bool {
	if a.o.ending() || a.o.Sandbox.State != SandboxReady {
		return false
	}
	if isEphemeral(a.pod, spec.Name) {
		return false
	}
	rule := ruleFor(spec, exitCode)
	return rule != nil && rule.Action == corev1.ContainerRestartRuleActionRestartAllContainers
}

// reset kills what runs, without preStop hooks and with no more than the grace
// that the runtime always gives (RST-20).
func (a *applying) reset() {
	a.o.Resetting = true
	each(a.pod, func(spec *corev1.Container, _ bool) {
		if c := a.o.Containers[spec.Name]; c.State == ContainerRunning {
			c.Stop = &Stop{At: a.at, Message: "killing", NoHook: true}
			a.o.Containers[spec.Name] = c
		}
	})
}

// victim is the container that RestartAllContainers kills next: regular ones before
// init ones, one after the other (RST-20).
func (o *Observed) victim(pod *corev1.Pod) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if o.Containers[list[i].Name].State == ContainerRunning {
				return &list[i]
			}
		}
	}
	return nil
}

// containersReset forgets what has run, so that the pod begins again in the same
// sandbox. Restart counts go on (RST-21). There is no backoff upstream either, but
// its relist keeps a pod that does nothing else to one round a second (TIME-11);
// so after the first time, that is waited here.
func (a *applying) containersReset(f ContainersReset) {
	o := a.o
	if !o.Resetting || f.Attempt != o.Resets || o.declaredRunning(a.pod) {
		return
	}
	o.Resetting = false
	var next time.Time
	if o.Resets > 0 {
		next = a.at.Add(resync)
	}
	o.Resets++
	for name, c := range o.Containers {
		if isEphemeral(a.pod, name) {
			continue
		}
		if c.starting() { // its action has been cancelled
			c.retry(time.Time{})
		}
		if c.State == ContainerEnded {
			c.State, c.NotBefore, c.Again = ContainerAbsent, next, false
			c.Ended = &Termination{ExitCode: exitUnknown, Reason: reasonRestartingAll, Message: resettingMessage}
			c.Waiting = Waiting{Reason: reasonRestartingAll, Message: resettingMessage, At: a.at}
		}
		o.Containers[name] = c
	}
}

// reset reports whether c was removed by RestartAllContainers and has not started
// again.
func (c *Container) reset() bool {
	return c.State == ContainerAbsent && c.Ended != nil && c.Ended.Reason == reasonRestartingAll
}
