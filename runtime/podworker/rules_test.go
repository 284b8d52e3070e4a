package podworker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/image"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/store"
)

func reasons(s *store.Store) (list []string) {
	for _, e := range s.Events() {
		list = append(list, e.Reason+": "+e.Message)
	}
	return list
}

// pulling is an image service that has to pull, which takes 1.5 s and a bit, after
// it has waited for a second.
func pulling(_ context.Context, r image.Request) (image.Image, bool, error) {
	r.OnPull()
	time.Sleep(time.Second)
	r.OnTurn()
	time.Sleep(1500*time.Millisecond + 700*time.Microsecond)
	img, _, err := (&node{}).Ensure(context.Background(), r)
	img.Size = 12345
	return img, true, err
}

func TestImageEvents(t *testing.T) {
	var got []string
	synctest.Test(t, func(t *testing.T) {
		n := &node{scripts: map[string][]script{"a": {{runs: time.Second}}}, ensure: pulling}
		pod := testPod(func(s *corev1.PodSpec) {
			s.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "gone"}, {Name: "lost"}}
		})
		_, s := play(t, n, pod, time.Minute, nil)
		got = reasons(s)
	})
	t.Run("IMG-06 TIME-24 a pull is told of, in thousandths of a second", func(t *testing.T) {
		for _, want := range []string{
			`Pulling: Pulling image "img:1"`,
			`Pulled: Successfully pulled image "img:1" in 1.5s (2.5s including waiting). Image size: 12345 bytes.`,
		} {
			if !slices.Contains(got, want) {
				t.Errorf("no %s in %q", want, got)
			}
		}
	})
	t.Run("IMG-10 EVT-17 a missing pull secret is told of, and the pull is tried", func(t *testing.T) {
		const want = "FailedToRetrieveImagePullSecret: Unable to retrieve some image pull secrets (gone, lost); attempting to pull the image may not succeed."
		if !slices.Contains(got, want) {
			t.Errorf("%q", got)
		}
	})
}

func TestHooksOfRules(t *testing.T) {
	t.Run("HOOK-06 sleep ends with the container", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := &fakeContainer{done: make(chan struct{})}
			tg := target{container: c}
			sleep := func(s int64) *corev1.LifecycleHandler {
				return &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: s}}
			}
			begin := time.Now()
			if _, err := tg.hook(t.Context(), sleep(0), nil); err != nil || time.Since(begin) != 0 {
				t.Errorf("%v after %v", err, time.Since(begin))
			}
			if _, err := tg.hook(t.Context(), sleep(3), nil); err != nil || time.Since(begin) != 3*time.Second {
				t.Errorf("%v after %v", err, time.Since(begin))
			}
			time.AfterFunc(time.Second, func() { close(c.done) })
			if _, err := tg.hook(t.Context(), sleep(30), nil); err == nil || err.Error() != "container terminated before sleep hook finished" {
				t.Error(err)
			}
		})
	})
	t.Run("HOOK-09 exec: the command as it is, and 0 is success", func(t *testing.T) {
		var commands [][]string
		code := int32(0)
		n := &node{exec: func(_ context.Context, _ string, e sandbox.ExecConfig) (int32, error) {
			commands = append(commands, e.Command)
			return code, nil
		}}
		tg := target{container: &fakeContainer{node: n}, spec: &corev1.Container{Name: "a", Env: []corev1.EnvVar{{Name: "V", Value: "v"}}}}
		hook := &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"echo", "$(V)", "$V;"}}}
		if _, err := tg.hook(t.Context(), hook, testPod(func(*corev1.PodSpec) {})); err != nil {
			t.Error(err)
		}
		code = 3
		if _, err := tg.hook(t.Context(), hook, testPod(func(*corev1.PodSpec) {})); err == nil {
			t.Error("exit code 3 is success")
		}
		if len(commands) != 2 || !slices.Equal(commands[0], hook.Exec.Command) {
			t.Errorf("%q", commands)
		}
	})
}

func TestConfigOfRestarts(t *testing.T) {
	t.Run("ENV-08 a changed ConfigMap reaches the next attempt, not the running one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := &node{scripts: map[string][]script{"a": {{runs: 10 * time.Second}}}}
			pod := testPod(func(s *corev1.PodSpec) {
				s.RestartPolicy = corev1.RestartPolicyAlways
				s.Containers[0].Env = []corev1.EnvVar{{Name: "V", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
					LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Key: "k",
				}}}}
			})
			put := func(s *store.Store, value string) {
				cm := &corev1.ConfigMap{Data: map[string]string{"k": value}}
				cm.Namespace, cm.Name = "default", "cm"
				s.PutConfigMap(cm)
			}
			n.before = func(s *store.Store) { put(s, "old") }
			play(t, n, pod, time.Second, func(w *Worker) {
				time.Sleep(5 * time.Second)
				put(w.cfg.Store, "new")
				time.Sleep(6 * time.Second)
			})
			var got []string
			for _, c := range n.sandboxes[0].containers {
				for _, v := range c.config.Env {
					if strings.HasPrefix(v, "V=") {
						got = append(got, v)
					}
				}
			}
			if !slices.Equal(got, []string{"V=old", "V=new"}) {
				t.Errorf("%q", got)
			}
		})
	})
}

func TestNodeAddresses(t *testing.T) {
	for _, host := range []bool{false, true} {
		name := "NET-06 a pod has an IP of its own, the same for every attempt"
		if host {
			name = "NET-05 a pod on the host's network has the host's IP"
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &node{scripts: map[string][]script{"a": {{runs: time.Second}}}, hostNetwork: host}
				pod := testPod(func(s *corev1.PodSpec) { s.RestartPolicy, s.HostNetwork = corev1.RestartPolicyAlways, host })
				want := map[bool]string{false: "127.128.0.1", true: "127.0.0.1"}[host]
				play(t, n, pod, time.Second, func(w *Worker) {
					for range 3 {
						synctest.Wait()
						s := w.cfg.Store.Pod(w.uid).Status
						if s.PodIP != want || len(s.PodIPs) != 1 || s.HostIP != "127.0.0.1" || len(s.HostIPs) != 1 {
							t.Errorf("podIP %q %v, hostIP %q", s.PodIP, s.PodIPs, s.HostIP)
						}
						time.Sleep(time.Minute)
					}
				})
			})
		})
	}
}

func TestEviction(t *testing.T) {
	var final *corev1.Pod
	var told []string
	n := &node{scripts: map[string][]script{"a": {{runs: time.Hour, ignores: true}}}, removeErrs: []error{errors.New("busy")}}
	synctest.Test(t, func(t *testing.T) {
		pod := testPod(func(s *corev1.PodSpec) { s.RestartPolicy = corev1.RestartPolicyAlways })
		var s *store.Store
		final, s = play(t, n, pod, time.Hour, func(w *Worker) {
			time.Sleep(5 * time.Second)
			w.Evict(time.Second, "Pod was too large. ")
		})
		told = reasons(s)
	})
	t.Run("RES-32 EVT-14 COND-10 an evicted pod has failed, and is not restarted", func(t *testing.T) {
		n.expect(t, "0s start a/0", "5s signal a", "7s exit a/0 137", "7s remove sandbox0", "7.1s remove sandbox0", "7.1s unmount")
		if p := final.Status; p.Phase != corev1.PodFailed || p.Reason != "Evicted" || p.Message != "Pod was too large. " || p.Conditions[0].Type != corev1.DisruptionTarget {
			t.Errorf("%+v", p)
		}
		if !slices.Contains(told, "Evicted: Pod was too large. ") {
			t.Errorf("%q", told)
		}
	})
	t.Run("DEL-12 EVT-10 what cannot be removed is tried again", func(t *testing.T) {
		if !slices.Contains(told, "FailedKillPod: error killing pod: busy") {
			t.Errorf("%q", told)
		}
	})
}

// A hook that never returns costs no more than the grace period, and a guest that
// ignores SIGTERM no more than that either.
func TestHookNeverReturns(t *testing.T) {
	t.Run("HOOK-03 HOOK-05 TIME-02 preStop and postStart", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := &node{scripts: map[string][]script{"a": {{runs: 24 * time.Hour, ignores: true}}, "b": {{runs: 24 * time.Hour}}}}
			n.exec = func(ctx context.Context, _ string, _ sandbox.ExecConfig) (int32, error) {
				<-ctx.Done()
				return 0, context.Cause(ctx)
			}
			hang := &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"hang"}}}
			pod := testPod(func(s *corev1.PodSpec) {
				s.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: hang}
				s.Containers = append(s.Containers, corev1.Container{Name: "b", Image: "img:1", Lifecycle: &corev1.Lifecycle{PostStart: hang}})
			})
			play(t, n, pod, 24*time.Hour, func(w *Worker) {
				time.Sleep(10 * time.Hour)
				w.Delete(20 * time.Second)
			})
			n.expect(t, "0s start a/0", "0s start b/0",
				"10h0m0s signal b", "10h0m0s exit b/0 143",
				"10h0m20s signal a", "10h0m22s exit a/0 137", "10h0m22s remove sandbox0", "10h0m22s unmount")
		})
	})
}
