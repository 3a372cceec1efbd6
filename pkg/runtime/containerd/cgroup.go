package containerd

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroup knows the control groups of our containers: one parent for each Runtime, so that nothing is left behind.
type cgroup struct {
	unified bool
	parent  string
	// swap tells whether the kernel counts swap; without it a limit of swap is left out, as Docker does.
	swap bool
}

func (c *cgroup) find(parent string) error {
	c.parent = "/" + parent
	switch cgroups.Mode() {
	case cgroups.Unified:
		c.unified, c.swap = true, true
	case cgroups.Unavailable:
		return errors.New("containerd: no control groups at /sys/fs/cgroup")
	default:
		_, err := os.Stat(filepath.Join(cgroupRoot, "memory/memory.memsw.limit_in_bytes"))
		c.swap = err == nil
	}
	return nil
}

// path is what the OCI spec says.
func (c *cgroup) path(id string) string { return filepath.Join(c.parent, id) }

// oomKills is how many processes of the container the kernel killed for want of memory. It can be asked until the
// container is removed, whoever saw it happen.
func (c *cgroup) oomKills(id string) int {
	file := filepath.Join(cgroupRoot, "memory", c.parent, id, "memory.oom_control")
	if c.unified {
		file = filepath.Join(cgroupRoot, c.parent, id, "memory.events")
	}
	f, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if number, ok := strings.CutPrefix(lines.Text(), "oom_kill "); ok {
			n, _ := strconv.Atoi(number)
			return n
		}
	}
	return 0
}

// remove removes the parent and what is empty below it, in every hierarchy. Groups with processes stay, and are an error.
func (c *cgroup) remove() error {
	var errs []error
	hierarchies, err := filepath.Glob(cgroupRoot + "/*" + c.parent)
	if err != nil {
		return err
	}
	for _, top := range append(hierarchies, cgroupRoot+c.parent) {
		var groups []string
		filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				groups = append(groups, path)
			}
			return nil
		})
		for i := len(groups) - 1; i >= 0; i-- {
			if err := os.Remove(groups[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("containerd: remove control group: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}
