// Command liveness is a server that is healthy for a while only: /healthz gives
// 200 for ten seconds after the start, then 500, so that a liveness probe has
// something to find. /started says for how long it has run. It takes the
// argument /server, which manifests give to the image that it stands for.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"time"
)

func main() {
	log.SetFlags(0)
	listen := flag.String("listen", ":8080", "`address` to serve on")
	healthy := flag.Duration("healthy", 10*time.Second, "how long after the start /healthz succeeds")
	flag.Parse()
	log.Fatal(http.ListenAndServe(*listen, handler(time.Now(), *healthy)))
}

func handler(started time.Time, healthy time.Duration) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/started", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, time.Since(started))
	})
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if d := time.Since(started); d > healthy {
			http.Error(w, fmt.Sprintf("error: %v", d.Seconds()), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, "ok")
	})
	return mux
}
