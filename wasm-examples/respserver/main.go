// Command respserver is a server that speaks the protocol of Redis and keeps its
// data in memory: miniredis, which is made for tests, on an address.
//
//	respserver --listen :6379
package main

import (
	"context"
	"flag"
	"log"
	"os/signal"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
)

func main() {
	log.SetFlags(0)
	listen := flag.String("listen", ":6379", "`address` to serve on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	server := miniredis.NewMiniRedis()
	if err := server.StartAddr(*listen); err != nil {
		log.Fatal(err)
	}
	log.Printf("serving on %s", *listen)
	// Its keys expire only when it is told that time has passed.
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-second.C:
			server.FastForward(time.Second)
		case <-ctx.Done():
			server.Close()
			log.Print("stopped")
			return
		}
	}
}
