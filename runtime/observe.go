package runtime

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/metrics"
	"github.com/wasmpod/wasmpod/runtime/sandbox/inproc"
)

// Stdio and StdioFunc connect a container to streams of the caller.
type (
	Stdio     = inproc.Stdio
	StdioFunc = func(container.Config) Stdio
)

// Metrics returns a handler that serves what Prometheus scrapes.
func (r *Runtime) Metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.New(r.Pods), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true, Registry: registry})
}
