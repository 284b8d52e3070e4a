// Command ambassador is the ambassador of a pod: the containers beside it talk to
// it over localhost as if it were the service itself, and it knows where that
// is.
//
//	ambassador --listen :8080 --upstream http://backend.default.svc:80
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	listen := flag.String("listen", "127.0.0.1:8080", "`address` that the pod's containers use")
	upstream := flag.String("upstream", "", "`URL` of the service; required")
	flag.Parse()
	target, err := url.Parse(*upstream)
	if err != nil || target.Host == "" {
		log.Fatalf("--upstream %q is not the URL of a service, such as http://backend:80", *upstream)
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: proxyTo(target), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		// What is under way may end; the pod's grace period bounds it.
		if err := server.Shutdown(context.Background()); err != nil {
			log.Print(err)
		}
	}()
	log.Printf("%s is %s", listener.Addr(), target)
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	log.Print("stopped")
}

// proxyTo returns a handler that passes requests on.
func proxyTo(target *url.URL) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
		},
		Transport: &http.Transport{
			MaxIdleConnsPerHost:   64,
			IdleConnTimeout:       30 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
		},
		ErrorLog: log.New(os.Stderr, "", 0),
	}
}
