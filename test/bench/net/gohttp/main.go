// Command gohttp is an HTTP server in plain net/http and a client that measures
// it, for pods and for the host:
//
//	gohttp serve PORT
//	gohttp measure PORT SECONDS PARALLEL[,PARALLEL...] [IDLE[,IDLE...]]
//
// The client prints one line for each figure, "what size rate", and then ends
// the server. Each figure is taken for SECONDS: requests over PARALLEL
// connections at a time, and over one beside IDLE others that do nothing.
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 || os.Args[1] != "serve" && len(os.Args) < 5 {
		log.Fatal("usage: gohttp serve PORT | gohttp measure PORT SECONDS PARALLEL[,PARALLEL...] [IDLE[,IDLE...]]")
	}
	address := net.JoinHostPort("127.0.0.1", os.Args[2])
	var err error
	if os.Args[1] == "serve" {
		err = serve(address)
	} else {
		err = measure(address, os.Args[3:])
	}
	if err != nil {
		log.Fatal(err)
	}
}

// answer is what every request gets.
var answer = make([]byte, 64)

func serve(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	quit := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(answer) })
	mux.HandleFunc("/quit", func(http.ResponseWriter, *http.Request) { close(quit) })
	s := &http.Server{Handler: mux}
	go func() {
		<-quit
		_ = s.Close()
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func measure(address string, args []string) error {
	seconds, err := strconv.ParseFloat(args[0], 64)
	if err != nil {
		return err
	}
	parallel, err := numbers(args[1])
	if err != nil {
		return err
	}
	var idles []int
	if len(args) > 2 {
		if idles, err = numbers(args[2]); err != nil {
			return err
		}
	}
	period := time.Duration(seconds * float64(time.Second))
	for {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
			break
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, n := range parallel {
		rate, err := requests(address, n, period)
		if err != nil {
			return err
		}
		fmt.Println("http", n, rate)
	}
	var idle []net.Conn
	for _, n := range idles {
		for len(idle) < n {
			c, err := net.Dial("tcp", address)
			if err != nil {
				return fmt.Errorf("idle connection %d: %w", len(idle)+1, err)
			}
			idle = append(idle, c)
		}
		rate, err := requests(address, 1, period)
		if err != nil {
			return err
		}
		fmt.Println("idle", n, rate)
	}
	_, err = http.Get("http://" + address + "/quit")
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		err = nil // it has ended before its answer was out
	}
	return err
}

func numbers(list string) (all []int, err error) {
	for s := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// requests sends requests over so many connections, one at a time over each, and
// returns how many a second had an answer.
func requests(address string, parallel int, period time.Duration) (float64, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: parallel}}
	defer client.CloseIdleConnections()
	var total atomic.Int64
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	begin := time.Now()
	for range parallel {
		wg.Go(func() {
			for time.Since(begin) < period {
				if err := request(client, "http://"+address+"/"); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
					return
				}
				total.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(total.Load()) / time.Since(begin).Seconds(), errors.Join(errs...)
}

func request(client *http.Client, url string) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && n != int64(len(answer)) {
		err = fmt.Errorf("an answer of %d bytes", n)
	}
	return err
}
