// Command configmap-reload tells a server that its configuration has changed: it
// watches volumes of ConfigMaps or Secrets, and posts to webhooks when one is
// updated.
//
//	configmap-reload --volume-dir=/etc/app --webhook-url=http://127.0.0.1:80/-/reload
//
// Such a volume is updated by pointing its link ..data somewhere else, all at
// once; there are no notifications in WASI, so the links are looked at from time
// to time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

type reloader struct {
	dirs, webhooks []string
	method         string
	client         *http.Client
	retries        int
	pause          time.Duration // between tries
	seen           map[string]string
}

func main() {
	log.SetFlags(0)
	var dirs, webhooks list
	flag.Var(&dirs, "volume-dir", "`directory` of a volume to watch; may be given several times")
	flag.Var(&webhooks, "webhook-url", "`URL` to post to; may be given several times")
	method := flag.String("webhook-method", "POST", "HTTP `method` of the request")
	retries := flag.Int("webhook-retries", 10, "how often to try a webhook that fails")
	interval := flag.Duration("interval", time.Second, "how often to look")
	flag.Parse()
	if len(dirs) == 0 || len(webhooks) == 0 || *interval <= 0 {
		log.Fatal("configmap-reload: --volume-dir and --webhook-url are needed, and --interval has to be above 0")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	r := &reloader{
		dirs: dirs, webhooks: webhooks, method: *method, retries: *retries, pause: time.Second,
		client: &http.Client{Timeout: 10 * time.Second}, seen: make(map[string]string),
	}
	log.Printf("watching %v", dirs)
	r.changed() // what is there at the start is no change
	ticker := time.NewTicker(*interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if r.changed() {
			log.Print("configuration has changed")
			r.notify(ctx)
		}
	}
}

// changed tells whether a volume points elsewhere than at the last look.
func (r *reloader) changed() bool {
	changed := false
	for _, dir := range r.dirs {
		now, err := os.Readlink(filepath.Join(dir, "..data"))
		if err != nil {
			log.Print(err)
			continue
		}
		if r.seen[dir] != now {
			r.seen[dir], changed = now, true
		}
	}
	return changed
}

// notify calls every webhook until it succeeds or retries are used up.
func (r *reloader) notify(ctx context.Context) {
	for _, url := range r.webhooks {
		for try := 1; ; try++ {
			err := r.call(ctx, url)
			if err == nil {
				log.Printf("%s: done", url)
				break
			}
			log.Print(err)
			if try >= r.retries || ctx.Err() != nil {
				break
			}
			select {
			case <-ctx.Done():
			case <-time.After(r.pause):
			}
		}
	}
}

func (r *reloader) call(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, r.method, url, nil)
	if err != nil {
		return err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}
