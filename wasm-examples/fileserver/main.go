// Command fileserver serves a directory over HTTP, as a web server without
// configuration does. It stands in for nginx and the like in examples.
//
// With --reload, a POST to /-/reload ends it with success: a server that reads
// its files at the start only is restarted by its pod that way, and reads them
// again.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	log.SetFlags(0)
	listen := flag.String("listen", ":80", "`address` to serve on")
	root := flag.String("root", "/usr/share/nginx/html", "`directory` to serve")
	reload := flag.Bool("reload", false, "end on a POST to /-/reload")
	// The images that it stands for take other arguments; ignore what is no flag.
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGQUIT, os.Interrupt)
	defer stop()
	mux := http.NewServeMux()
	mux.Handle("GET /", logged(http.FileServer(http.Dir(*root))))
	if *reload {
		mux.HandleFunc("POST /-/reload", func(w http.ResponseWriter, _ *http.Request) {
			log.Print("reloading")
			stop()
		})
	}
	server := &http.Server{Addr: *listen, Handler: mux}
	log.Printf("serving %s on %s", *root, *listen)
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = server.Shutdown(context.Background()) // bounded by the pod's grace period
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

func logged(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log.Printf("%s %s %s", r.RemoteAddr, r.Method, r.URL.Path)
		h.ServeHTTP(w, r)
	})
}
