// Command logshipper is the sidecar that ships a log file: it follows a file on
// a volume it shares with the container that writes it, and posts the lines,
// as text, to a collector.
//
//	logshipper --file /var/log/app.log --to http://collector.default.svc:8080/logs
//
// The other end, for trying it, prints what is posted:
//
//	logshipper --collect :8080
//
// Lines are posted in order and at least once: a batch is posted again until it
// is accepted, and only then the file is read on. When told to stop it ships
// what is there and ends.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// maxBatch bounds what is posted at a time. A longer line is shipped in parts.
const maxBatch = 64 << 10

func main() {
	log.SetFlags(0)
	file := flag.String("file", "", "log `file` to follow; required")
	to := flag.String("to", "", "`URL` that lines are posted to; required")
	every := flag.Duration("every", time.Second, "how often to look for new lines")
	collect := flag.String("collect", "", "`address` to collect on, in the place of shipping")
	flag.Parse()
	if *collect != "" {
		log.Fatal(http.ListenAndServe(*collect, collector(os.Stdout)))
	}
	if *file == "" || *to == "" {
		log.Fatal("--file and --to are required; see --help")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	s := &shipper{file: *file, url: *to, client: &http.Client{Timeout: 10 * time.Second}}
	tick := time.NewTicker(*every)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := s.ship(false); err != nil {
			log.Print(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	if err := s.ship(true); err != nil {
		log.Fatal(err)
	}
	log.Printf("stopped; shipped %d bytes", s.shipped)
}

// collector returns a handler that writes what is posted.
func collector(w io.Writer) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxBatch))
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		w.Write(body) // one write: batches of several shippers stay whole
		rw.WriteHeader(http.StatusNoContent)
	})
}

// shipper ships one file. It is for one goroutine.
type shipper struct {
	file, url string
	client    *http.Client

	offset  int64 // of what was accepted, in the file that is there now
	shipped int64 // in all
}

// ship posts the lines that are new, and with all also a last one that is not
// complete yet. A file that is not there has none; one that has become shorter
// was written anew.
func (s *shipper) ship(all bool) error {
	f, err := os.Open(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() < s.offset {
		s.offset = 0
	}
	buf := make([]byte, maxBatch)
	for {
		n, err := f.ReadAt(buf, s.offset)
		if err != nil && err != io.EOF {
			return err
		}
		batch := buf[:n]
		if end := bytes.LastIndexByte(batch, '\n') + 1; end > 0 {
			batch = batch[:end]
		} else if n < len(buf) && !all {
			return nil // wait for the rest of the line
		}
		if len(batch) == 0 {
			return nil
		}
		if err := s.post(batch); err != nil {
			return err
		}
		s.offset += int64(len(batch))
		s.shipped += int64(len(batch))
	}
}

func (s *shipper) post(batch []byte) error {
	resp, err := s.client.Post(s.url, "text/plain; charset=utf-8", bytes.NewReader(batch))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, maxBatch)) // so that the connection is used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s", s.url, resp.Status)
	}
	return nil
}
