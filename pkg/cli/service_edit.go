package cli

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// edit changes the service as the flags say. It may be called again on a newer reading of the service.
func (f *editFlags) edit(svc *v1.Service) error {
	t := &svc.Spec.Task
	c := &t.Container
	if f.changed("image") {
		c.Image = f.image
	}
	if f.args.set {
		c.Args = f.args.v
	}
	if f.force {
		t.ForceUpdate++
	}
	if err := f.apply(svc); err != nil {
		return err
	}
	if err := f.editMode(svc.Spec); err != nil {
		return err
	}
	svc.Spec.DependsOn = editKeyed(svc.Spec.DependsOn, f.dependsOn, func(d v1.Dependency) string { return d.Service })
	svc.Meta.Labels = editMap(svc.Meta.Labels, f.labels)
	c.Labels = editMap(c.Labels, f.containerLabels)
	c.Sysctls = editMap(c.Sysctls, f.sysctls)
	f.editCapabilities(c)
	f.editLists(c)
	f.editPlacement(t)
	f.editPorts(svc.Spec)
	for _, err := range []error{f.editMounts(c), f.editNetworks(t), f.editGeneric(t)} {
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *editFlags) editMode(s *v1.ServiceSpec) error {
	if f.replicas.set {
		if s.Mode != v1.ModeReplicated && s.Mode != v1.ModeReplicatedJob && s.Mode != "" {
			return errors.New("replicas can only be used with replicated mode")
		}
		s.Replicas = &f.replicas.v
	}
	if f.concurrent.set {
		if s.Mode != v1.ModeReplicatedJob {
			return errors.New("max-concurrent can only be used with replicated-job mode")
		}
		s.MaxConcurrent = &f.concurrent.v
	}
	return f.applyCron(s)
}

// editMap removes the keys that are to go and sets those that are to be.
func editMap(m map[string]string, e edit[string]) map[string]string {
	if len(e.add.all)+len(e.remove.all) == 0 {
		return m
	}
	m = maps.Clone(m)
	for _, key := range e.remove.all {
		key, _, _ := strings.Cut(key, "=")
		delete(m, key)
	}
	for key, v := range toMap(e.add.all) {
		if m == nil {
			m = make(map[string]string)
		}
		m[key] = v
	}
	if len(m) == 0 {
		return nil
	}
	return m
}

// editKeyed removes what has one of the keys, then puts each addition in the place of what has its key, or at the end.
func editKeyed[T any](old []T, e edit[T], key func(T) string) []T {
	all := slices.DeleteFunc(slices.Clone(old), func(v T) bool { return slices.Contains(e.remove.all, key(v)) })
	for _, add := range e.add.all {
		if i := slices.IndexFunc(all, func(v T) bool { return key(v) == key(add) }); i >= 0 {
			all[i] = add
		} else {
			all = append(all, add)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// editFiles removes files by what is in them, and adds others: one may be in a container at several paths, so that only what is added at
// the path where the same is already takes its place. The server refuses another's path.
func editFiles(old []v1.FileReference, e edit[v1.FileReference], folder string) []v1.FileReference {
	all := slices.DeleteFunc(slices.Clone(old), func(r v1.FileReference) bool { return slices.Contains(e.remove.all, r.Source) })
	return editKeyed(all, edit[v1.FileReference]{add: e.add, remove: newStrings()}, func(r v1.FileReference) string {
		return r.Source + " " + path.Clean(r.At(folder))
	})
}

// editSorted is a list in which order means nothing: without what is removed, with what is added, sorted.
func editSorted(old []string, e edit[string]) []string {
	if len(e.add.all)+len(e.remove.all) == 0 {
		return old
	}
	all := slices.Concat(old, e.add.all)
	all = slices.DeleteFunc(all, func(v string) bool { return slices.Contains(e.remove.all, v) })
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) == 0 {
		return nil
	}
	return all
}

func (f *editFlags) editLists(c *v1.ContainerSpec) {
	c.Env = editKeyed(c.Env, f.env, envName)
	c.Secrets = editFiles(c.Secrets, f.secrets, v1.SecretsFolder)
	c.Configs = editFiles(c.Configs, f.configs, v1.ConfigsFolder)
	c.Ulimits = ulimitList(c.Ulimits, f.ulimits.add.all, f.ulimits.remove.all)
	c.Groups = editSorted(c.Groups, f.groups)
	c.Hosts = f.editHosts(c.Hosts)
	if f.changed("dns-add", "dns-rm", "dns-option-add", "dns-option-rm", "dns-search-add", "dns-search-rm") {
		d := v1.DNSConfig{}
		if c.DNS != nil {
			d = *c.DNS
		}
		d.Nameservers = editSorted(d.Nameservers, f.dns)
		d.Options = editSorted(d.Options, f.dnsOption)
		d.Search = editSorted(d.Search, f.search)
		c.DNS = &d
	}
}

// editHosts removes names from lines of /etc/hosts, of any address or, given as host:ip, of that one, and adds lines.
func (f *editFlags) editHosts(old []string) []string {
	var all []string
	for _, line := range old {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		names := slices.DeleteFunc(fields[1:], func(name string) bool {
			return slices.ContainsFunc(f.hosts.remove.all, func(rm string) bool {
				host, ip, _ := strings.Cut(rm, ":")
				return host == name && (ip == "" || ip == fields[0])
			})
		})
		if len(names) > 0 {
			all = append(all, fields[0]+" "+strings.Join(names, " "))
		}
	}
	for _, line := range f.hosts.add.all {
		if !slices.Contains(all, line) {
			all = append(all, line)
		}
	}
	return all
}

// editCapabilities follows Docker's three states: what is added was dropped before and no longer is, or else is added; and
// the other way round.
func (f *editFlags) editCapabilities(c *v1.ContainerSpec) {
	if !f.changed("cap-add", "cap-drop") {
		return
	}
	set := func(names []string) map[string]bool {
		m := make(map[string]bool)
		for _, name := range names {
			m[capability(name)] = true
		}
		return m
	}
	adds, drops := set(c.CapabilityAdd), set(c.CapabilityDrop)
	toAdd, toDrop := set(f.capAdd.all), set(f.capDrop.all)
	if toAdd["RESET"] {
		clear(adds)
	}
	if toDrop["RESET"] {
		clear(drops)
	}
	move := func(names, from, to map[string]bool, skip map[string]bool) {
		for name := range names {
			switch {
			case name == "RESET" || skip[name]:
			case from[name]:
				delete(from, name)
			default:
				to[name] = true
			}
		}
	}
	move(toDrop, adds, drops, toAdd)
	move(toAdd, drops, adds, nil)
	c.CapabilityAdd, c.CapabilityDrop = effectiveCapabilities(slices.Collect(maps.Keys(adds)), slices.Collect(maps.Keys(drops)))
}

func (f *editFlags) editPlacement(t *v1.TaskSpec) {
	if f.changed("constraint-add", "constraint-rm") {
		p := placement(t)
		p.Constraints = editSorted(p.Constraints, f.constraints)
	}
	if f.changed("placement-pref-add", "placement-pref-rm") {
		p := placement(t)
		kept := slices.DeleteFunc(slices.Clone(p.Preferences), func(v v1.PlacementPreference) bool {
			return slices.Contains(f.removedPreferences.all, v)
		})
		p.Preferences = append(kept, f.preferences.all...)
	}
}

// inOrder are the elements after an edit in order, or as they were if they are the same: another order would be an update.
func inOrder[T any](before, after []T, compare func(x, y T) int) []T {
	was := slices.Clone(before)
	slices.SortStableFunc(was, compare)
	slices.SortStableFunc(after, compare)
	if reflect.DeepEqual(was, after) {
		return before
	}
	return after
}

// editPorts removes ports by target, protocol and mode, and adds ports that are not there yet.
func (f *editFlags) editPorts(s *v1.ServiceSpec) {
	if !f.changed("publish-add", "publish-rm") || s.Endpoint == nil && len(f.published.all) == 0 {
		return
	}
	e := endpoint(s)
	normal := func(p v1.PortConfig) v1.PortConfig {
		p.Protocol, p.Mode = cmp.Or(p.Protocol, v1.TCP), cmp.Or(p.Mode, v1.PublishIngress)
		return p
	}
	ports := slices.DeleteFunc(slices.Clone(e.Ports), func(p v1.PortConfig) bool {
		return slices.ContainsFunc(f.unpublished.all, func(rm v1.PortConfig) bool {
			p, rm := normal(p), normal(rm)
			return p.Target == rm.Target && p.Protocol == rm.Protocol && p.Mode == rm.Mode
		})
	})
	for _, add := range f.published.all {
		same := func(p v1.PortConfig) bool { return normal(p) == normal(add) }
		if !slices.ContainsFunc(ports, same) {
			ports = append(ports, add)
		}
	}
	ports = inOrder(e.Ports, ports, func(x, y v1.PortConfig) int {
		return cmp.Or(cmp.Compare(x.Published, y.Published), cmp.Compare(x.Target, y.Target), cmp.Compare(x.Protocol, y.Protocol))
	})
	if len(ports) == 0 {
		ports = nil
	}
	e.Ports = ports
}

func (f *editFlags) editMounts(c *v1.ContainerSpec) error {
	if !f.changed("mount-add", "mount-rm") {
		return nil
	}
	target := func(m v1.Mount) string { return m.Target }
	seen := make(map[string]bool)
	for _, m := range f.mounts.add.all {
		if seen[m.Target] {
			return errors.New("duplicate mount target")
		}
		seen[m.Target] = true
	}
	c.Mounts = inOrder(c.Mounts, editKeyed(c.Mounts, f.mounts, target), func(x, y v1.Mount) int {
		return cmp.Or(strings.Compare(x.Source, y.Source), strings.Compare(x.Target, y.Target))
	})
	return nil
}

func (f *editFlags) editNetworks(t *v1.TaskSpec) error {
	kept := slices.Clone(t.Networks)
	for _, ref := range f.networks.remove.all {
		id := f.book.id(ref)
		rest := slices.DeleteFunc(slices.Clone(kept), func(n v1.NetworkAttachment) bool { return f.book.id(n.Target) == id })
		if len(rest) == len(kept) && f.book.find(ref) == nil {
			return &notFoundError{v1.KindNetwork, ref}
		}
		kept = rest
	}
	for _, n := range f.book.whole(f.networks.add.all) {
		id := f.book.id(n.Target)
		if slices.ContainsFunc(kept, func(o v1.NetworkAttachment) bool { return f.book.id(o.Target) == id }) {
			return fmt.Errorf("service is already attached to network %s", n.Target)
		}
		kept = append(kept, n)
	}
	if len(kept) == 0 {
		kept = nil
	}
	t.Networks = kept
	return nil
}

func (f *editFlags) editGeneric(t *v1.TaskSpec) error {
	if !f.changed("generic-resource-add", "generic-resource-rm") {
		return nil
	}
	r := reservations(t)
	kind := func(g v1.GenericResource) string { return g.Kind }
	for _, name := range f.generic.remove.all {
		known := func(g v1.GenericResource) bool { return g.Kind == name }
		if !slices.ContainsFunc(slices.Concat(r.Generic, f.generic.add.all), known) {
			return fmt.Errorf("could not find generic-resource `%s` to remove it", name)
		}
	}
	r.Generic = editKeyed(r.Generic, f.generic, kind)
	return nil
}
