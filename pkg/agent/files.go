package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/tmpfs"
)

// The files of a task are those that Docker gives each container: its host name, the hosts it knows, its resolver.

const (
	hostsHead = "127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\n" +
		"ff00::\tip6-mcastprefix\n" +
		"ff02::1\tip6-allnodes\n" +
		"ff02::2\tip6-allrouters\n"
	// systemdResolv is the real configuration where the machine's own is systemd-resolved's stub.
	systemdResolv = "/run/systemd/resolve/resolv.conf"
	systemdStub   = "127.0.0.53"
)

// hostsFile is a task's /etc/hosts.
func hostsFile(own []netip.Addr, hostname string, extra []string) []byte {
	var b bytes.Buffer
	b.WriteString(hostsHead)
	for _, line := range extra {
		ip, names, _ := strings.Cut(strings.TrimSpace(line), " ")
		fmt.Fprintf(&b, "%s\t%s\n", ip, strings.TrimSpace(names))
	}
	for _, addr := range own {
		fmt.Fprintf(&b, "%s\t%s\n", addr, hostname)
	}
	return b.Bytes()
}

// resolver is what a resolv.conf says.
type resolver struct {
	nameservers, search, options []string
}

func parseResolver(text []byte) resolver {
	var r resolver
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			r.nameservers = append(r.nameservers, fields[1])
		case "search", "domain":
			r.search = fields[1:]
		case "options":
			r.options = append(r.options, fields[1:]...)
		}
	}
	return r
}

// forContainer leaves out nameservers that only the machine itself can reach, as Docker does, and falls back on public
// ones as Docker does if none is left.
func (r resolver) forContainer() resolver {
	var reachable []string
	for _, n := range r.nameservers {
		host, _, _ := strings.Cut(n, "%")
		if addr, err := netip.ParseAddr(host); err == nil && !addr.IsLoopback() {
			reachable = append(reachable, n)
		}
	}
	if r.nameservers = reachable; len(reachable) == 0 {
		r.nameservers = []string{"8.8.8.8", "8.8.4.4"}
	}
	return r
}

// override replaces what the spec gives.
func (r resolver) override(c *v1.DNSConfig) resolver {
	if c == nil {
		return r
	}
	if len(c.Nameservers) > 0 {
		r.nameservers = c.Nameservers
	}
	if len(c.Search) > 0 {
		r.search = c.Search
	}
	if len(c.Options) > 0 {
		r.options = c.Options
	}
	return r
}

func (r resolver) file() []byte {
	var b bytes.Buffer
	for _, n := range r.nameservers {
		fmt.Fprintf(&b, "nameserver %s\n", n)
	}
	if len(r.search) > 0 && !slices.Equal(r.search, []string{"."}) { // a lone dot means none, as with Docker
		fmt.Fprintf(&b, "search %s\n", strings.Join(r.search, " "))
	}
	if len(r.options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(r.options, " "))
	}
	return b.Bytes()
}

// swarmResolver is where tasks find the swarm's own resolver, as with Docker.
const swarmResolver = "127.0.0.11"

// bySwarm has the swarm's resolver asked first, which asks the others where it has to. Options are those of the machine, or of the
// spec, with Docker's default of ndots.
func (r resolver) bySwarm() resolver {
	r.nameservers = []string{swarmResolver}
	if !slices.ContainsFunc(r.options, func(o string) bool { return strings.HasPrefix(o, "ndots:") }) {
		r.options = append(slices.Clone(r.options), "ndots:0")
	}
	return r
}

// ownAddresses are those that a task knows itself by: on its first network, as with Docker, or else on the gateway network.
func (a *Agent) ownAddresses(t *task) []netip.Addr {
	for _, at := range placedAt(t.networks()) {
		return at.addresses
	}
	if t.addr.IsValid() {
		return []netip.Addr{t.addr}
	}
	return nil
}

// hostResolver is the machine's resolver configuration; one that cannot be read is like an empty one.
func (a *Agent) hostResolver() resolver {
	text, err := os.ReadFile(a.o.ResolvConf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("cannot read the machine's resolver configuration", "err", err)
	}
	r := parseResolver(text)
	if len(r.nameservers) == 1 && r.nameservers[0] == systemdStub {
		if text, err := os.ReadFile(systemdResolv); err == nil {
			r = parseResolver(text)
		}
	}
	return r
}

// writeFiles writes a task's files. Workers call it.
func (a *Agent) writeFiles(id string, own []netip.Addr, spec *v1.ContainerSpec) error {
	if a.o.Dir == "" {
		return nil
	}
	dir := a.taskDir(id)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	r := a.hostResolver().forContainer().override(spec.DNS)
	if a.o.Names != nil && a.o.Network != nil {
		r = r.bySwarm()
	}
	files := map[string][]byte{
		"hostname":    []byte(spec.Hostname + "\n"),
		"hosts":       hostsFile(own, spec.Hostname, spec.Hosts),
		"resolv.conf": r.file(),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// files are a task's files as the container has to have them mounted.
func (a *Agent) files(id string) map[string]string {
	if a.o.Dir == "" {
		return nil
	}
	dir := a.taskDir(id)
	return map[string]string{
		"/etc/hostname":    filepath.Join(dir, "hostname"),
		"/etc/hosts":       filepath.Join(dir, "hosts"),
		"/etc/resolv.conf": filepath.Join(dir, "resolv.conf"),
	}
}

func (a *Agent) taskDir(id string) string { return filepath.Join(filesDir(a.o.Dir), id) }

// filesDir is where an agent's Dir has the tasks' files.
func filesDir(dir string) string { return filepath.Join(dir, "tasks") }

// filesSize bounds the memory of all tasks' files, which their containers may write to. A task's own are below 16 KiB.
const filesSize = "128m"

// MountFiles has the tasks' files of an agent with this Dir in memory from now on, where there are none on its disk: they are made with each
// task, and go with it. It needs root, and is idempotent.
func MountFiles(dir string) error {
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.MkdirAll(filesDir(dir), 0o711)); err != nil {
		return err
	}
	return tmpfs.Mount(filesDir(dir), "mode=0711,size="+filesSize)
}

// UnmountFiles is for when the agent is done for good: its tasks' files are gone. It is idempotent.
func UnmountFiles(dir string) error { return tmpfs.Unmount(filesDir(dir)) }

// removeFiles removes a task's files. Workers call it.
func (a *Agent) removeFiles(id string) error {
	if a.o.Dir == "" {
		return nil
	}
	return os.RemoveAll(a.taskDir(id))
}

// removeStrayFiles removes the files of tasks that are not known any more.
func (a *Agent) removeStrayFiles() {
	if a.o.Dir == "" {
		return
	}
	entries, _ := os.ReadDir(filesDir(a.o.Dir)) // none is as good as empty
	for _, e := range entries {
		if a.tasks[e.Name()] == nil {
			err := a.o.Runtime.DropFiles(a.ctx, e.Name()) // no container of that name is left
			if err == nil {
				err = a.removeFiles(e.Name())
			}
			if err != nil {
				a.log.Warn("cannot remove a task's files", "task.id", e.Name(), "err", err)
			}
		}
	}
}
