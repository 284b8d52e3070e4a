// Package clients drives guests by the clients that people use (curl, wrk,
// redis-benchmark) through pod IPs and host ports, and has a guest that is a proxy
// drive a real nginx: `make test-clients`. No request may fail. The rates are
// printed beside those of the same programs as native processes.
package clients
