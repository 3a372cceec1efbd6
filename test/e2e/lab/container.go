package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Containers are the processes of the containers that run on the host, by the IDs of the containers. It asks the kernel: a container
// is the living child of a shim, whatever containerd and swarmd think of it.
func (h *Host) Containers() (map[string]int, error) {
	shims, err := h.Shims()
	if err != nil {
		return nil, err
	}
	found := make(map[string]int)
	_, err = processes(func(pid int, line []string) bool {
		id := shims[parent(pid)]
		if id == "" {
			return false
		}
		// What keeps the logs is the shim's child too, but not in a process namespace of its own; a container that was made and not
		// started yet is runc.
		ours, _ := os.Readlink("/proc/self/ns/pid")
		space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
		if err == nil && space != ours && filepath.Base(line[0]) != "runc" {
			found[id] = pid
		}
		return false
	})
	return found, err
}

// Shims are the processes that keep the host's containers, with the IDs of these.
func (h *Host) Shims() (map[int]string, error) {
	ids := make(map[int]string)
	// Where the path is too long for a socket, containerd's is in a folder of /run.
	sockets := []string{h.Root + "/", "/run/" + engineName(filepath.Join(h.Root, "containerd")) + "/"}
	_, err := processes(func(pid int, line []string) bool {
		at := slices.Index(line, "-id")
		if strings.HasPrefix(filepath.Base(line[0]), "containerd-shim") && at >= 0 && at+1 < len(line) &&
			slices.ContainsFunc(line, func(word string) bool {
				return strings.HasPrefix(word, sockets[0]) || strings.HasPrefix(word, sockets[1])
			}) {
			ids[pid] = line[at+1]
		}
		return false
	})
	return ids, err
}

// parent is the process that a process is the child of.
func parent(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	var ppid int
	_, after, _ := bytes.Cut(stat, []byte(") "))
	if _, err := fmt.Sscanf(string(after), "%s %d", new(string), &ppid); err != nil {
		return 0
	}
	return ppid
}
