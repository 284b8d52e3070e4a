// Command fileserver serves a directory over HTTP, as a web server without
// configuration does. It stands in for nginx and the like in examples.
//
// With --reload, a POST to /-/reload ends it with success: a server that reads
// its files at the start only is restarted by its pod that way, and reads them
// again.
//
// As /usr/sbin/nginx it also takes nginx's -s quit|stop|reload|reopen, for hooks
// and for people: see control.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path"
	"syscall"
)

func main() {
	log.SetFlags(0)
	listen := flag.String("listen", ":80", "`address` to serve on")
	root := flag.String("root", "/usr/share/nginx/html", "`directory` to serve")
	reload := flag.Bool("reload", false, "end on a POST to /-/reload")
	run := flag.String("run", "/run", "`directory` in which the server says how to reach it")
	command := flag.String("s", "", "`signal` for the server that runs in this container: quit, stop, reload or reopen")
	version := flag.Bool("v", false, "print the version")
	test := flag.Bool("t", false, "test the configuration, of which there is none")
	_ = flag.String("g", "", "`directives`, as nginx has them; ignored")
	_ = flag.String("c", "", "configuration `file`; ignored")
	// The images that it stands for take other arguments; ignore what is no flag.
	flag.Parse()
	switch {
	case *version:
		fmt.Fprintln(os.Stderr, "nginx version: none (fileserver)")
		return
	case *test:
		fmt.Fprintln(os.Stderr, "nginx: there is no configuration to test")
		return
	case *command != "":
		if err := send(*run, *command); err != nil {
			fmt.Fprintf(os.Stderr, "%s: [error] %v\n", path.Base(os.Args[0]), err)
			os.Exit(1)
		}
		return
	}
	if err := serve(*listen, *root, *run, *reload); err != nil {
		log.Fatal(err)
	}
}

func serve(listen, root, run string, reload bool) error {
	// Signals stay taken when it ends for another reason: one that comes then must
	// not cut the end short.
	signaled, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGQUIT, os.Interrupt)
	ctx, stop := context.WithCancel(signaled)
	defer stop()
	mux := http.NewServeMux()
	mux.Handle("GET /", logged(http.FileServer(http.Dir(root))))
	if reload {
		mux.HandleFunc("POST /-/reload", func(w http.ResponseWriter, _ *http.Request) {
			log.Print("reloading")
			stop()
		})
	}
	server := &http.Server{Addr: listen, Handler: mux}
	// Nothing depends on it: a container whose root is read-only has none.
	closeControl, err := control(run, func(command string) {
		log.Printf("signal %s received", command)
		switch command {
		case "quit":
			stop()
		case "stop":
			server.Close()
		}
	})
	if err == nil {
		defer closeControl()
	}
	log.Printf("serving %s on %s", root, listen)
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = server.Shutdown(context.Background()) // bounded by the pod's grace period
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func logged(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log.Printf("%s %s %s", r.RemoteAddr, r.Method, r.URL.Path)
		h.ServeHTTP(w, r)
	})
}
