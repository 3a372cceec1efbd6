package cli

import (
	"cmp"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

func convertContainer(c *v1.ContainerSpec, n names) *dockerContainerSpec {
	d := &dockerContainerSpec{
		Image: c.Image, Labels: c.Labels, Command: c.Command, Args: c.Args, Hostname: c.Hostname, Env: c.Env, Dir: c.Dir,
		User: c.User, Groups: c.Groups, Privileges: convertPrivileges(c.Privileges), Init: c.Init, StopSignal: c.StopSignal,
		TTY: c.TTY, OpenStdin: c.OpenStdin, ReadOnly: c.ReadOnly, Healthcheck: convertHealthcheck(c.Healthcheck),
		Hosts: c.Hosts, Isolation: "default", Sysctls: c.Sysctls, CapabilityAdd: c.CapabilityAdd, CapabilityDrop: c.CapabilityDrop,
		OomScoreAdj: c.OOMScoreAdj,
	}
	if c.StopGracePeriod != nil {
		grace := time.Duration(*c.StopGracePeriod)
		d.StopGracePeriod = &grace
	}
	if c.DNS != nil {
		d.DNSConfig = &dockerDNSConfig{c.DNS.Nameservers, c.DNS.Search, c.DNS.Options}
	}
	for _, m := range c.Mounts {
		d.Mounts = append(d.Mounts, convertMount(&m))
	}
	for _, r := range c.Secrets {
		d.Secrets = append(d.Secrets, dockerSecretRef{convertFile(&r), cmp.Or(r.ID, n.id(v1.KindSecret, r.Source)), r.Source, string(r.OnChange)})
	}
	for _, r := range c.Configs {
		d.Configs = append(d.Configs, dockerConfigRef{convertFile(&r), cmp.Or(r.ID, n.id(v1.KindConfig, r.Source)), r.Source, string(r.OnChange)})
	}
	for _, u := range c.Ulimits {
		d.Ulimits = append(d.Ulimits, dockerUlimit{u.Name, u.Hard, u.Soft})
	}
	return d
}

func convertFile(r *v1.FileReference) *dockerFile {
	f := &dockerFile{cmp.Or(r.Target, r.Source), cmp.Or(r.UID, "0"), cmp.Or(r.GID, "0"), 0o444}
	if r.Mode != nil {
		f.Mode = *r.Mode
	}
	return f
}

func convertMount(m *v1.Mount) dockerMount {
	d := dockerMount{Type: string(cmp.Or(m.Type, v1.MountVolume)), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
	if b := m.Bind; b != nil {
		d.BindOptions = &dockerBindOptions{b.Propagation, b.Recursive == "disabled", b.Recursive == "writable", b.Recursive == "readonly"}
	}
	if v := m.Volume; v != nil {
		d.VolumeOptions = &dockerVolumeOptions{v.NoCopy, v.Labels, v.Subpath, convertDriver(v.Driver)}
	}
	if t := m.Tmpfs; t != nil {
		d.TmpfsOptions = &dockerTmpfsOptions{int64(t.Size), t.Mode}
	}
	return d
}

func convertHealthcheck(h *v1.Healthcheck) *dockerHealthcheck {
	if h == nil {
		return nil
	}
	return &dockerHealthcheck{h.Test, time.Duration(h.Interval), time.Duration(h.Timeout), time.Duration(h.StartPeriod),
		time.Duration(h.StartInterval), h.Retries, h.HTTP, h.TCP}
}

func convertPrivileges(p *v1.Privileges) *dockerPrivileges {
	if p == nil {
		return nil
	}
	d := &dockerPrivileges{NoNewPrivileges: p.NoNewPrivileges}
	if s := p.SELinux; s != nil {
		d.SELinuxContext = &dockerSELinux{s.Disable, s.User, s.Role, s.Type, s.Level}
	}
	if s := p.Seccomp; s != nil {
		d.Seccomp = &dockerSeccomp{Mode: s.Mode, Profile: []byte(s.Profile)}
	}
	if s := p.AppArmor; s != nil {
		d.AppArmor = &dockerPrivilegeMode{s.Mode}
	}
	return d
}
