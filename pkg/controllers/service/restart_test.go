package service

import (
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	for _, c := range []struct {
		first    time.Duration
		failures uint32
		want     time.Duration
	}{
		{5 * time.Second, 1, 5 * time.Second},
		{5 * time.Second, 2, 10 * time.Second},
		{5 * time.Second, 6, 160 * time.Second},
		{5 * time.Second, 7, 5 * time.Minute},
		{5 * time.Second, 1 << 31, 5 * time.Minute},
		{0, 1, 0},
		{0, 2, 100 * time.Millisecond},
		{0, 3, 200 * time.Millisecond},
		{0, 4, 400 * time.Millisecond},
		{0, 13, 204800 * time.Millisecond},
		{0, 14, 5 * time.Minute},
		{0, 1<<32 - 1, 5 * time.Minute},
		{time.Nanosecond, 1000, 4294967296 * time.Nanosecond}, // what is doubled 32 times is not doubled again
		{time.Hour, 1, time.Hour},                             // longer than the bound from the first: it stays
		{time.Hour, 50, time.Hour},
	} {
		if got := backoff(c.first, c.failures); got != c.want {
			t.Errorf("backoff(%v, %d) is %v, want %v", c.first, c.failures, got, c.want)
		}
	}
}
