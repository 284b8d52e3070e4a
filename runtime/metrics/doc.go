// Package metrics shows a node to Prometheus, to `kubectl top` and to whoever
// asks a kubelet: by the names and labels that cAdvisor, the kubelet and
// kube-state-metrics have, so that dashboards and rules made for them work.
//
// [Collector] reads a [Snapshot] when it is scraped, so that what is gone leaves
// no series. [Events] counts what a snapshot does not show: starts, probes, ends
// for want of memory. It forgets a pod with its last series. [Handler] serves
//
//	/metrics              everything
//	/metrics/cadvisor     containers and pods: CPU, memory, network, files
//	/metrics/resource     what the metrics server reads, with timestamps
//	/metrics/probes       results of probes
//	/stats/summary        the same as JSON, of the kubelet's types
//
// What has another meaning here than under a kubelet is in docs/metrics.md.
package metrics
