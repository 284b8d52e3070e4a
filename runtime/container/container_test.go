package container

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite golden files")

func ptr[T any](v T) *T { return &v }

// testPod is a pod with one container, changed by edits.
func testPod(edits ...func(*corev1.Pod, *corev1.Container)) (*corev1.Pod, *corev1.Container) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "p", Namespace: "ns", UID: types.UID("uid-1"),
			Labels:      map[string]string{"app": "web", "tier": "a\nb"},
			Annotations: map[string]string{"Example.com/Note": "hi"},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: "robot",
			Containers:         []corev1.Container{{Name: "c", Image: "img:1"}},
		},
	}
	for _, edit := range edits {
		edit(pod, &pod.Spec.Containers[0])
	}
	return pod, &pod.Spec.Containers[0]
}

func testInputs() Inputs {
	return Inputs{
		Image: ImageConfig{
			Entrypoint: []string{"/app.wasm"}, Cmd: []string{"serve"},
			Env: []string{"PATH=/bin", "HOSTNAME=image", "BROKEN"}, WorkingDir: "/srv",
		},
		ImageID: "img@sha256:00", Module: "sha256:11",
		PodIP: "10.0.0.2", HostIP: "192.0.2.1", NodeName: "node-1",
		NodeAllocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"),
			corev1.ResourceEphemeralStorage: resource.MustParse("100G"),
		},
		ConfigMaps: func(ns, name string) (*corev1.ConfigMap, bool) {
			if ns != "ns" || name != "cm" {
				return nil, false
			}
			return &corev1.ConfigMap{
				Data:       map[string]string{"A": "1", "B": "$(A)", "with-dash.x": "d"},
				BinaryData: map[string][]byte{"BIN": {0}},
			}, true
		},
		Secrets: func(ns, name string) (*corev1.Secret, bool) {
			if ns != "ns" || name != "sec" {
				return nil, false
			}
			return &corev1.Secret{Data: map[string][]byte{"A": []byte("secret-a"), "PW": []byte("pw"), "NUL": {'x', 0}}}, true
		},
	}
}

func mustConfig(t *testing.T, pod *corev1.Pod, c *corev1.Container, in Inputs) Config {
	t.Helper()
	cfg, err := NewConfig(pod, c, in)
	if err != nil {
		t.Fatalf("NewConfig: %v", err)
	}
	return cfg
}

func configErrorOf(t *testing.T, pod *corev1.Pod, c *corev1.Container, in Inputs) *ConfigError {
	t.Helper()
	_, err := NewConfig(pod, c, in)
	var ce *ConfigError
	if !errors.As(err, &ce) {
		t.Fatalf("NewConfig gave %v, want a *ConfigError", err)
	}
	return ce
}

func wantConfigError(t *testing.T, pod *corev1.Pod, c *corev1.Container, message string) {
	t.Helper()
	ce := configErrorOf(t, pod, c, testInputs())
	if ce.Reason != "CreateContainerConfigError" || ce.Message != message {
		t.Errorf("got %s %q\nwant CreateContainerConfigError %q", ce.Reason, ce.Message, message)
	}
}

func TestGolden(t *testing.T) {
	data, err := os.ReadFile("testdata/rich.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict(data, &pod); err != nil {
		t.Fatal(err)
	}
	var configs []Config
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			configs = append(configs, mustConfig(t, &pod, &list[i], testInputs()))
		}
	}
	got, err := json.MarshalIndent(configs, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	golden := filepath.Join("testdata", "rich.golden.json")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("blueprint changed (-want +got):\n%s", diff)
	}
}

func TestNewConfigDeterministic(t *testing.T) {
	pod, c := testPod(func(_ *corev1.Pod, c *corev1.Container) {
		c.EnvFrom = []corev1.EnvFromSource{
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}},
		}
	})
	before := pod.DeepCopy()
	first := mustConfig(t, pod, c, testInputs())
	for range 20 {
		if diff := cmp.Diff(first, mustConfig(t, pod, c, testInputs())); diff != "" {
			t.Fatalf("not deterministic:\n%s", diff)
		}
	}
	if diff := cmp.Diff(before, pod); diff != "" {
		t.Errorf("NewConfig changed the pod:\n%s", diff)
	}
}

func TestEnv(t *testing.T) {
	cmRef := func(optional *bool) *corev1.ConfigMapEnvSource {
		return &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Optional: optional}
	}
	secRef := &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}}
	tests := []struct {
		name string
		from []corev1.EnvFromSource
		env  []corev1.EnvVar
		want []string // after HOSTNAME=p, PATH=/bin
	}{
		{"ENV-01 the later source wins, then env", []corev1.EnvFromSource{{ConfigMapRef: cmRef(nil)}},
			[]corev1.EnvVar{{Name: "A", Value: "mine"}}, []string{"A=mine", "B=$(A)", "with-dash.x=d"}},
		{"ENV-02 prefix, values verbatim, no binaryData", []corev1.EnvFromSource{{Prefix: "P_", ConfigMapRef: cmRef(nil)}},
			nil, []string{"P_A=1", "P_B=$(A)", "P_with-dash.x=d"}},
		{"ENV-03 earlier entries are seen, later ones are not", nil,
			[]corev1.EnvVar{{Name: "X", Value: "$(Y)"}, {Name: "Y", Value: "y"}, {Name: "Z", Value: "$(Y)$(X)"}},
			[]string{"X=$(Y)", "Y=y", "Z=y$(Y)"}},
		{"ENV-03 valueFrom is not expanded", nil,
			[]corev1.EnvVar{{Name: "A", Value: "x"}, {Name: "Q", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Key: "B"}}}}, []string{"A=x", "Q=$(A)"}},
		{"ENV-03 envFrom is seen by env", []corev1.EnvFromSource{{ConfigMapRef: cmRef(nil), Prefix: "F"}},
			[]corev1.EnvVar{{Name: "G", Value: "<$(FA)>"}}, []string{"FA=1", "FB=$(A)", "Fwith-dash.x=d", "G=<1>"}},
		{"ENV-04 shell text passes", nil,
			[]corev1.EnvVar{{Name: "S", Value: "$(date) $((i+1)) $$(S) $x $"}}, []string{"S=$(date) $((i+1)) $(S) $x $"}},
		{"ENV-05 optional object missing: absent", []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Optional: ptr(true)}}},
			[]corev1.EnvVar{{Name: "O", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Key: "k", Optional: ptr(true)}}}}, nil},
		{"ENV-05 optional key missing: absent", nil,
			[]corev1.EnvVar{{Name: "O", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Key: "k", Optional: ptr(true)}}}}, nil},
		{"ENV-06 fieldRef", nil, []corev1.EnvVar{{Name: "N", ValueFrom: &corev1.EnvVarSource{
			FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.name"}}}}, []string{"N=p"}},
		{"ENV-07 the last duplicate wins, both can be referred to", nil,
			[]corev1.EnvVar{{Name: "D", Value: "1"}, {Name: "E", Value: "$(D)"}, {Name: "D", Value: "2"}, {Name: "F", Value: "$(D)"}},
			[]string{"D=2", "E=1", "F=2"}},
		{"ENV-01 a secret after a configMap wins", []corev1.EnvFromSource{{ConfigMapRef: cmRef(nil)}, {Prefix: "", SecretRef: secRef}},
			[]corev1.EnvVar{{Name: "NUL", Value: "gone"}}, []string{"A=secret-a", "B=$(A)", "with-dash.x=d", "NUL=gone", "PW=pw"}},
		{"ENV-01 an empty value is a value", nil, []corev1.EnvVar{{Name: "EMPTY"}}, []string{"EMPTY="}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pod, c := testPod(func(_ *corev1.Pod, c *corev1.Container) { c.EnvFrom, c.Env = tt.from, tt.env })
			got := mustConfig(t, pod, c, testInputs()).Env
			want := append([]string{"HOSTNAME=p", "PATH=/bin"}, tt.want...)
			want[0] = "HOSTNAME=image" // ENV-10: the image's value replaces the runtime's, in its place
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("environment (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("ENV-10 HOSTNAME first, then the image, then the pod by name", func(t *testing.T) {
		pod, c := testPod(func(_ *corev1.Pod, c *corev1.Container) {
			c.Env = []corev1.EnvVar{{Name: "NEW", Value: "n"}, {Name: "PATH", Value: "/x:$(PATH)"}}
		})
		in := testInputs()
		in.Image.Env = []string{"PATH=/bin", "I=i"}
		got := mustConfig(t, pod, c, in).Env
		// $(PATH) stays: the pod's variables are expanded before they meet the image's.
		if diff := cmp.Diff([]string{"HOSTNAME=p", "PATH=/x:$(PATH)", "I=i", "NEW=n"}, got); diff != "" {
			t.Errorf("environment (-want +got):\n%s", diff)
		}
	})
}

func TestEnvErrors(t *testing.T) {
	ref := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	env := func(from *corev1.EnvVarSource) []corev1.EnvVar {
		return []corev1.EnvVar{{Name: "X", ValueFrom: from}}
	}
	tests := []struct {
		name, want string
		from       []corev1.EnvFromSource
		env        []corev1.EnvVar
	}{
		{"ENV-05 configMap", `configmap "x" not found`, nil, env(&corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref("x"), Key: "k"}})},
		{"ENV-05 configMap key", `couldn't find key k in ConfigMap ns/cm`, nil, env(&corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref("cm"), Key: "k"}})},
		{"ENV-05 binaryData is not looked at", `couldn't find key BIN in ConfigMap ns/cm`, nil, env(&corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref("cm"), Key: "BIN"}})},
		{"ENV-05 secret", `secret "x" not found`, nil, env(&corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref("x"), Key: "k"}})},
		{"ENV-05 secret key", `couldn't find key k in Secret ns/sec`, nil, env(&corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref("sec"), Key: "k"}})},
		{"ENV-05 envFrom configMap", `configmap "x" not found`, []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("x")}}}, nil},
		{"ENV-05 envFrom secret, optional false", `secret "x" not found`, []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref("x"), Optional: ptr(false)}}}, nil},
		{"DAPI-03", `field label not supported: spec.foo`, nil, env(&corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.foo"}})},
		{"DAPI-05 resource", `unsupported container resource : limits.gpu`, nil, env(&corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.gpu"}})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pod, c := testPod(func(_ *corev1.Pod, c *corev1.Container) { c.EnvFrom, c.Env = tt.from, tt.env })
			wantConfigError(t, pod, c, tt.want)
		})
	}
	t.Run("a NUL byte would cut the value short", func(t *testing.T) {
		pod, c := testPod(func(_ *corev1.Pod, c *corev1.Container) {
			c.Env = env(&corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref("sec"), Key: "NUL"}})
		})
		if ce := configErrorOf(t, pod, c, testInputs()); ce.Message != "environment variable X contains a NUL byte" || ce.Reason != "CreateContainerError" {
			t.Errorf("got %+v", ce)
		}
	})
	t.Run("references that double each other end soon", func(t *testing.T) {
		pod, c := testPod(func(_ *corev1.Pod, c *corev1.Container) {
			c.Env = []corev1.EnvVar{{Name: "V0", Value: "0123456789"}}
			for i := range 100 {
				c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprint("V", i+1), Value: fmt.Sprintf("$(V%d)$(V%d)", i, i)})
			}
		})
		if ce := configErrorOf(t, pod, c, testInputs()); !strings.HasPrefix(ce.Message, "argument list too long") {
			t.Errorf("got %+v", ce)
		}
	})
	t.Run("so do arguments", func(t *testing.T) {
		pod, c := testPod(func(_ *corev1.Pod, c *corev1.Container) {
			c.Env = []corev1.EnvVar{{Name: "V", Value: strings.Repeat("x", 1<<20)}}
			c.Args = slices.Repeat([]string{"$(V)"}, 1000)
		})
		if ce := configErrorOf(t, pod, c, testInputs()); !strings.HasPrefix(ce.Message, "argument list too long") {
			t.Errorf("got %+v", ce)
		}
	})
}

func TestArgs(t *testing.T) {
	tests := []struct {
		name                              string
		entrypoint, cmd, command, args, w []string
	}{
		{"ENV-11 neither", []string{"e"}, []string{"c"}, nil, nil, []string{"e", "c"}},
		{"ENV-11 args only", []string{"e"}, []string{"c"}, nil, []string{"a"}, []string{"e", "a"}},
		{"ENV-11 command drops the image's", []string{"e"}, []string{"c"}, []string{"x"}, nil, []string{"x"}},
		{"ENV-11 both", []string{"e"}, []string{"c"}, []string{"x"}, []string{"a"}, []string{"x", "a"}},
		{"ENV-12 expanded from the pod's environment", []string{"$(V)"}, nil, nil, []string{"$(V)", "$$(V)", "$(PATH)", ""}, []string{"$(V)", "v", "$(V)", "$(PATH)", ""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pod, c := testPod(func(_ *corev1.Pod, c *corev1.Container) {
				c.Command, c.Args = tt.command, tt.args
				c.Env = []corev1.EnvVar{{Name: "V", Value: "v"}}
			})
			in := testInputs()
			in.Image.Entrypoint, in.Image.Cmd = tt.entrypoint, tt.cmd
			if diff := cmp.Diff(tt.w, mustConfig(t, pod, c, in).Args); diff != "" {
				t.Errorf("args (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("ENV-11 nothing at all", func(t *testing.T) {
		pod, c := testPod()
		ce := configErrorOf(t, pod, c, Inputs{})
		if ce.Reason != "CreateContainerError" || ce.Message != "no command specified" {
			t.Errorf("got %+v", ce)
		}
	})
	t.Run("the image's slices are not written to", func(t *testing.T) {
		pod, c := testPod(func(_ *corev1.Pod, c *corev1.Container) { c.Args = []string{"a"} })
		backing := []string{"e", "keep"}
		in := Inputs{Image: ImageConfig{Entrypoint: backing[:1]}}
		mustConfig(t, pod, c, in)
		if backing[1] != "keep" {
			t.Errorf("backing array changed: %q", backing)
		}
	})
}

func TestWorkingDir(t *testing.T) {
	for _, tt := range []struct{ name, spec, image, want string }{
		{"ENV-13 overrides the image", "/w", "/i", "/w"},
		{"ENV-13 image", "", "/i", "/i"},
		{"ENV-13 default", "", "", "/"},
		{"ENV-13 not expanded, cleaned, absolute", "$(V)/../x/", "", "/x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod, c := testPod(func(_ *corev1.Pod, c *corev1.Container) { c.WorkingDir = tt.spec })
			in := testInputs()
			in.Image.WorkingDir = tt.image
			if got := mustConfig(t, pod, c, in).WorkingDir; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTerminationMessagePath(t *testing.T) {
	for _, tt := range []struct{ name, path, want string }{
		{"TMSG-01 given", "/tmp/log", "/tmp/log"},
		{"TMSG-06 default", "", "/dev/termination-log"},
		{"TMSG-01 made absolute", "x/../log", "/log"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod, c := testPod(func(_ *corev1.Pod, c *corev1.Container) { c.TerminationMessagePath = tt.path })
			cfg := mustConfig(t, pod, c, testInputs())
			if cfg.TerminationMessagePath != tt.want || cfg.TerminationMessagePolicy != "File" {
				t.Errorf("got %q %q, want %q", cfg.TerminationMessagePath, cfg.TerminationMessagePolicy, tt.want)
			}
		})
	}
}
