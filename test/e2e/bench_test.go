package e2e

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

var benchStart = flag.Bool("bench-start", false, "run TestMainJobStartBench, which measures and prints")

// TestMainJobStartBench prints how long replicas take to run after their service was created, beside a bare loop over
// the same containerd's client that starts as many containers, four at a time. The two take turns, so that whatever else the
// machine does falls on both.
func TestMainJobStartBench(t *testing.T) {
	if !*benchStart {
		t.Skip("measures only: make bench-start")
	}
	l, h := oneHost(t)
	c, err := client.New("unix://" + h.Socket())
	if err != nil {
		t.Fatal(err)
	}
	const rounds = 5
	result := make(map[string]float64)
	for _, replicas := range []uint64{1, 3, 30} {
		var ours, bare []float64
		for round := range rounds {
			ours = append(ours, startService(t, h, c, fmt.Sprintf("bench%dx%d", replicas, round), replicas))
			bare = append(bare, startBare(t, l, h, replicas))
		}
		slices.Sort(ours)
		slices.Sort(bare)
		n := strconv.FormatUint(replicas, 10)
		result["swarmd_"+n+"_s"], result["bare_"+n+"_s"] = ours[rounds/2], bare[rounds/2]
		result["ratio_"+n] = ours[rounds/2] / bare[rounds/2]
		t.Logf("%2d replicas: swarmd %.2f s %.2f, bare loop %.2f s %.2f, ratio of medians %.2f", replicas,
			ours[rounds/2], ours, bare[rounds/2], bare, ours[rounds/2]/bare[rounds/2])
	}
	line, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(string(line))
}

// startService creates a service, and returns the seconds until all its tasks were seen running. The service is gone
// afterwards.
func startService(t *testing.T, h *lab.Host, c *client.Client, name string, replicas uint64) float64 {
	t.Helper()
	grace := v1.Duration(time.Millisecond)
	began := time.Now()
	service, _, err := client.Create(t.Context(), c, v1.Services, &v1.Service{
		Meta: v1.Meta{Name: name},
		Spec: &v1.ServiceSpec{Replicas: &replicas, Task: v1.TaskSpec{Container: v1.ContainerSpec{Image: "hello:1", StopGracePeriod: &grace}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	up := make(map[string]bool)
	for e, err := range client.Watch(t.Context(), c, v1.Tasks, v1.Filter{"service": {service.Meta.ID}}, -1) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Object != nil && v1.Observed(e.Object) == v1.TaskRunning {
			up[e.Object.Meta.ID] = true
		}
		if len(up) == int(replicas) {
			break
		}
	}
	took := time.Since(began).Seconds()
	h.Must("service", "rm", name)
	for len(shims(t, h)) > 0 {
		time.Sleep(50 * time.Millisecond)
	}
	return took
}

// startBare is the seconds that the bare loop takes for as many containers.
func startBare(t *testing.T, l *lab.Lab, h *lab.Host, replicas uint64) float64 {
	t.Helper()
	cmd := h.Command(filepath.Join(l.Bin, "bench-start"), "-archive", filepath.Join(l.Bin, "hello-1.tar"),
		"-address", filepath.Join(h.Root, "containerd", "run", "containerd.sock"), "-n", strconv.FormatUint(replicas, 10), "-rounds", "2")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("bare loop: %v\n%s", err, out)
	}
	var last struct {
		Seconds float64 `json:"all_s"`
	}
	for lines := bufio.NewScanner(strings.NewReader(string(out))); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "{") {
			if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
				t.Fatalf("bare loop: %v\n%s", err, out)
			}
		}
	}
	if last.Seconds == 0 {
		t.Fatalf("bare loop printed no figure:\n%s", out)
	}
	return last.Seconds
}
