package apiserver

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// checkAttachments refuses networks that are not there, that are the same by another name, or that have addresses in common: a task could
// not tell which of them such an address is on.
func checkAttachments(s *store.Snapshot, list []v1.NetworkAttachment) error {
	var seen []string
	on := make(map[netip.Prefix]string)
	for _, n := range list {
		network, err := exact(s, v1.KindNetwork, n.Target)
		if err != nil {
			return problemf(http.StatusBadRequest, "network %s not found", clip(n.Target))
		}
		m := network.GetMeta()
		if slices.Contains(seen, m.ID) {
			return problemf(http.StatusBadRequest, "the service is attached to network %s twice: once is enough, also by name and by ID", m.Name)
		}
		seen = append(seen, m.ID)
		for _, subnet := range subnetsOf(network.(*v1.Network)) {
			for other, name := range on {
				if subnet.Overlaps(other) {
					return problemf(http.StatusBadRequest, "networks %s (%s) and %s (%s) have addresses in common: a service cannot be attached to both",
						name, other, m.Name, subnet)
				}
			}
			on[subnet] = m.Name
		}
	}
	return nil
}

// subnetsOf are the subnets that a network has, or asks for. One that is still to be cut for it will overlap no other.
func subnetsOf(n *v1.Network) []netip.Prefix {
	specs := n.Spec.Subnets
	if n.Desired != nil && len(n.Desired.Subnets) > 0 {
		specs = n.Desired.Subnets
	}
	var subnets []netip.Prefix
	for _, spec := range specs {
		if p, err := netip.ParsePrefix(spec.Subnet); err == nil {
			subnets = append(subnets, p)
		}
	}
	return subnets
}

// checkSubnets refuses subnets that hold addresses of the gateway network: every task is on that too, and could not tell which
// of the two an address is on. Networks may have the same subnets, because they are apart.
func checkSubnets(s *store.Snapshot, n *v1.NetworkSpec) error {
	pool, err := netip.ParsePrefix(gatewayPool(s))
	if err != nil {
		return nil //nolint:nilerr // a pool that is none was refused when the swarm was made
	}
	var errs v1.FieldErrors
	for i, subnet := range n.Subnets {
		if p, err := netip.ParsePrefix(subnet.Subnet); err == nil && p.Overlaps(pool) {
			errs = append(errs, v1.FieldError{Field: "spec.subnets[" + strconv.Itoa(i) + "].subnet",
				Message: fmt.Sprintf("%s overlaps %s, the pool of the gateway network that every task is on: want another", p, pool)})
		}
	}
	if len(errs) > 0 {
		return errs
	}
	return nil
}

// networkUnchanged refuses to change what a network is: its tasks have their addresses from it.
func networkUnchanged(was, is *v1.Network) error {
	same, err := equalJSON(was.Spec, is.Spec)
	if err != nil || same {
		return err
	}
	return problemf(http.StatusBadRequest, "%s: the spec of network %s never changes, so leave it as it is, or remove the network and create it again",
		errLabelsOnly.Detail, was.Meta.Name)
}

// networkUser names what uses a network: a service's spec, or a live task of an earlier revision. "" is nobody.
func networkUser(s *store.Snapshot, n *v1.Network) string {
	uses := func(t *v1.TaskSpec) bool {
		return slices.ContainsFunc(t.Networks, func(a v1.NetworkAttachment) bool { return a.Target == n.Meta.Name || a.Target == n.Meta.ID })
	}
	for service := range store.All(s, v1.Services) {
		if there(service) && (uses(&service.Spec.Task) || uses(&v1.Effective(service).Spec.Task)) {
			return "service " + service.Meta.Name
		}
	}
	for revision := range store.All(s, v1.ServiceRevisions) {
		if !uses(&revision.Spec.Task) {
			continue
		}
		for t := range s.TasksOfService(revision.Spec.Service) {
			if t.Desired.Revision == revision.Meta.ID && !v1.Observed(t).Terminal() {
				return "task " + t.Meta.ID
			}
		}
	}
	return attachedTo(s, n.Meta.ID)
}
