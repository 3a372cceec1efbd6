package compose

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// container is what runs in a service's tasks.
func (c *converter) container(path, key string, s *types.ServiceConfig) v1.ContainerSpec {
	out := v1.ContainerSpec{
		Image:           s.Image,
		Labels:          c.labels(c.fileLabels(path, s)),
		Command:         c.command(path+".entrypoint", s.Entrypoint),
		Args:            c.command(path+".command", s.Command),
		Hostname:        s.Hostname,
		Env:             c.environment(path, s),
		Dir:             s.WorkingDir,
		User:            s.User,
		Groups:          s.GroupAdd,
		Privileges:      c.privileges(path+".security_opt", s.SecurityOpt),
		Init:            s.Init,
		StopSignal:      s.StopSignal,
		StopGracePeriod: duration(s.StopGracePeriod),
		TTY:             s.Tty,
		OpenStdin:       s.StdinOpen,
		ReadOnly:        s.ReadOnly,
		Mounts:          c.mounts(path, s),
		Healthcheck:     c.health(path+".healthcheck", s.HealthCheck),
		Hosts:           c.hosts(path+".extra_hosts", s.ExtraHosts),
		DNS:             dns(s),
		Secrets:         c.references(path+".secrets", "secrets", v1.SecretsFolder, secretReferences(s.Secrets)),
		Configs:         c.references(path+".configs", "configs", v1.ConfigsFolder, configReferences(s.Configs)),
		Sysctls:         s.Sysctls,
		CapabilityAdd:   s.CapAdd,
		CapabilityDrop:  s.CapDrop,
		Ulimits:         ulimits(s.Ulimits),
		OOMScoreAdj:     s.OomScoreAdj,
	}
	return out
}

// command is what replaces a part of the image's command line.
func (c *converter) command(path string, words types.ShellCommand) []string {
	if words != nil && len(words) == 0 {
		c.fail(path, "is empty: what the image runs cannot be taken away yet: leave it out, or write what to run")
	}
	return words
}

func (c *converter) health(path string, h *types.HealthCheckConfig) *v1.Healthcheck {
	if h == nil {
		return nil
	}
	if h.Disable {
		if len(h.Test) > 0 && h.Test[0] != "NONE" {
			c.fail(path, "has a test, and disable: true: want one or the other")
		}
		return &v1.Healthcheck{Test: []string{"NONE"}}
	}
	value := func(d *types.Duration) v1.Duration {
		if d == nil {
			return 0
		}
		return v1.Duration(*d)
	}
	out := &v1.Healthcheck{Test: h.Test, Interval: value(h.Interval), Timeout: value(h.Timeout), StartPeriod: value(h.StartPeriod),
		StartInterval: value(h.StartInterval)}
	if h.Retries != nil {
		out.Retries = int(min(*h.Retries, 1<<31-1))
	}
	return out
}

// hosts are lines of /etc/hosts, by name.
func (c *converter) hosts(path string, hosts types.HostsList) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		for _, address := range hosts[name] {
			if address == "host-gateway" {
				c.fail(path, "%s: host-gateway is not supported: write an address", name)
				continue
			}
			all = append(all, address+" "+name)
		}
	}
	return all
}

func dns(s *types.ServiceConfig) *v1.DNSConfig {
	if len(s.DNS)+len(s.DNSOpts)+len(s.DNSSearch) == 0 {
		return nil
	}
	return &v1.DNSConfig{Nameservers: s.DNS, Search: s.DNSSearch, Options: s.DNSOpts}
}

func ulimits(limits map[string]*types.UlimitsConfig) []v1.Ulimit {
	var all []v1.Ulimit
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		l := limits[name]
		out := v1.Ulimit{Name: name, Soft: int64(l.Soft), Hard: int64(l.Hard)}
		if l.Single != 0 {
			out.Soft, out.Hard = int64(l.Single), int64(l.Single)
		}
		all = append(all, out)
	}
	return all
}

// privileges are Docker's options of security.
func (c *converter) privileges(path string, options []string) *v1.Privileges {
	if len(options) == 0 {
		return nil
	}
	out := &v1.Privileges{}
	for i, option := range options {
		if !c.privilege(out, option) {
			c.fail(path+"["+strconv.Itoa(i)+"]", "%q is not supported: want no-new-privileges, seccomp=unconfined, seccomp=FILE, "+
				"apparmor=unconfined, label=disable, or label with user:, role:, type: or level:", option)
		}
	}
	return out
}

func (c *converter) privilege(out *v1.Privileges, option string) bool {
	i := strings.IndexAny(option, "=:")
	name, value := option, ""
	if i >= 0 {
		name, value = option[:i], option[i+1:]
	}
	switch name {
	case "no-new-privileges":
		on, err := strconv.ParseBool(value)
		out.NoNewPrivileges = on || i < 0
		return i < 0 || err == nil
	case "seccomp":
		out.Seccomp = &v1.SeccompConfig{Mode: "unconfined"}
		if value == "unconfined" {
			return true
		}
		profile, err := c.file(c.absolute(value), MaxFile)
		out.Seccomp = &v1.SeccompConfig{Mode: "custom", Profile: string(profile)}
		return err == nil
	case "apparmor":
		out.AppArmor = &v1.AppArmorConfig{Mode: "disabled"}
		return value == "unconfined"
	case "label":
		return label(out, value)
	}
	return false
}

func label(out *v1.Privileges, option string) bool {
	if out.SELinux == nil {
		out.SELinux = &v1.SELinuxConfig{}
	}
	s := out.SELinux
	name, value, _ := strings.Cut(option, ":")
	switch name {
	case "disable":
		s.Disable = true
	case "user":
		s.User = value
	case "role":
		s.Role = value
	case "type":
		s.Type = value
	case "level":
		s.Level = value
	default:
		return false
	}
	return true
}
