package container

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestServiceVariables(t *testing.T) {
	service := func(name, ip string, ports ...corev1.ServicePort) *corev1.Service {
		s := &corev1.Service{}
		s.Name, s.Spec.ClusterIP, s.Spec.Ports = name, ip, ports
		return s
	}
	pod, c := testPod(func(_ *corev1.Pod, c *corev1.Container) {
		c.Env = []corev1.EnvVar{{Name: "MY_DB_SERVICE_PORT", Value: "own"}}
	})
	in := testInputs()
	in.Services = []*corev1.Service{
		service("my-db", "10.0.0.7", corev1.ServicePort{Name: "sql", Port: 5432}, corev1.ServicePort{Port: 53, Protocol: corev1.ProtocolUDP}),
		service("headless", corev1.ClusterIPNone, corev1.ServicePort{Port: 80}),
	}
	list := func() []string {
		cfg, err := NewConfig(pod, c, in)
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(slices.Clone(cfg.Env), func(e string) bool { return !strings.HasPrefix(e, "MY_DB") && !strings.HasPrefix(e, "HEADLESS") })
	}
	t.Run("ENV-09 a Service's address and ports, unless the pod sets them itself", func(t *testing.T) {
		want := []string{
			"MY_DB_SERVICE_HOST=10.0.0.7", "MY_DB_SERVICE_PORT=own", "MY_DB_SERVICE_PORT_SQL=5432", "MY_DB_PORT=tcp://10.0.0.7:5432",
			"MY_DB_PORT_5432_TCP=tcp://10.0.0.7:5432", "MY_DB_PORT_5432_TCP_PROTO=tcp", "MY_DB_PORT_5432_TCP_PORT=5432", "MY_DB_PORT_5432_TCP_ADDR=10.0.0.7",
			"MY_DB_PORT_53_UDP=udp://10.0.0.7:53", "MY_DB_PORT_53_UDP_PROTO=udp", "MY_DB_PORT_53_UDP_PORT=53", "MY_DB_PORT_53_UDP_ADDR=10.0.0.7",
		}
		got := list()
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
	t.Run("ENV-09 none without enableServiceLinks", func(t *testing.T) {
		pod.Spec.EnableServiceLinks = ptr(false)
		if got := list(); !slices.Equal(got, []string{"MY_DB_SERVICE_PORT=own"}) {
			t.Errorf("%q", got)
		}
	})
}

func TestNoServiceAccountTokenSEC08(t *testing.T) {
	pod, c := testPod()
	cfg, err := NewConfig(pod, c, testInputs())
	if err != nil || len(cfg.Mounts) != 0 {
		t.Errorf("%+v, %v", cfg.Mounts, err)
	}
}
