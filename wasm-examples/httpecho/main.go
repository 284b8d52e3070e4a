// Command httpecho is an HTTP echo server and its client.
//
//	httpecho server --listen :8080
//	httpecho client --url http://127.0.0.1:8080/ --requests 1000 --body hello
//
// The server answers a request that has a body with that body, and one that has
// none with the request itself. The client sends requests over connections that
// it keeps, checks every answer, and prints how many there were in how long.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	mode, args := "server", os.Args[1:]
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		mode, args = args[0], args[1:]
	}
	var err error
	switch mode {
	case "server":
		err = server(args)
	case "client":
		err = client(args)
	default:
		err = fmt.Errorf("httpecho: %q is neither server nor client", mode)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func server(args []string) error {
	f := flag.NewFlagSet("server", flag.ExitOnError)
	listen := f.String("listen", ":8080", "`address` to serve on")
	_ = f.Parse(args) // ends the program on errors
	s := &http.Server{Addr: *listen, Handler: http.HandlerFunc(echo)}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.ListenAndServe() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return s.Shutdown(context.Background()) // bounded by the pod's grace period
	}
}

// maxBody bounds the memory that a request can take.
const maxBody = 16 << 20

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if len(body) == 0 {
		if body, err = httputil.DumpRequest(r, false); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(body) // the client may have gone
}

func client(args []string) error {
	f := flag.NewFlagSet("client", flag.ExitOnError)
	url := f.String("url", "http://127.0.0.1:8080/", "`URL` of the server")
	requests := f.Int("requests", 1000, "how many requests to send")
	parallel := f.Int("parallel", 1, "how many at a time, each over its own connection")
	body := f.String("body", "hello", "what to send")
	wait := f.Duration("wait", 10*time.Second, "for how long to wait for the server to come up")
	_ = f.Parse(args) // ends the program on errors
	if *requests < 1 || *parallel < 1 {
		return errors.New("httpecho: --requests and --parallel have to be above 0")
	}
	c := &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: *parallel},
	}
	for deadline := time.Now().Add(*wait); ; time.Sleep(20 * time.Millisecond) {
		err := request(c, *url, *body)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Now().After(deadline) {
			return err
		}
	}
	start := time.Now()
	failed := make(chan error, *parallel)
	var wg sync.WaitGroup
	for i := range *parallel {
		n := *requests / *parallel
		if i < *requests%*parallel {
			n++
		}
		wg.Go(func() {
			for range n {
				if err := request(c, *url, *body); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	took := time.Since(start)
	fmt.Printf("%d requests in %v: %.0f per second\n", *requests, took.Round(time.Microsecond), float64(*requests)/took.Seconds())
	return nil
}

func request(c *http.Client, url, body string) error {
	resp, err := c.Post(url, "application/octet-stream", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || string(got) != body {
		return fmt.Errorf("httpecho: sent %q, got %s with %q", body, resp.Status, got)
	}
	return nil
}
