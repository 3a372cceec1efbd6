package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestStuck: a daemon whose end does not come is cut off, and says what it waits for; so it is where it stops by itself.
func TestStuck(t *testing.T) {
	for name, told := range map[string]bool{"told to stop": true, "by itself": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				p := newParts()
				release := make(chan struct{})
				began := time.Now()
				p.begin("what ended")()
				err := p.within(ctx, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), endWithin, func() error {
					defer p.begin("the links")()
					defer p.begin("the links")()
					if told {
						stop()
					} else {
						p.stop()
						p.stop()
					}
					<-release
					return nil
				})
				if !errors.Is(err, errStuck) || !strings.Contains(err.Error(), "the links") || time.Since(began) != endWithin {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
				if text := log.String(); !strings.Contains(text, `"waits for"="the links"`) || !strings.Contains(text, "TestStuck") {
					t.Errorf("logged: %s", text)
				}
				close(release)
				synctest.Wait()
				if left := p.names(); len(left) > 0 {
					t.Errorf("under way: %q", left)
				}
			})
		})
	}
}

// TestNotStuck: one that ends is waited for, and its error is told.
func TestNotStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		want := errors.New("this")
		err := newParts().within(ctx, slog.New(slog.DiscardHandler), endWithin, func() error {
			stop()
			time.Sleep(endWithin - 1)
			return want
		})
		if !errors.Is(err, want) {
			t.Error(err)
		}
		err = newParts().within(t.Context(), slog.New(slog.DiscardHandler), endWithin, func() error { return want })
		if !errors.Is(err, want) {
			t.Error(err)
		}
	})
}
