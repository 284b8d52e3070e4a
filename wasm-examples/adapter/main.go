// Command adapter is the adapter of a pod: it reads the status page of a server
// beside it, in the format of nginx's stub_status, and shows the same as
// Prometheus metrics, so that the server need not know of them.
//
//	adapter --listen :9113 --status http://127.0.0.1:80/stub_status
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func main() {
	log.SetFlags(0)
	listen := flag.String("listen", ":9113", "`address` that metrics are served on, under /metrics")
	page := flag.String("status", "http://127.0.0.1:80/stub_status", "`URL` of the server's status page")
	flag.Parse()

	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{page: *page, client: &http.Client{Timeout: 5 * time.Second}})
	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	log.Printf("metrics of %s on %s", *page, *listen)
	log.Fatal(http.ListenAndServe(*listen, nil))
}

// status is what the page says.
type status struct {
	Active, Accepted, Handled, Requests, Reading, Writing, Waiting uint64
}

// parse reads a page:
//
//	Active connections: 2
//	server accepts handled requests
//	 10 10 25
//	Reading: 0 Writing: 1 Waiting: 1
func parse(r io.Reader) (s status, err error) {
	_, err = fmt.Fscanf(r, "Active connections: %d \nserver accepts handled requests\n %d %d %d \nReading: %d Writing: %d Waiting: %d",
		&s.Active, &s.Accepted, &s.Handled, &s.Requests, &s.Reading, &s.Writing, &s.Waiting)
	if err != nil {
		return status{}, fmt.Errorf("not a status page: %w", err)
	}
	return s, nil
}

// collector asks the server whenever somebody asks it. The names are those of
// nginx-prometheus-exporter, so that its dashboards work.
type collector struct {
	page   string
	client *http.Client
}

var (
	up       = prometheus.NewDesc("nginx_up", "Whether the status page could be read.", nil, nil)
	counters = map[string]*prometheus.Desc{
		"accepted": prometheus.NewDesc("nginx_connections_accepted", "Accepted client connections.", nil, nil),
		"handled":  prometheus.NewDesc("nginx_connections_handled", "Handled client connections.", nil, nil),
		"requests": prometheus.NewDesc("nginx_http_requests_total", "Total HTTP requests.", nil, nil),
	}
	gauges = map[string]*prometheus.Desc{
		"active":  prometheus.NewDesc("nginx_connections_active", "Active client connections.", nil, nil),
		"reading": prometheus.NewDesc("nginx_connections_reading", "Connections where the request header is read.", nil, nil),
		"writing": prometheus.NewDesc("nginx_connections_writing", "Connections where the response is written.", nil, nil),
		"waiting": prometheus.NewDesc("nginx_connections_waiting", "Idle client connections.", nil, nil),
	}
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- up
	for _, descs := range []map[string]*prometheus.Desc{counters, gauges} {
		for _, d := range descs {
			ch <- d
		}
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s, err := c.read()
	if err != nil {
		log.Print(err)
		ch <- prometheus.MustNewConstMetric(up, prometheus.GaugeValue, 0)
		return
	}
	ch <- prometheus.MustNewConstMetric(up, prometheus.GaugeValue, 1)
	for name, v := range map[string]uint64{"accepted": s.Accepted, "handled": s.Handled, "requests": s.Requests} {
		ch <- prometheus.MustNewConstMetric(counters[name], prometheus.CounterValue, float64(v))
	}
	for name, v := range map[string]uint64{"active": s.Active, "reading": s.Reading, "writing": s.Writing, "waiting": s.Waiting} {
		ch <- prometheus.MustNewConstMetric(gauges[name], prometheus.GaugeValue, float64(v))
	}
}

func (c *collector) read() (status, error) {
	resp, err := c.client.Get(c.page)
	if err != nil {
		return status{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return status{}, fmt.Errorf("%s: %s", c.page, resp.Status)
	}
	return parse(io.LimitReader(resp.Body, 4096))
}
