package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Memory is what the processes of a host take, by the name of the program, in bytes: each process's own share of what it has
// in memory (PSS), so that the sum over all hosts is what they take together.
func (h *Host) Memory() (map[string]int64, error) {
	pids, err := h.processes()
	if err != nil {
		return nil, err
	}
	used := make(map[string]int64)
	for _, pid := range pids {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			continue // it has ended
		}
		rollup, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "smaps_rollup"))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(rollup)) {
			var kilobytes int64
			if _, err := fmt.Sscanf(line, "Pss: %d kB", &kilobytes); err == nil {
				used[strings.TrimSpace(string(name))] += kilobytes << 10
			}
		}
	}
	return used, nil
}
