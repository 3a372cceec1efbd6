package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// clear ends every process that was started in the lab's directory, and unmounts and removes all that is there. It works
// from what is on the machine alone, so that it also clears up after a run that crashed.
func (l *Lab) clear() error {
	for _, r := range l.delay {
		r.stop()
	}
	clear(l.delay)
	if err := endProcesses(func() ([]int, error) { return processesBelow(l.Dir, "") }); err != nil {
		return err
	}
	for _, n := range l.namespaces() {
		n.file.Close()
	}
	l.bridge, l.Client, l.Hosts = nil, nil, nil
	if err := unmountBelow(l.Dir, false); err != nil {
		return err
	}
	for _, at := range []string{"containerd", "agent/containerd"} { // of swarmd, and of an agent as a process of its own
		engines, err := filepath.Glob(filepath.Join(l.Dir, "*", at))
		if err != nil {
			return err
		}
		for _, dir := range engines {
			if err := removeEngine(dir); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(l.Dir)
}

// namespaces are those that this process has open.
func (l *Lab) namespaces() []*Namespace {
	all := []*Namespace{l.bridge, l.Client}
	for _, h := range l.Hosts {
		all = append(all, h.Namespace)
	}
	return slices.DeleteFunc(all, func(n *Namespace) bool { return n == nil || n.file == nil })
}

// endProcesses kills until there is nothing more to kill.
func endProcesses(find func() ([]int, error)) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		pids, err := find()
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not end", pids)
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("end process %d: %w", pid, err)
			}
		}
		time.Sleep(10 * time.Millisecond) // until the kernel is through with them
	}
}

// processesBelow are those that the directory occurs in the command line of, or that run in a network namespace mounted below it
// or at the path: all of swarmd, containerd and its shims, and the containers.
func processesBelow(dir, namespace string) ([]int, error) {
	spaces := networks(append(mounts(dir), namespace))
	return processes(func(pid int, line []string) bool {
		ns, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		return slices.Contains(spaces, ns) || slices.ContainsFunc(line, func(word string) bool { return strings.Contains(word, dir+"/") || word == dir })
	})
}

// processes are those that match, by their command line, without this one and those that have ended.
func processes(match func(pid int, line []string) bool) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || zombie(pid) {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if match(pid, strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// zombie tells whether a process has ended, whether or not its parent knows.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, after, _ := bytes.Cut(stat, []byte(") "))
	return bytes.HasPrefix(after, []byte("Z"))
}

// networks are the network namespaces mounted at paths, as /proc/PID/ns/net names them.
func networks(paths []string) []string {
	var spaces []string
	for _, path := range paths {
		var st unix.Stat_t
		var fs unix.Statfs_t
		if unix.Stat(path, &st) == nil && unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC {
			spaces = append(spaces, fmt.Sprintf("net:[%d]", st.Ino))
		}
	}
	return spaces
}

// mounts are those at or below a directory, the latest first.
func mounts(dir string) []string {
	data, _ := os.ReadFile("/proc/self/mounts")
	var found []string
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 1 && (fields[1] == dir || strings.HasPrefix(fields[1], dir+"/")) {
			found = append(found, fields[1])
		}
	}
	slices.Reverse(found)
	return found
}
