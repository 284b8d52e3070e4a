package upstream

import (
	"encoding/json"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/wasmpod/wasmpod/runtime/manifest"
)

var indexes = regexp.MustCompile(`\[[^]]*\]`)

type failer interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// comparePods compares defaulted pods.
func comparePods(t failer, want, got *corev1.Pod) {
	t.Helper()
	want, got = want.DeepCopy(), got.DeepCopy()
	want.TypeMeta, got.TypeMeta = metav1.TypeMeta{}, metav1.TypeMeta{}
	if apiequality.Semantic.DeepEqual(want, got) {
		return
	}
	quantities := cmp.Comparer(func(a, b resource.Quantity) bool { return a.Cmp(b) == 0 })
	t.Errorf("defaulted pod (-upstream +ours)\n%s", cmp.Diff(want, got, quantities))
}

// Pods, valid and subtly invalid, get the same defaults and the same errors as
// upstream's, word for word.
func TestGeneratedPods(t *testing.T) {
	valid, messages := 0, map[string]bool{}
	rapid.Check(t, func(t *rapid.T) {
		pod := genPod(t)
		data, err := json.Marshal(pod)
		if err != nil {
			t.Fatalf("%v", err)
		}
		v, err := upstream(data)
		if err != nil {
			t.Fatalf("%v", err)
		}
		if v.decode != nil {
			t.Fatalf("upstream cannot decode %s: %v", data, v.decode)
		}
		defaulted := pod.DeepCopy()
		manifest.DefaultPod(defaulted)
		comparePods(t, v.pod, defaulted)
		objs, problems := ours("pod.json", data)
		if d := cmp.Diff(v.texts(), ourTexts(problems)); d != "" {
			t.Fatalf("problems of %s (-upstream +ours)\n%s", data, d)
		}
		for _, e := range v.errs {
			messages[indexes.ReplaceAllString(e.Field, "")+": "+string(e.Type)] = true
		}
		if objs != nil {
			valid++
			comparePods(t, v.pod, objs.Pods[0])
		}
	})
	t.Logf("%d valid pods, %d different errors", valid, len(messages))
	if valid < 10 || len(messages) < 50 {
		t.Errorf("the generator is too tame: %d valid pods, %d different errors", valid, len(messages))
	}
}
