package podtest

import (
	"strconv"
)

// Forward listens at a port of the host for a TCP port of the pod, as kubectl
// port-forward does, until the test ends, and returns the address: for clients that
// know nothing of podtest, such as a browser. The pod must be Running. It is for real
// time: a bubble's clock does not wait for sockets of the host. HTTPClient and Dial
// need no socket.
func (p *Pod) Forward(port int) (address string) {
	t := p.pods.t
	t.Helper()
	f, err := p.pods.r.OpenForward(p.pod.UID, nil, []string{":" + strconv.Itoa(port)}, nil)
	if err != nil {
		t.Fatalf("podtest: pod %q: %v", p.pod.Name, err)
	}
	t.Cleanup(f.Close) // before the pods are ended
	return f.Addrs()[0].String()
}
