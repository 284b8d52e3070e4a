package runtime

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Pods that have their IPs from CNI plugins meet in memory, and are reached from
// the host through the kernel's network namespace, by which they also leave.
func TestCNI(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := os.Stat("/usr/lib/cni/ptp"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no ptp plugin (apt-get install containernetworking-plugins)")
		}
		t.Skip("there is no ptp plugin (apt-get install containernetworking-plugins)")
	}
	dir := t.TempDir()
	conf := `{"cniVersion": "1.0.0", "name": "wasmpod-test-runtime", "plugins": [{"type": "ptp", "ipMasq": false,
		"ipam": {"type": "host-local", "dataDir": "` + filepath.Join(dir, "ipam") + `", "ranges": [[{"subnet": "198.51.100.16/28"}]]}}]}`
	if err := os.WriteFile(filepath.Join(dir, "10-test.conflist"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	const gateway = "198.51.100.17" // the host's end
	n := newTestNetwork(t, Config{CNIConfDir: dir, CNIBinDirs: []string{"/usr/lib/cni"}, Egress: gateway}, "")
	for _, name := range []string{"a", "client"} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("cni-" + name)}}
		if err := n.add(pod); errors.Is(err, unix.EPERM) {
			t.Skipf("this host does not let root make network namespaces: %v", err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	ip := n.pods["a"].IP()
	if !netip.MustParsePrefix("198.51.100.16/28").Contains(ip) {
		t.Fatalf("NET-06 the pod IP is %s", ip)
	}
	n.serve("a", 8080)
	to := netip.AddrPortFrom(ip, 8080).String()
	for name, dial := range map[string]dialFunc{"the host": new(net.Dialer).DialContext, "a pod": n.pods["client"].DialContext} {
		for _, network := range []string{"tcp", "udp"} {
			if who, err := ask(t, dial, network, to); who != "a" || err != nil {
				t.Errorf("from %s by %s: %q, %v", name, network, who, err)
			}
		}
	}
	l, err := net.Listen("tcp", gateway+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		peer <- host
		c.Write([]byte("host\n"))
		c.Close()
	}()
	who, err := ask(t, n.pods["a"].DialContext, "tcp", l.Addr().String())
	if err != nil || who != "host" {
		t.Fatalf("to the outside: %q, %v", who, err)
	}
	if got := <-peer; got != ip.String() {
		t.Errorf("the outside sees %s, want the pod IP %s", got, ip)
	}
}
