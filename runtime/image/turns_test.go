package image

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestTurns(t *testing.T) {
	defaults := func() *turns {
		r := Registries{}
		r.setDefaults()
		return newTurns(&r)
	}
	t.Run("TIME-24 ten at once, then five a second", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			turns := defaults()
			count := func(tries int) (granted int) {
				for range tries {
					done, err := turns.take(t.Context())
					if err == nil {
						granted++
						done()
						continue
					}
					wantError(t, err, ReasonErrImagePull, "pull QPS exceeded")
				}
				return granted
			}
			if n := count(20); n != 10 {
				t.Errorf("%d of 20 at once", n)
			}
			time.Sleep(time.Second)
			if n := count(20); n != 5 {
				t.Errorf("%d after a second", n)
			}
			time.Sleep(time.Hour)
			if n := count(20); n != 10 {
				t.Errorf("%d after an hour", n)
			}
		})
	})
	t.Run("TIME-24 one after the other, in their order", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			turns := defaults()
			var order []int
			for i := range 5 {
				go func() {
					done, err := turns.take(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					order = append(order, i) // alone: the race detector would tell
					time.Sleep(time.Minute)
					done()
				}()
				synctest.Wait()
			}
			begin := time.Now()
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			if !slices.Equal(order, []int{0, 1, 2, 3, 4}) || time.Since(begin) != 5*time.Minute {
				t.Errorf("%v", order)
			}
		})
	})
	t.Run("who does not wait any more", func(t *testing.T) {
		turns := defaults()
		done, err := turns.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := turns.take(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		done()
	})
	t.Run("by configuration", func(t *testing.T) {
		r := Registries{PullQPS: -1, MaxParallelPulls: 3}
		r.setDefaults()
		turns := newTurns(&r)
		for range 3 {
			if _, err := turns.take(t.Context()); err != nil {
				t.Error(err)
			}
		}
		for range 100 {
			if !turns.token(time.Time{}) {
				t.Fatal("there is a limit")
			}
		}
	})
}

// TestEnsureInTurn: TIME-24 where pods pull from a registry.
func TestEnsureInTurn(t *testing.T) {
	srv := startRegistry(t)
	for _, name := range []string{"a", "b", "c"} {
		srv.push(t, name+":v1", wasmImage(t, name))
	}
	// The manifest of the second is not asked for before the layers of the first
	// have been: the registry sees one name after the other.
	var mu sync.Mutex
	var seen []string
	srv.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if name, _, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/"); ok {
			mu.Lock()
			defer mu.Unlock()
			if len(seen) == 0 || seen[len(seen)-1] != name {
				seen = append(seen, name)
			}
		}
		return false
	})
	s := open(t, quick(t))
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		wg.Go(func() {
			if _, pulled, err := s.Ensure(t.Context(), Request{Ref: srv.host + "/" + name + ":v1"}); err != nil || !pulled {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(seen) != 3 {
		t.Errorf("TIME-24: the registry was asked for %q", seen)
	}
	srv.before.Store(nil)
	t.Run("TIME-24 a pull too many fails, and the next one is not in its way", func(t *testing.T) {
		cfg := quick(t)
		cfg.Registries.PullQPS, cfg.Registries.PullBurst = 1e-9, 1
		s := open(t, cfg)
		if _, _, err := s.Ensure(t.Context(), Request{Ref: srv.host + "/a:v1"}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_, _, err := s.Ensure(t.Context(), Request{Ref: srv.host + "/b:v1"})
			wantError(t, err, ReasonErrImagePull, "pull QPS exceeded")
		}
		// What is there needs no turn, and the operator neither.
		if _, pulled, err := s.Ensure(t.Context(), Request{Ref: srv.host + "/a:v1", Policy: corev1.PullIfNotPresent}); pulled || err != nil {
			t.Error(pulled, err)
		}
		if _, err := s.Pull(t.Context(), srv.host+"/b:v1", PullOptions{}); err != nil {
			t.Error(err)
		}
	})
}
