package clients

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

var (
	run     = flag.Bool("clients", false, "run the clients")
	period  = flag.Duration("for", 30*time.Second, "how long each of them drives each guest")
	wasmpod = flag.String("wasmpod", "../../bin/wasmpod", "the binary; its images lie in the folder beside it")
)

const examples = "../../wasm-examples"

// Where things listen: at loopback addresses and ports that no other run of these
// tests uses at the same time, and below those that the kernel gives away.
var (
	hostIP   = own(77) // host ports of pods
	nativeIP = own(78)
	nginxAt  = own(79) + ":18080"
	proxyAt  = "127.0.0.1:" + ownPort(0) // the node's address, for a pod on the host's network
	cPort    = ownPort(1)                // at all addresses
)

func own(second int) string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", second, pid>>8&0xff, pid&0xff)
}

func ownPort(i int) string { return strconv.Itoa(20_000 + os.Getpid()%4000*2 + i) }

// tools are the clients, and the Debian packages that have them.
var tools = map[string]string{"curl": "curl", "wrk": "wrk", "redis-benchmark": "redis-tools", "nginx": "nginx-light"}

const pods = `apiVersion: v1
kind: Pod
metadata: {name: go}
spec:
  containers:
  - {name: main, image: httpecho, imagePullPolicy: IfNotPresent, args: [server, "--listen=:8080"], ports: [{containerPort: 8080, hostPort: 18081, hostIP: %[1]s}]}
---
apiVersion: v1
kind: Pod
metadata: {name: redis}
spec:
  containers:
  - {name: main, image: respserver, imagePullPolicy: IfNotPresent, ports: [{containerPort: 6379, hostPort: 16379, hostIP: %[1]s}]}
---
apiVersion: v1
kind: Pod
metadata: {name: proxy}
spec:
  hostNetwork: true # the upstream is on the host's loopback, which other pods do not reach
  containers:
  - {name: main, image: ambassador, imagePullPolicy: IfNotPresent, args: ["--listen=:%[3]s", "--upstream=http://%[2]s"], ports: [{containerPort: %[3]s}]}
`

const cPod = `---
apiVersion: v1
kind: Pod
metadata: {name: c}
spec:
  containers:
  - {name: main, image: httpecho-c, imagePullPolicy: IfNotPresent, args: [serve, "8080"], ports: [{containerPort: 8080, hostPort: 18082, hostIP: %[1]s}]}
`

func TestClients(t *testing.T) {
	if !*run {
		t.Skip("skipped: run by make test-clients, for it takes minutes")
	}
	for tool, pkg := range tools {
		if _, err := find(tool); err != nil {
			missing(t, "%s is not installed: apt-get install %s", tool, pkg)
		}
	}
	manifest := fmt.Sprintf(pods, hostIP, nginxAt, ownPort(0))
	hasC := exists(filepath.Join(examples, "bin", "httpecho-c.wasm"))
	if hasC {
		manifest += fmt.Sprintf(cPod, hostIP)
	} else if os.Getenv("CI") == "true" {
		t.Fatal("there is no bin/httpecho-c.wasm: apt-get install clang wasi-libc, make guests")
	}
	startNginx(t)
	ip := startPods(t, manifest)
	s := &suite{T: t}
	t.Cleanup(s.print)

	http := func(pod, port string) [2]string { return [2]string{ip[pod] + ":8080", hostIP + ":" + port} }
	native := startNative(t, build(t, "go", "build", "-o", "OUT", "./httpecho"), "server", "--listen="+nativeIP+":18081")
	s.http("Go net/http", http("go", "18081"), native(nativeIP+":18081"))
	if hasC {
		if _, err := exec.LookPath("cc"); err == nil {
			native = startNative(t, build(t, "cc", "-O2", "-D_GNU_SOURCE", "-o", "OUT", "httpecho-c/httpecho.c"), "serve", cPort)
			s.http("C", http("c", "18082"), native("127.0.0.1:"+cPort))
		} else {
			s.http("C", http("c", "18082"), "")
		}
	}
	s.http("proxy to nginx", [2]string{proxyAt, ""}, nginxAt)
	native = startNative(t, build(t, "go", "build", "-o", "OUT", "./respserver"), "--listen="+nativeIP+":16379")
	s.redis([2]string{ip["redis"] + ":6379", hostIP + ":16379"}, native(nativeIP+":16379"))
}

// suite runs the clients, and collects what is printed in the end.
type suite struct {
	*testing.T
	rows [][]string
}

func (s *suite) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CLIENT\tGUEST\tPOD IP /s\tHOST PORT /s\tNATIVE /s\tPOD IP : NATIVE")
	for _, row := range s.rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	w.Flush()
}

func (s *suite) row(client, guest string, podIP, hostPort, native float64) {
	row := []string{client, guest, fmt.Sprintf("%.0f", podIP), "", "", ""}
	if hostPort > 0 {
		row[3] = fmt.Sprintf("%.0f", hostPort)
	}
	if native > 0 {
		row[4], row[5] = fmt.Sprintf("%.0f", native), fmt.Sprintf("%.2f", podIP/native)
	}
	s.rows = append(s.rows, row)
}

// http drives a guest at its pod IP and host port, and the native program.
func (s *suite) http(guest string, at [2]string, native string) {
	s.Run(guest, func(t *testing.T) {
		for _, client := range []struct {
			name  string
			drive func(*testing.T, string) float64
		}{{"wrk -c 100", wrk}, {"curl", curl}} {
			var rate [3]float64
			rate[0] = client.drive(t, at[0])
			if native != "" {
				rate[2] = client.drive(t, native)
			}
			if at[1] != "" {
				rate[1] = client.drive(t, at[1])
			}
			s.row(client.name, guest, rate[0], rate[1], rate[2])
		}
	})
}

func (s *suite) redis(at [2]string, native string) {
	s.Run("redis", func(t *testing.T) {
		first, last := redisBenchmark(t, at[0]), redisBenchmark(t, native)
		for i, name := range []string{"set", "get"} {
			s.row("redis-benchmark "+name, "miniredis", first[i], 0, last[i])
		}
		through := redisBenchmark(t, at[1])
		for i := range through {
			s.rows[len(s.rows)-2+i][3] = fmt.Sprintf("%.0f", through[i])
		}
	})
}

var wrkRate = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)

// wrk keeps 100 connections busy. It only tells of errors when there are any.
func wrk(t *testing.T, at string) float64 {
	seconds := max(1, int(period.Seconds()))
	out := command(t, *period+time.Minute, "wrk", "-t", "2", "-c", "100", "-d", strconv.Itoa(seconds)+"s", "--timeout", "60s", "http://"+at+"/")
	if strings.Contains(out, "Socket errors") || strings.Contains(out, "Non-2xx") {
		t.Errorf("%s: %s", at, out)
	}
	return rate(t, wrkRate, out)
}

// curl sends requests over one connection, and fails on any that fails.
func curl(t *testing.T, at string) float64 {
	const batch = 500
	requests := 0
	begin := time.Now()
	for time.Since(begin) < *period {
		out := command(t, 5*time.Minute, "curl", "-sS", "--fail", "--fail-early", "--max-time", "60", "-o", os.DevNull, "-w", "%{http_code}\\n", fmt.Sprintf("http://%s/?[1-%d]", at, batch))
		if n := strings.Count(out, "200\n"); n != batch {
			t.Fatalf("%s: %d of %d answers are 200", at, n, batch)
		}
		requests += batch
	}
	return float64(requests) / time.Since(begin).Seconds()
}

var redisRate = regexp.MustCompile(`"([0-9.]+)"`)

// redisBenchmark sets and gets with 50 connections, in rounds until the time is
// over, and returns the mean rates.
func redisBenchmark(t *testing.T, at string) (rates [2]float64) {
	host, port, _ := net.SplitHostPort(at)
	begin := time.Now()
	rounds := 0
	for rounds == 0 || time.Since(begin) < *period {
		out := command(t, 5*time.Minute, "redis-benchmark", "-h", host, "-p", port, "-t", "set,get", "-c", "50", "-n", "20000", "--csv")
		if strings.Contains(out, "Error") {
			t.Fatalf("%s: %s", at, out)
		}
		n := 0
		for line := range strings.Lines(out) {
			fields := strings.Split(line, ",")
			if name := strings.Trim(fields[0], `"`); len(fields) > 1 && (name == "SET" || name == "GET") {
				rates[n] += rate(t, redisRate, fields[1])
				n++
			}
		}
		if n != 2 {
			t.Fatalf("%s: %s", at, out)
		}
		rounds++
	}
	for i := range rates {
		rates[i] /= float64(rounds)
	}
	return rates
}

func rate(t *testing.T, re *regexp.Regexp, out string) float64 {
	t.Helper()
	m := re.FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no rate in %q", out)
	}
	r, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// command runs a client, which must succeed, and returns what it prints.
func command(t *testing.T, limit time.Duration, name string, args ...string) string {
	t.Helper()
	path, err := find(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err = errors.Join(err, ctx.Err()); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// find finds a tool, also where only root looks for some.
func find(tool string) (string, error) {
	if path, err := exec.LookPath(tool); err == nil {
		return path, nil
	}
	return exec.LookPath("/usr/sbin/" + tool)
}

// missing is wasmtest's rule: where all tools are meant to be there a test cannot
// drop out unnoticed.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf("skipped: "+format, args...)
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
