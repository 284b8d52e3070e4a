package container

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestExpandCommandPROBE23(t *testing.T) {
	c := &corev1.Container{Env: []corev1.EnvVar{
		{Name: "A", Value: "old"}, {Name: "A", Value: "$(B)"},
		{Name: "REF", ValueFrom: &corev1.EnvVarSource{}},
	}}
	got := ExpandCommand(c, []string{"$(A)", "x$(REF)y", "$(NOPE)", "$$(A)"})
	if want := []string{"$(B)", "xy", "$(NOPE)", "$(A)"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
