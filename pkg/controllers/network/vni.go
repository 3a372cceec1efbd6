package network

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// lastVNI is the largest that VXLAN has.
const lastVNI = 1<<24 - 1

// lastFor is the largest that a network may have: the UDP port of an encrypted one follows from it.
func lastFor(n *v1.Network) uint32 {
	if n.Spec != nil && n.Spec.Encrypted() {
		return v1.LastEncryptedVNI
	}
	return lastVNI
}

// keepsVNI tells whether a network has a VNI that it may keep. Where several have the same, which no rule would have given, the
// oldest keeps it: their packets would mix.
func keepsVNI(s *store.Snapshot, n *v1.Network) bool {
	if n.Desired == nil || n.Desired.VNI <= v1.GatewayVNI || n.Desired.VNI > lastFor(n) {
		return false
	}
	for id := range s.NetworksWithVNI(n.Desired.VNI) {
		other, ok := store.Get(s, v1.Networks, id)
		if !ok || id == n.Meta.ID {
			continue
		}
		if c := other.Meta.CreatedAt.Compare(n.Meta.CreatedAt); c < 0 || c == 0 && id < n.Meta.ID {
			return false
		}
	}
	return true
}

// vniFor is a VNI that no other network has: one that the user named, where any is named. problem says why there is none.
func vniFor(s *store.Snapshot, n *v1.Network) (vni uint32, problem string) {
	if list := n.Spec.Options[v1.OptionVXLANIDs]; list != "" {
		return named(s, n, list)
	}
	next, wires := uint32(v1.FirstVNI), wirePorts(s, n)
	for {
		free := s.Stored().NextFreeVNI(s.NextFreeVNI(next)) // none that is given up and not yet written so
		switch {
		case free > lastFor(n):
			return 0, fmt.Sprintf("every VXLAN ID from %d to %d is in use: remove networks that are not needed", v1.FirstVNI, lastFor(n))
		case wires[v1.EncryptedPort(free)] != "":
			free++
		case free == next:
			return free, ""
		}
		next = free
	}
}

func named(s *store.Snapshot, n *v1.Network, list string) (vni uint32, problem string) {
	var holders []string
	wires := wirePorts(s, n)
	for text := range strings.SplitSeq(list, ",") {
		id, err := strconv.ParseUint(strings.TrimSpace(text), 10, 24)
		if err != nil || id <= v1.GatewayVNI {
			holders = append(holders, strings.TrimSpace(text)+" cannot be given")
			continue
		}
		if service := wires[v1.EncryptedPort(uint32(id))]; service != "" {
			holders = append(holders, fmt.Sprintf("%d takes UDP port %d, which service %s publishes", id, v1.EncryptedPort(uint32(id)), service))
			continue
		}
		holder := holderOfVNI(s, uint32(id), n.Meta.ID)
		if holder == "" {
			holder = holderOfVNI(s.Stored(), uint32(id), n.Meta.ID)
		}
		if holder == "" {
			return uint32(id), ""
		}
		holders = append(holders, strconv.FormatUint(id, 10)+" is that of network "+holder)
	}
	return 0, fmt.Sprintf("no VXLAN ID of its option %s is free: %s", v1.OptionVXLANIDs, strings.Join(holders, ", "))
}

// wirePorts are the UDP ports that services publish and an encrypted network therefore cannot have, with a service that does; none for
// other networks.
func wirePorts(s *store.Snapshot, n *v1.Network) map[uint16]string {
	if !n.Spec.Encrypted() {
		return nil
	}
	ports := make(map[uint16]string)
	for service := range store.All(s, v1.Services) {
		var lists [][]v1.PortConfig
		if service.Spec != nil && service.Spec.Endpoint != nil {
			lists = append(lists, service.Spec.Endpoint.Ports)
		}
		if service.Desired != nil {
			lists = append(lists, service.Desired.Ports)
		}
		for _, p := range slices.Concat(lists...) {
			if p.Protocol == v1.UDP && p.Published >= v1.FirstEncryptedPort {
				ports[p.Published] = service.Meta.Name
			}
		}
	}
	return ports
}

// holderOfVNI is the name of a network that has a VNI, but the one with that ID; "" where there is none.
func holderOfVNI(s *store.Snapshot, vni uint32, but string) string {
	for id := range s.NetworksWithVNI(vni) {
		if id == but {
			continue
		}
		if n, ok := store.Get(s, v1.Networks, id); ok && n.Meta.Name != "" {
			return n.Meta.Name
		}
		return id
	}
	return ""
}
