package containerd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

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

// groups are the directories of all our groups in all hierarchies, the inner before the outer.
func (c *cgroup) groups() []string { return groupsBelow(c.parent) }

// groupsBelow are the directories of the group of that path, and those in it, in all hierarchies, the inner before the outer.
func groupsBelow(path string) []string {
	tops, _ := filepath.Glob(cgroupRoot + "/*" + path) // the pattern is valid
	var all []string
	for _, top := range append(tops, cgroupRoot+path) {
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
	}
	slices.Reverse(all)
	return all
}

// ids are the containers that have a group in any hierarchy.
func (c *cgroup) ids() map[string]bool {
	found := map[string]bool{}
	tops, _ := filepath.Glob(cgroupRoot + "/*" + c.parent) // the pattern is valid
	for _, top := range append(tops, cgroupRoot+c.parent) {
		entries, _ := os.ReadDir(top) // with version 1 the last one is not there
		for _, e := range entries {
			if e.IsDir() && validID(e.Name()) == nil {
				found[e.Name()] = true
			}
		}
	}
	return found
}

// kill kills every process in our groups.
func (c *cgroup) kill() error { return killIn(c.groups()) }

func killIn(groups []string) error {
	for _, group := range groups {
		procs, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENODEV) { // gone, or going
			return fmt.Errorf("containerd: %w", err)
		}
		for line := range strings.FieldsSeq(string(procs)) {
			if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
				if err := ended(syscall.Kill(pid, syscall.SIGKILL)); err != nil {
					return fmt.Errorf("containerd: kill process %d: %w", pid, err)
				}
			}
		}
	}
	return nil
}

// remove removes all groups, waiting for what was killed to be gone from them.
func (c *cgroup) remove(ctx context.Context) error { return removeGroups(ctx, c.parent) }

// groupTimeout is how long the kernel may take to forget the processes of a container that were killed.
const groupTimeout = 10 * time.Second

// removeOne kills what is left in the container's groups, and removes them.
func (c *cgroup) removeOne(ctx context.Context, id string) error {
	if err := killIn(groupsBelow(c.path(id))); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, groupTimeout)
	defer cancel()
	return removeGroups(ctx, c.path(id))
}

// removeGroups removes the group of that path in all hierarchies, waiting until it has no processes. It tries once at
// least, and until ctx ends.
func removeGroups(ctx context.Context, path string) error {
	for {
		var errs []error
		for _, group := range groupsBelow(path) {
			if err := os.Remove(group); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("containerd: remove control group: %w", err))
			}
		}
		if len(errs) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(errs...)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
