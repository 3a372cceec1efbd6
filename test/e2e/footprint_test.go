package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMainJobIdleFootprint prints what a swarm with the example service costs at rest, and holds its memory to a bound.
func TestMainJobIdleFootprint(t *testing.T) {
	_, h := oneHost(t)
	h.Must("apply", "-f", example(t))
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(h.PID()), name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	ticks := func() (user, system int) {
		_, fields, _ := strings.Cut(read("stat"), ") ")
		var skip string
		if _, err := fmt.Sscan(fields, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &user, &system); err != nil {
			t.Fatal(err)
		}
		return user, system
	}
	const rest = 10 * time.Second
	u, s := ticks()
	time.Sleep(rest) // at rest is what is measured
	u2, s2 := ticks()
	var rss int
	for line := range strings.Lines(read("status")) {
		fmt.Sscanf(line, "VmRSS: %d kB", &rss)
	}
	t.Logf("swarmd at rest: %.1f MB RSS, %.2f %% of a core", float64(rss)/1000, float64(u2-u+s2-s)/rest.Seconds())
	if rss == 0 || rss > 80_000 {
		t.Errorf("swarmd has %d kB RSS at rest, want at most 80 MB", rss)
	}
}
