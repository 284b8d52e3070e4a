package container

import (
	"net/netip"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// addServices adds the variables of Services that have a cluster IP (ENV-09).
// What the pod says itself replaces them.
func addServices(env *envList, services []*corev1.Service) {
	for _, svc := range services {
		ip := svc.Spec.ClusterIP
		addr, err := netip.ParseAddr(ip)
		if err != nil || len(svc.Spec.Ports) == 0 {
			continue // headless, or another name
		}
		prefix := envName(svc.Name)
		env.set(prefix+"_SERVICE_HOST", ip)
		env.set(prefix+"_SERVICE_PORT", strconv.Itoa(int(svc.Spec.Ports[0].Port)))
		for _, p := range svc.Spec.Ports {
			if p.Name != "" {
				env.set(prefix+"_SERVICE_PORT_"+envName(p.Name), strconv.Itoa(int(p.Port)))
			}
		}
		// As Docker's links had them.
		for i, p := range svc.Spec.Ports {
			protocol := string(p.Protocol)
			if protocol == "" {
				protocol = string(corev1.ProtocolTCP)
			}
			port := strconv.Itoa(int(p.Port))
			url := strings.ToLower(protocol) + "://" + netip.AddrPortFrom(addr, uint16(p.Port)).String()
			if i == 0 {
				env.set(prefix+"_PORT", url)
			}
			portPrefix := prefix + "_PORT_" + port + "_" + strings.ToUpper(protocol)
			env.set(portPrefix, url)
			env.set(portPrefix+"_PROTO", strings.ToLower(protocol))
			env.set(portPrefix+"_PORT", port)
			env.set(portPrefix+"_ADDR", ip)
		}
	}
}

func envName(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }
