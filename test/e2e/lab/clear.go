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
	if err := l.endProcesses(); err != nil {
		return err
	}
	if err := l.unmount(); err != nil {
		return err
	}
	if err := l.removeCgroups(); err != nil {
		return err
	}
	return os.RemoveAll(l.Dir)
}

func (l *Lab) endProcesses() error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		pids, err := l.processes()
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

// processes are those that the lab's directory occurs in the command line of, or that run in a namespace of the lab: all
// of swarmd, containerd and its shims, and the containers.
func (l *Lab) processes() ([]int, error) {
	spaces := l.namespaces()
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
		ns, _ := os.Readlink(filepath.Join("/proc", e.Name(), "ns/net"))
		if bytes.Contains(cmdline, []byte(l.Dir+"/")) || slices.Contains(spaces, ns) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, after, _ := bytes.Cut(stat, []byte(") "))
	return bytes.HasPrefix(after, []byte("Z"))
}

// namespaces are the network namespaces mounted below the lab's directory, as /proc/PID/ns/net names them.
func (l *Lab) namespaces() []string {
	var spaces []string
	for _, path := range mounts(l.Dir) {
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

func (l *Lab) unmount() error {
	if l.bridge != nil {
		for _, n := range append([]*Namespace{l.bridge, l.Client}, l.hostNamespaces()...) {
			if n != nil && n.file != nil {
				n.file.Close()
			}
		}
	}
	for _, path := range mounts(l.Dir) {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	return nil
}

func (l *Lab) hostNamespaces() []*Namespace {
	var all []*Namespace
	for _, h := range l.Hosts {
		all = append(all, h.Namespace)
	}
	return all
}
