package container

import corev1 "k8s.io/api/core/v1"

// maxProbeArg bounds one expanded argument: references can multiply.
const maxProbeArg = 1 << 20

// ExpandCommand resolves the references in the command of an exec probe. Only the
// values that the container's own env spells out are known: one that comes from
// elsewhere is empty, and other names stay as they are (PROBE-23). An argument
// that would be longer than 1 MiB stays as it is too.
func ExpandCommand(c *corev1.Container, command []string) []string {
	lookup := func(name string) (string, bool) {
		for i := len(c.Env) - 1; i >= 0; i-- { // the last one wins
			if c.Env[i].Name == name {
				return c.Env[i].Value, true
			}
		}
		return "", false
	}
	expanded := make([]string, len(command))
	for i, arg := range command {
		var ok bool
		if expanded[i], ok = expand(arg, lookup, maxProbeArg); !ok {
			expanded[i] = arg
		}
	}
	return expanded
}
