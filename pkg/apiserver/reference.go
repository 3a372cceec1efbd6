package apiserver

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// checkReferences refuses an object that does not go with those that there are, in Docker's words. The object has, or will
// have, the ID; the IDs of what a service refers to are written into it.
func checkReferences(s *store.Snapshot, obj v1.Object, id string) error {
	switch obj := obj.(type) {
	case *v1.Network:
		return checkSubnets(s, obj.Spec)
	case *v1.Attachment:
		return checkAttachment(s, obj.Spec, id)
	case *v1.Service:
		pinVolumes(s, &obj.Spec.Task.Container)
		if err := pinFiles(s, &obj.Spec.Task.Container); err != nil {
			return err
		}
		if err := checkAttachments(s, obj.Spec.Task.Networks); err != nil {
			return err
		}
		if err := checkDependencies(s, obj); err != nil {
			return err
		}
		return portsFree(s, obj, id)
	}
	return nil
}

// checkDependencies refuses services that need each other: none would ever start.
func checkDependencies(s *store.Snapshot, service *v1.Service) error {
	circle := v1.DependencyCycle(service.Meta.Name, func(name string) []v1.Dependency {
		if name == service.Meta.Name {
			return service.Spec.DependsOn
		}
		if id, ok := s.ByName(v1.KindService, name); ok {
			other, _ := store.Get(s, v1.Services, id)
			return other.Spec.DependsOn
		}
		return nil
	})
	if circle != "" {
		return v1.FieldErrors{{Field: "spec.dependsOn", Message: "services need each other: " + circle}}
	}
	return nil
}

// exact finds an object by its whole ID or its name.
func exact(s *store.Snapshot, k v1.Kind, ref string) (v1.Object, error) {
	if obj, ok := s.Lookup(k, ref); ok && there(obj) {
		return obj, nil
	}
	if id, ok := s.ByName(k, ref); ok {
		if obj, ok := s.Lookup(k, id); ok {
			return obj, nil
		}
	}
	return nil, &store.NotFoundError{Kind: k, Ref: ref}
}

// published is a port as it is seen from outside.
type published struct {
	protocol v1.Protocol
	port     uint16
}

// portsFree refuses ports that another service has: a port of the mesh excludes everybody, one of the hosts only the mesh.
func portsFree(s *store.Snapshot, service *v1.Service, id string) error {
	mine := portsOf(service)
	if len(mine) == 0 {
		return nil
	}
	for port := range mine {
		if err := cmp.Or(notOfNodes(s, port), notOfWires(s, port)); err != nil {
			return err
		}
	}
	for other := range store.All(s, v1.Services) {
		if other.Meta.ID == id || !there(other) {
			continue
		}
		for port, mode := range portsOf(other) {
			if m, ok := mine[port]; ok && (m == v1.PublishIngress || mode == v1.PublishIngress) {
				return problemf(http.StatusBadRequest, "port '%d' is already in use by service '%s' (%s)", port.port, other.Meta.Name, other.Meta.ID)
			}
		}
	}
	return nil
}

// notOfNodes refuses a port that nodes reach each other by: published, it would lead to a task instead.
func notOfNodes(s *store.Snapshot, port published) error {
	switch {
	case port.protocol == v1.UDP && port.port == cmp.Or(dataPort(s), v1.DefaultDataPort):
		return problemf(http.StatusBadRequest, "port '%d/udp' is that by which nodes send each other the packets of tasks: publish another", port.port)
	case port.protocol == v1.TCP && managersListen(s, strconv.Itoa(int(port.port))):
		return problemf(http.StatusBadRequest, "port '%d' is that at which managers listen: publish another", port.port)
	}
	return nil
}

// managersListen tells whether managers listen at a port, or one that is promoted would where nothing else was said.
func managersListen(s *store.Snapshot, port string) bool {
	for m := range store.All(s, v1.Members) {
		if m.Status == nil {
			continue
		}
		if _, theirs, err := net.SplitHostPort(m.Status.Addr); err == nil && theirs == port {
			return true
		}
	}
	return port == defaultPort
}

// notOfWires refuses a port that an encrypted network has on every node of its tasks.
func notOfWires(s *store.Snapshot, port published) error {
	if port.protocol != v1.UDP || port.port < v1.FirstEncryptedPort {
		return nil
	}
	for id := range s.NetworksWithVNI(v1.FirstVNI + uint32(port.port) - v1.FirstEncryptedPort) {
		if n, ok := store.Get(s, v1.Networks, id); ok && n.Spec != nil && n.Spec.Encrypted() {
			return problemf(http.StatusBadRequest, "port '%d/udp' is that by which nodes send each other the packets of the encrypted network '%s' (%s): publish another",
				port.port, n.Meta.Name, id)
		}
	}
	return nil
}

// portsOf are the ports that a service publishes, also those that were chosen for it.
func portsOf(s *v1.Service) map[published]v1.PublishMode {
	var lists [][]v1.PortConfig
	if s.Spec.Endpoint != nil {
		lists = append(lists, s.Spec.Endpoint.Ports)
	}
	if s.Desired != nil {
		lists = append(lists, s.Desired.Ports)
		if back := s.Desired.RolledBack; back != nil && back.Endpoint != nil {
			lists = append(lists, back.Endpoint.Ports)
		}
	}
	var ports map[published]v1.PublishMode
	for _, list := range lists {
		for _, p := range list {
			if p.Published == 0 {
				continue
			}
			if ports == nil {
				ports = make(map[published]v1.PublishMode)
			}
			ports[published{p.Protocol, p.Published}] = p.Mode
		}
	}
	return ports
}

// checkUnchanged refuses an update of what never changes, in Docker's words.
func checkUnchanged(old, obj v1.Object) error {
	if was, is := old.GetMeta().Name, obj.GetMeta().Name; was != is {
		return problemf(http.StatusNotImplemented, "renaming %ss is not supported", strings.ToLower(string(v1.ManifestOf(old).Kind)))
	}
	switch old := old.(type) {
	case *v1.Service:
		if old.Spec.Mode != obj.(*v1.Service).Spec.Mode {
			return problemf(http.StatusNotImplemented, "service mode change is not allowed")
		}
	case *v1.Cluster:
		return checkClusterChange(old, obj.(*v1.Cluster))
	case *v1.Node:
		return checkNodeChange(old.Spec, obj.(*v1.Node).Spec)
	case *v1.Secret:
		return labelsOnly(old.Spec, obj.(*v1.Secret).Spec)
	case *v1.Config:
		return labelsOnly(old.Spec, obj.(*v1.Config).Spec)
	case *v1.Network:
		return networkUnchanged(old, obj.(*v1.Network))
	case *v1.Volume:
		return labelsOnly(old.Spec, obj.(*v1.Volume).Spec)
	case *v1.Attachment:
		return labelsOnly(old.Spec, obj.(*v1.Attachment).Spec)
	}
	return nil
}

func number(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

func quoted(list []string) string { return strings.Join(list, ", ") }

func labelsOnly(was, is any) error {
	if same, err := equalJSON(was, is); err != nil || same {
		return err
	}
	return errLabelsOnly
}

func checkNodeChange(was, is *v1.NodeSpec) error {
	if was.Index != is.Index {
		return v1.FieldErrors{{Field: "spec.index", Message: fmt.Sprintf("never changes: want %d, or leave it out", was.Index)}}
	}
	return nil
}

// checkUnused refuses the removal of what is needed, in Docker's words.
func checkUnused(s *store.Snapshot, obj v1.Object, force bool) error {
	name := obj.GetMeta().Name
	switch obj := obj.(type) {
	case *v1.Secret:
		return unreferenced(s, "secret", obj.Meta, func(c *v1.ContainerSpec) []v1.FileReference { return c.Secrets })
	case *v1.Config:
		return unreferenced(s, "config", obj.Meta, func(c *v1.ContainerSpec) []v1.FileReference { return c.Configs })
	case *v1.Volume:
		return volumeUnused(s, name)
	case *v1.Network:
		if user := networkUser(s, obj); user != "" {
			return problemf(http.StatusBadRequest, "network %s is in use by %s", name, user)
		}
	case *v1.Node:
		_, member := s.Lookup(v1.KindMember, obj.Meta.ID)
		if obj.Spec.Role == v1.RoleManager || member {
			return problemf(http.StatusBadRequest, "node %s is a cluster manager and is a member of the raft cluster. "+
				"It must be demoted to worker before removal", obj.Meta.ID)
		}
		_, present := s.Lookup(v1.KindPresence, obj.Meta.ID)
		if (present || nodeState(obj) == v1.NodeReady && !v1.NodeLost(obj)) && !force {
			return problemf(http.StatusBadRequest, "node %s is not down and can't be removed", obj.Meta.ID)
		}
	}
	return nil
}
