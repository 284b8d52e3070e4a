package main

import (
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

func TestHealthyForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := handler(time.Now(), 10*time.Second)
		for _, step := range []struct {
			after time.Duration
			want  int
		}{{0, 200}, {10 * time.Second, 200}, {time.Nanosecond, 500}, {time.Hour, 500}} {
			time.Sleep(step.after) // of the bubble's clock
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
			if w.Code != step.want {
				t.Errorf("%v later: status %d, want %d", step.after, w.Code, step.want)
			}
		}
	})
}
