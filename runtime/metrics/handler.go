package metrics

import (
	"encoding/json"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxScrapes bounds how many scrapes are answered at a time.
const maxScrapes = 4

// Register registers everything but what says how this process itself fares: see
// RegisterProcess.
func Register(registry prometheus.Registerer, snapshot func() Snapshot, events *Events) error {
	if err := registry.Register(New(snapshot, events)); err != nil {
		return err
	}
	if events == nil {
		return nil
	}
	return registry.Register(events)
}

// RegisterProcess registers the collectors of Go's runtime and of the process.
func RegisterProcess(registry prometheus.Registerer) error {
	if err := registry.Register(collectors.NewGoCollector()); err != nil {
		return err
	}
	return registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// Handler serves the paths that the package comment names: /metrics from the
// registry, the others from what they need.
func Handler(registry *prometheus.Registry, snapshot func() Snapshot, events *Events) http.Handler {
	serve := func(g prometheus.Gatherer) http.Handler {
		return promhttp.HandlerFor(g, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: maxScrapes})
	}
	of := func(c ...prometheus.Collector) http.Handler {
		r := prometheus.NewRegistry()
		r.MustRegister(c...)
		return serve(r)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", serve(registry))
	mux.Handle("GET /metrics/cadvisor", of(&Collector{snapshot, events, partUsage}))
	mux.Handle("GET /metrics/resource", of(resourceCollector{snapshot}))
	if events != nil {
		mux.Handle("GET /metrics/probes", of(events.probeResults, events.probeDurations))
	}
	rates := &Rates{}
	mux.HandleFunc("GET /stats/summary", func(w http.ResponseWriter, _ *http.Request) {
		s := snapshot()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(Summary(&s, rates)) // the client has gone
	})
	return mux
}
