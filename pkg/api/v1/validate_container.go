package v1

import (
	"encoding/json"
	"net/netip"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func (c *checker) container(field string, s *ContainerSpec) {
	if _, err := ParseImageReference(s.Image); err != nil {
		c.fail(field+".image", "%v", err)
	}
	c.labels(field+".labels", s.Labels)
	c.arguments(field+".command", s.Command)
	if len(s.Command) > 0 && s.Command[0] == "" {
		c.fail(field+".command[0]", "is empty: want the program to run")
	}
	c.arguments(field+".args", s.Args)
	c.environment(field+".env", s.Env)
	if s.Hostname != "" && !strings.Contains(s.Hostname, "{{") && (len(s.Hostname) > MaxHostname || !isHostname(s.Hostname)) {
		c.fail(field+".hostname", "%q is not a host name: want at most %d letters, digits, - and .", cut(s.Hostname), MaxHostname)
	}
	c.word(field+".hostname", s.Hostname)
	if s.Dir != "" {
		c.absolute(field+".dir", s.Dir)
	}
	c.word(field+".user", s.User)
	if s.User != "" && printable(s.User) && !isUser(s.User) {
		c.fail(field+".user", "%q is not a user: want a name of letters, digits, _, ., - and $, or a number of 0 to 4294967294, "+
			"with an optional :group that looks the same", cut(s.User))
	}
	c.words(field+".groups", s.Groups, maxShort, "a group's name or number")
	if s.StopSignal != "" && !isSignal(s.StopSignal) {
		c.fail(field+".stopSignal", "%q is not a signal: want one such as SIGTERM, or 1 to 64", cut(s.StopSignal))
	}
	if s.StopGracePeriod != nil {
		c.duration(field+".stopGracePeriod", *s.StopGracePeriod)
	}
	if s.StopDrainDelay != nil {
		c.duration(field+".stopDrainDelay", *s.StopDrainDelay)
	}
	c.mounts(field, s)
	if s.Healthcheck != nil {
		c.healthcheck(field+".healthcheck", s.Healthcheck)
	}
	c.hosts(field+".hosts", s.Hosts)
	if s.DNS != nil {
		c.dns(field+".dns", s.DNS)
	}
	c.security(field, s)
	if s.OOMScoreAdj < -1000 || s.OOMScoreAdj > 1000 {
		c.fail(field+".oomScoreAdj", "%d is out of range: want -1000 to 1000", s.OOMScoreAdj)
	}
}

// words checks a list of short texts, none of them empty.
func (c *checker) words(field string, list []string, most int, noun string) {
	if !c.count(field, len(list), most) {
		return
	}
	for i, s := range list {
		if s == "" {
			c.fail(at(field, i), "is empty: want %s", noun)
		}
		c.word(at(field, i), s)
	}
}

func (c *checker) arguments(field string, list []string) {
	if !c.count(field, len(list), maxArgs) {
		return
	}
	for i, s := range list {
		c.argument(at(field, i), s)
	}
}

func (c *checker) argument(field, s string) {
	if len(s) > MaxArgument {
		c.fail(field, "has %d bytes, at most %d are allowed", len(s), MaxArgument)
	}
	c.noNUL(field, s)
}

func (c *checker) environment(field string, list []string) {
	if !c.count(field, len(list), maxArgs) {
		return
	}
	for i, s := range list {
		if name, _, ok := strings.Cut(s, "="); !ok || name == "" {
			c.fail(at(field, i), "%q is not a variable: want NAME=value", cut(s))
		}
		c.argument(at(field, i), s)
	}
}

func (c *checker) mounts(field string, s *ContainerSpec) {
	targets := make(map[string]string) // target → field that has it
	target := func(entry, at string) {
		c.absolute(entry+".target", at)
		if other, taken := targets[path.Clean(at)]; taken {
			c.fail(entry+".target", "%q is the target of %s already", cut(at), other)
			return
		}
		targets[path.Clean(at)] = entry
	}
	if c.count(field+".mounts", len(s.Mounts), maxMounts) {
		for i := range s.Mounts {
			entry := at(field+".mounts", i)
			c.mount(entry, &s.Mounts[i])
			target(entry, s.Mounts[i].Target)
		}
	}
	for _, list := range []struct {
		name string
		refs []FileReference
	}{{"secrets", s.Secrets}, {"configs", s.Configs}} {
		if !c.count(field+"."+list.name, len(list.refs), maxReferences) {
			continue
		}
		for i := range list.refs {
			entry := at(field+"."+list.name, i)
			c.reference(entry, &list.refs[i])
			if target(entry, list.refs[i].Target); path.Clean(list.refs[i].Target) == "/" {
				c.fail(entry+".target", "%q is a folder: want the path of a file", cut(list.refs[i].Target))
			}
		}
	}
}

func (c *checker) mount(field string, m *Mount) {
	choice(c, field+".type", m.Type, MountVolume, MountBind, MountTmpfs)
	c.word(field+".source", m.Source)
	for _, o := range []struct {
		name  string
		given bool
		of    MountType
	}{{"bind", m.Bind != nil, MountBind}, {"volume", m.Volume != nil, MountVolume}, {"tmpfs", m.Tmpfs != nil, MountTmpfs}} {
		if o.given && m.Type != o.of {
			c.fail(field+"."+o.name, "is for mounts of type %s, not of type %s", o.of, cut(string(m.Type)))
		}
	}
	switch m.Type {
	case MountBind:
		c.absolute(field+".source", m.Source)
		if m.Bind != nil {
			c.bind(field, m)
		}
	case MountTmpfs:
		if m.Source != "" {
			c.fail(field+".source", "a tmpfs has no source")
		}
		if m.Tmpfs != nil && m.Tmpfs.Size < 0 {
			c.fail(field+".tmpfs.size", "%d is out of range: want 0 (no limit) or more", m.Tmpfs.Size)
		}
		if m.Tmpfs != nil && m.Tmpfs.Mode > 0o7777 {
			c.fail(field+".tmpfs.mode", "%#o is out of range: want 0 to 07777", m.Tmpfs.Mode)
		}
	case MountVolume:
		if m.Source != "" && !strings.Contains(m.Source, "{{") {
			if err := ValidateName(KindVolume, m.Source); err != nil {
				c.fail(field+".source", "%v", err)
			}
		}
		if v := m.Volume; v != nil {
			c.subpath(field+".volume.subpath", m.Source, v.Subpath)
			c.labels(field+".volume.labels", v.Labels)
			if v.Driver != nil {
				c.driver(field+".volume.driver", v.Driver)
				c.localVolume(field+".volume.driver.options", v.Driver.Name, v.Driver.Options)
			}
		}
	}
}

func (c *checker) bind(field string, m *Mount) {
	b := m.Bind
	if b.Propagation != "" {
		choice(c, field+".bind.propagation", b.Propagation, "private", "rprivate", "shared", "rshared", "slave", "rslave")
	}
	if b.Recursive == "" {
		return
	}
	choice(c, field+".bind.recursive", b.Recursive, "enabled", "disabled", "writable", "readonly")
	switch {
	case b.Recursive == "writable" && !m.ReadOnly:
		c.fail(field+".bind.recursive", "writable is for mounts that are readOnly")
	case b.Recursive == "readonly" && !m.ReadOnly:
		c.fail(field+".bind.recursive", "readonly is for mounts that are readOnly")
	case b.Recursive == "readonly" && b.Propagation != "rprivate":
		c.fail(field+".bind.recursive", "readonly needs the propagation rprivate to be given")
	}
}

// subpath checks a path in a volume, by its letters: where links lead shows on the node.
func (c *checker) subpath(field, volume, subpath string) {
	c.word(field, subpath)
	switch {
	case subpath == "":
	case volume == "":
		c.fail(field, "is for volumes with a name: one without is empty")
	case !filepath.IsLocal(subpath):
		c.fail(field, "%q is no path in the volume: want a relative one without ..", cut(subpath))
	}
}

func (c *checker) reference(field string, r *FileReference) {
	if r.Source == "" {
		c.fail(field+".source", "is missing: want a name or ID")
	}
	c.word(field+".source", r.Source)
	if r.OnChange != "" {
		choice(c, field+".onChange", r.OnChange, ChangeRestart, ChangeNone, ChangeSignal)
	}
	for _, id := range []struct{ name, value string }{{"uid", r.UID}, {"gid", r.GID}} {
		if _, err := strconv.ParseUint(id.value, 10, 32); err != nil {
			c.fail(field+"."+id.name, "%q is not a number: want 0 to 4294967295", cut(id.value))
		}
	}
	if r.Mode != nil && *r.Mode > 0o7777 {
		c.fail(field+".mode", "%#o is out of range: want 0 to 07777", *r.Mode)
	}
}

func (c *checker) healthcheck(field string, h *Healthcheck) {
	c.arguments(field+".test", h.Test)
	if len(h.Test) > 0 {
		choice(c, at(field+".test", 0), h.Test[0], "NONE", "CMD", "CMD-SHELL")
		switch n := len(h.Test); {
		case h.Test[0] == "NONE" && n > 1:
			c.fail(field+".test", "NONE stands alone")
		case h.Test[0] == "CMD" && n < 2:
			c.fail(field+".test", "CMD needs a command: want [CMD, command, argument…]")
		case h.Test[0] == "CMD-SHELL" && n != 2:
			c.fail(field+".test", "CMD-SHELL needs one command line: want [CMD-SHELL, command line]")
		}
	}
	c.probes(field, h)
	for _, d := range []struct {
		name  string
		value Duration
	}{
		{"interval", h.Interval}, {"timeout", h.Timeout}, {"startPeriod", h.StartPeriod}, {"startInterval", h.StartInterval},
	} {
		if d.value != 0 && d.value < minHealthDuration || d.value > MaxDuration {
			c.fail(field+"."+d.name, "%s is out of range: want 0s (the default), or 1ms to %s", d.value, MaxDuration)
		}
	}
	if h.Retries < 0 || h.Retries > 10_000 {
		c.fail(field+".retries", "%d is out of range: want 0 (the default) to 10000", h.Retries)
	}
}

// probes checks those that the node makes.
func (c *checker) probes(field string, h *Healthcheck) {
	given := 0
	for _, is := range []bool{len(h.Test) > 0, h.HTTP != nil, h.TCP != nil} {
		if is {
			given++
		}
	}
	if given > 1 {
		c.fail(field, "has more than one of test, http and tcp: want one")
	}
	if p := h.HTTP; p != nil {
		c.probePort(field+".http.port", p.Port)
		choice(c, field+".http.scheme", p.Scheme, "http", "https")
		c.word(field+".http.path", p.Path)
		if u, err := url.ParseRequestURI(p.Path); err != nil || u.Host != "" || !strings.HasPrefix(p.Path, "/") {
			c.fail(field+".http.path", "%q is not a path: want one such as /healthz", cut(p.Path))
		}
	}
	if p := h.TCP; p != nil {
		c.probePort(field+".tcp.port", p.Port)
	}
}

func (c *checker) probePort(field string, port uint16) {
	if port == 0 {
		c.fail(field, "is missing: want the port in the container, 1 to 65535")
	}
}

func (c *checker) hosts(field string, list []string) {
	if !c.count(field, len(list), maxHosts) {
		return
	}
	for i, line := range list {
		c.word(at(field, i), line)
		words := strings.Fields(line)
		if len(words) < 2 {
			c.fail(at(field, i), "%q is not a host entry: want an address and names, such as 10.1.2.3 db.example.org", cut(line))
			continue
		}
		if _, err := netip.ParseAddr(words[0]); err != nil {
			c.fail(at(field, i), "%q is not an IP address: want one before the names, such as 10.1.2.3 db.example.org", cut(words[0]))
		}
		for _, name := range words[1:] {
			if !isHostname(name) {
				c.fail(at(field, i), "%q is not a host name", cut(name))
			}
		}
	}
}

func (c *checker) dns(field string, d *DNSConfig) {
	c.words(field+".nameservers", d.Nameservers, maxShort, "an IP address")
	for i, s := range d.Nameservers {
		if _, err := netip.ParseAddr(s); err != nil && s != "" {
			c.fail(at(field+".nameservers", i), "%q is not an IP address", cut(s))
		}
	}
	c.words(field+".search", d.Search, maxShort, "a domain")
	for i, s := range d.Search {
		if s != "" && s != "." && !isHostname(strings.TrimSuffix(s, ".")) {
			c.fail(at(field+".search", i), "%q is not a domain", cut(s))
		}
	}
	c.words(field+".options", d.Options, maxShort, "an option of resolv.conf")
	for i, s := range d.Options {
		if strings.ContainsAny(s, " \t") {
			c.fail(at(field+".options", i), "%q is not one option of resolv.conf: want one such as ndots:1", cut(s))
		}
	}
}

// security checks what a container may do to its kernel.
func (c *checker) security(field string, s *ContainerSpec) {
	if p := s.Privileges; p != nil {
		c.privileges(field+".privileges", p)
	}
	c.dictionary(field+".sysctls", s.Sysctls, "a sysctl", maxOptions, MaxLabelKey, MaxString)
	for name, value := range s.Sysctls {
		entry := field + ".sysctls[" + strconv.Quote(cut(name)) + "]"
		switch {
		case !isSysctl(name):
			c.fail(entry, "is not a sysctl: want words of letters, digits, _ and - with single dots between, such as net.core.somaxconn")
		case !isNamespaced(name):
			c.fail(entry, "would change the whole node: want net.*, kernel.msg*, kernel.sem, kernel.shm*, kernel.domainname or fs.mqueue.*")
		}
		if !printable(value) {
			c.fail(entry, "the value %q holds control characters: want one line of printable characters", cut(value))
		}
	}
	for _, list := range []struct {
		name string
		caps []string
	}{{"capabilityAdd", s.CapabilityAdd}, {"capabilityDrop", s.CapabilityDrop}} {
		if !c.count(field+"."+list.name, len(list.caps), maxShort) {
			continue
		}
		for i, name := range list.caps {
			if !isCapability(name) {
				c.fail(at(field+"."+list.name, i), "%q is not a capability: want ALL, or one such as NET_ADMIN", cut(name))
			}
		}
	}
	c.ulimits(field+".ulimits", s.Ulimits)
}

func (c *checker) privileges(field string, p *Privileges) {
	if s := p.Seccomp; s != nil {
		if s.Mode != "" {
			choice(c, field+".seccomp.mode", s.Mode, "default", "unconfined", "custom")
		}
		switch {
		case s.Mode == "custom" && !json.Valid([]byte(s.Profile)):
			c.fail(field+".seccomp.profile", "is not JSON: want a seccomp profile in Docker's format")
		case s.Mode != "custom" && s.Profile != "":
			c.fail(field+".seccomp.profile", "is for mode custom")
		}
	}
	if p.AppArmor != nil && p.AppArmor.Mode != "" {
		choice(c, field+".appArmor.mode", p.AppArmor.Mode, "default", "disabled")
	}
	if s := p.SELinux; s != nil {
		for _, f := range []struct{ name, value string }{{"user", s.User}, {"role", s.Role}, {"type", s.Type}, {"level", s.Level}} {
			c.word(field+".seLinux."+f.name, f.value)
			if s.Disable && f.value != "" {
				c.fail(field+".seLinux."+f.name, "means nothing where seLinux.disable is true")
			}
		}
	}
}

func (c *checker) ulimits(field string, list []Ulimit) {
	if !c.count(field, len(list), maxShort) {
		return
	}
	seen := make(map[string]bool, len(list))
	for i, u := range list {
		entry := at(field, i)
		choice(c, entry+".name", u.Name, ulimitNames...)
		if seen[u.Name] {
			c.fail(entry+".name", "%q is given twice", cut(u.Name))
		}
		seen[u.Name] = true
		for _, v := range []struct {
			name  string
			value int64
		}{{"soft", u.Soft}, {"hard", u.Hard}} {
			if v.value < -1 {
				c.fail(entry+"."+v.name, "%d is out of range: want 0 or more, or -1 for no limit", v.value)
			}
		}
		if u.Hard != -1 && (u.Soft > u.Hard || u.Soft == -1) {
			c.fail(entry+".soft", "is above the hard limit of %d", u.Hard)
		}
	}
}

// MaxHostname is how long a container's hostname may be, in bytes: Linux takes no more (__NEW_UTS_LEN).
const MaxHostname = 64

// isHostname tells whether s is made of labels with dots between. Underscores are allowed, as resolvers do.
func isHostname(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		rule := nameRule{most: 63, inner: "-_"}
		if !rule.matches(strings.TrimLeft(label, "_")) {
			return false
		}
	}
	return true
}

// isNamespaced tells whether a sysctl belongs to a container's own namespaces. It looks at how the name begins, which says
// where the setting is only of names that isSysctl takes.
func isNamespaced(name string) bool {
	name = strings.ReplaceAll(name, "/", ".")
	return strings.HasPrefix(name, "net.") || strings.HasPrefix(name, "fs.mqueue.") || slices.Contains(ipcSysctls, name)
}
