package container

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestFieldRef(t *testing.T) {
	for _, tt := range []struct{ id, path, want string }{
		{"DAPI-01", "metadata.name", "p"},
		{"DAPI-01", "metadata.namespace", "ns"},
		{"DAPI-01", "metadata.uid", "uid-1"},
		{"DAPI-01", "metadata.labels['app']", "web"},
		{"DAPI-01", "metadata.labels['none']", ""},
		{"DAPI-01", "metadata.annotations['Example.com/Note']", "hi"},
		{"DAPI-01", "spec.nodeName", "node-1"},
		{"DAPI-01", "spec.serviceAccountName", "robot"},
		{"DAPI-01", "status.hostIP", "192.0.2.1"},
		{"DAPI-01", "status.hostIPs", "192.0.2.1"},
		{"DAPI-01", "status.podIP", "10.0.0.2"},
		{"DAPI-01", "status.podIPs", "10.0.0.2"},
		{"DAPI-02", "metadata.labels", "app=\"web\"\ntier=\"a\\nb\""},
		{"DAPI-02", "metadata.annotations", `Example.com/Note="hi"`},
	} {
		t.Run(tt.id+" "+tt.path, func(t *testing.T) {
			pod, c := testPod(func(_ *corev1.Pod, c *corev1.Container) {
				c.Env = []corev1.EnvVar{{Name: "X", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: tt.path}}}}
			})
			env := mustConfig(t, pod, c, testInputs()).Env
			if got := env[len(env)-1]; got != "X="+tt.want {
				t.Errorf("got %q, want %q", got, "X="+tt.want)
			}
		})
	}
	for _, tt := range []struct{ id, path, want string }{
		{"DAPI-03", "spec.foo", "field label not supported: spec.foo"},
		{"DAPI-03", "spec.restartPolicy", "unsupported fieldPath: spec.restartPolicy"},
		{"DAPI-03", "metadata.name['x']", "field label does not support subscript: metadata.name['x']"},
		{"DAPI-03", "metadata.labels['a b']", "invalid key subscript in metadata.labels['a b']: name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"},
	} {
		t.Run(tt.id+" "+tt.path, func(t *testing.T) {
			pod, c := testPod(func(_ *corev1.Pod, c *corev1.Container) {
				c.Env = []corev1.EnvVar{{Name: "X", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: tt.path}}}}
			})
			wantConfigError(t, pod, c, tt.want)
		})
	}
	t.Run("DAPI-04 hostNetwork: podIP is the host's", func(t *testing.T) {
		pod, c := testPod(func(pod *corev1.Pod, c *corev1.Container) {
			pod.Spec.HostNetwork = true
			c.Env = []corev1.EnvVar{{Name: "X", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}}}
		})
		env := mustConfig(t, pod, c, testInputs()).Env
		if got := env[len(env)-1]; got != "X=192.0.2.1" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("DAPI-02 a volume knows only metadata", func(t *testing.T) {
		pod, _ := testPod()
		if _, err := FieldValue(pod, "spec.nodeName"); err == nil || err.Error() != "unsupported fieldPath: spec.nodeName" {
			t.Errorf("got %v", err)
		}
	})
}

func TestResourceFieldRef(t *testing.T) {
	q := resource.MustParse
	limits := corev1.ResourceList{"cpu": q("250m"), "memory": q("64Mi"), "ephemeral-storage": q("1Gi"), "hugepages-2Mi": q("4Mi")}
	requests := corev1.ResourceList{"cpu": q("100m"), "memory": q("1M")}
	for _, tt := range []struct {
		id, resource, divisor string
		limits, requests, pod corev1.ResourceList
		want                  string
	}{
		{"DAPI-05 cpu rounds up", "limits.cpu", "", limits, nil, nil, "1"},
		{"DAPI-06 cpu in thousandths", "limits.cpu", "1m", limits, nil, nil, "250"},
		{"DAPI-05 memory", "limits.memory", "", limits, nil, nil, "67108864"},
		{"DAPI-06 memory in Mi", "limits.memory", "1Mi", limits, nil, nil, "64"},
		{"DAPI-06 memory in Gi rounds up", "limits.memory", "1Gi", limits, nil, nil, "1"},
		{"DAPI-06 memory in k", "requests.memory", "1k", nil, requests, nil, "1000"},
		{"DAPI-05 ephemeral storage", "limits.ephemeral-storage", "1Gi", limits, nil, nil, "1"},
		{"DAPI-05 hugepages", "limits.hugepages-2Mi", "1Mi", limits, nil, nil, "4"},
		{"DAPI-05 hugepages have no fallback", "limits.hugepages-2Mi", "1Mi", nil, nil, nil, "0"},
		{"DAPI-05 unset limit: the node's", "limits.cpu", "", nil, nil, nil, "4"},
		{"DAPI-05 unset limit: the pod's first", "limits.memory", "1Mi", nil, nil, corev1.ResourceList{"memory": q("32Mi")}, "32"},
		{"DAPI-05 pod limit of another resource", "limits.cpu", "", nil, nil, corev1.ResourceList{"memory": q("32Mi")}, "4"},
		{"DAPI-05 unset request", "requests.memory", "", nil, nil, nil, "0"},
		{"DAPI-05 exact beyond a float", "limits.memory", "", corev1.ResourceList{"memory": q("9007199254740993")}, nil, nil, "9007199254740993"},
	} {
		t.Run(tt.id, func(t *testing.T) {
			pod, c := testPod(func(pod *corev1.Pod, c *corev1.Container) {
				c.Resources = corev1.ResourceRequirements{Limits: tt.limits, Requests: tt.requests}
				if tt.pod != nil {
					pod.Spec.Resources = &corev1.ResourceRequirements{Limits: tt.pod}
				}
			})
			ref := &corev1.ResourceFieldSelector{Resource: tt.resource}
			if tt.divisor != "" {
				ref.Divisor = q(tt.divisor)
			}
			got, err := ResourceValue(pod, c, ref, testInputs().NodeAllocatable)
			if err != nil || got != tt.want {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
			ref.ContainerName = "c"
			if got, err := ResourceValue(pod, nil, ref, testInputs().NodeAllocatable); err != nil || got != tt.want {
				t.Errorf("by name: got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	pod, c := testPod()
	for _, tt := range []struct {
		ref  corev1.ResourceFieldSelector
		want string
	}{
		{corev1.ResourceFieldSelector{ContainerName: "nope", Resource: "limits.cpu"}, "container nope not found"},
		{corev1.ResourceFieldSelector{Resource: "cpu"}, "unsupported container resource : cpu"},
		{corev1.ResourceFieldSelector{Resource: "usage.cpu"}, "unsupported container resource : usage.cpu"},
		{corev1.ResourceFieldSelector{Resource: "limits.cpu", Divisor: q("-1")}, "resourceFieldRef limits.cpu: invalid divisor -1"},
	} {
		if _, err := ResourceValue(pod, c, &tt.ref, nil); err == nil || err.Error() != tt.want {
			t.Errorf("DAPI-05: got %v, want %q", err, tt.want)
		}
	}
}
