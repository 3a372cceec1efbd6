package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// recorded are the commands that tell what a namespace has. One that the machine does not have says so.
var recorded = []string{
	"ip -details -statistics link", "ip address", "ip rule", "ip -6 rule", "ip -details route show table all", "ip -6 route show table all",
	"ip -details neighbour", "bridge fdb", "nft list ruleset", "cat /proc/net/nf_conntrack", "ss -tnpi",
}

// Record writes what every daemon logged, and what is in the network namespace of every host and of all that the daemons made there, to files in a
// directory, for somebody to look into after the lab is gone.
func (l *Lab) Record(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var failed []error
	for _, h := range l.Hosts {
		for name, n := range h.namespaces() {
			failed = append(failed, os.WriteFile(filepath.Join(dir, name), n.contents(), 0o600))
			n.Leave()
		}
		failed = append(failed, os.WriteFile(filepath.Join(dir, h.Name+".log"), []byte(h.WholeLog()), 0o600))
	}
	return errors.Join(failed...)
}

// namespaces are the host's and those that its daemon mounted for routers and tasks, by name.
func (h *Host) namespaces() map[string]*Namespace {
	all := make(map[string]*Namespace)
	paths, _ := filepath.Glob(filepath.Join(h.Root, "network", "*", "*"))
	if h.Namespace != nil {
		paths = append(paths, h.Namespace.Path)
	}
	for _, path := range paths {
		if n, err := Inside(path); err == nil { // else it went meanwhile, or is no namespace
			all[strings.ReplaceAll(strings.TrimPrefix(path, h.lab.Dir+"/"), "/", "-")] = n
		}
	}
	return all
}

func (n *Namespace) contents() []byte {
	var all bytes.Buffer
	err := n.Do(func() error {
		for _, line := range recorded {
			fields := strings.Fields(line)
			out, err := exec.Command(fields[0], fields[1:]...).CombinedOutput()
			if fmt.Fprintf(&all, "# %s\n%s\n", line, out); err != nil {
				fmt.Fprintf(&all, "(%v)\n", err)
			}
		}
		return nil
	})
	if err != nil {
		fmt.Fprintln(&all, err)
	}
	return all.Bytes()
}
