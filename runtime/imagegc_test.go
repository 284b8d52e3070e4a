package runtime

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmpod/wasmpod/runtime/image"
)

// collecting is an image service that notes what it is asked for.
type collecting struct {
	mu      sync.Mutex
	touched int
	at      []time.Time
	inUse   []string
	result  image.Collected
	err     error
}

func (c *collecting) Collect(_ context.Context, _ image.Thresholds, inUse []string) (image.Collected, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.inUse = append(c.at, time.Now()), inUse
	return c.result, c.err
}

func (c *collecting) Touch([]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touched++
}

func TestImageCollector(t *testing.T) {
	for _, test := range []struct {
		name   string
		result image.Collected
		err    error
		reason string // of the events
		text   string
	}{
		{"enough is freed", image.Collected{Pruned: image.Pruned{Images: []string{"a"}, Bytes: 10}, Wanted: 10}, nil, "", ""},
		{"nothing to do", image.Collected{}, nil, "", ""},
		{"not enough is eligible", image.Collected{Pruned: image.Pruned{Bytes: 3}, Wanted: 10}, nil, "FreeDiskSpaceFailed", "Attempted to free 10 bytes, but only found 3 bytes eligible to free."},
		{"it fails", image.Collected{}, errors.New("no such disk"), "ImageGCFailed", "no such disk"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				images := &collecting{result: test.result, err: test.err}
				var reasons, texts []string
				c := &imageCollector{
					images: images, inUse: func() []string { return []string{"used"} }, log: slog.New(slog.DiscardHandler),
					event: func(reason, message string) { reasons, texts = append(reasons, reason), append(texts, message) },
				}
				ctx, cancel := context.WithCancel(t.Context())
				begin := time.Now()
				go c.run(ctx)
				time.Sleep(11 * time.Minute)
				cancel()
				synctest.Wait()
				if images.touched != 10 && images.touched != 11 || len(images.at) != 2 || images.at[0].Sub(begin) != imageGCPeriod || images.at[1].Sub(begin) != 2*imageGCPeriod {
					t.Errorf("touched %d times, collected at %v", images.touched, images.at)
				}
				if !slices.Equal(images.inUse, []string{"used"}) {
					t.Errorf("in use: %q", images.inUse)
				}
				want := 2
				if test.reason == "" {
					want = 0
				}
				if len(reasons) != want || want > 0 && (reasons[0] != test.reason || !strings.Contains(texts[0], test.text)) {
					t.Errorf("events %q %q", reasons, texts)
				}
			})
		})
	}
}
