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

// checkAttachments refuses networks that are not there, that are the same by another name, or that have addresses in common.
func checkAttachments(s *store.Snapshot, list []v1.NetworkAttachment) error {
	var seen []*v1.Network
	for _, a := range list {
		found, err := exact(s, v1.KindNetwork, a.Target)
		if err != nil {
			return problemf(http.StatusBadRequest, "network %s not found", clip(a.Target))
		}
		network := found.(*v1.Network)
		if slices.ContainsFunc(seen, func(n *v1.Network) bool { return n.Meta.ID == network.Meta.ID }) {
			return problemf(http.StatusBadRequest, "the service is attached to network %s twice: once is enough, also by name and by ID", network.Meta.Name)
		}
		seen = append(seen, network)
	}
	return checkApart(seen)
}

// checkApart refuses networks with addresses in common: who is on both could not tell which of them such an address is on.
func checkApart(networks []*v1.Network) error {
	for i, n := range networks {
		for _, other := range networks[:i] {
			for _, subnet := range subnetsOf(n) {
				if at := slices.IndexFunc(subnetsOf(other), subnet.Overlaps); at >= 0 {
					return problemf(http.StatusBadRequest, "networks %s (%s) and %s (%s) have addresses in common: nobody can be on both",
						other.Meta.Name, subnetsOf(other)[at], n.Meta.Name, subnet)
				}
			}
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
	var errs v1.FieldErrors
	for i, subnet := range n.Subnets {
		p, err := netip.ParsePrefix(subnet.Subnet)
		for _, text := range []string{gatewayPool(s), gatewayPrefix6(s)} {
			if pool, poolErr := netip.ParsePrefix(text); err == nil && poolErr == nil && p.Overlaps(pool) {
				errs = append(errs, v1.FieldError{Field: "spec.subnets[" + strconv.Itoa(i) + "].subnet",
					Message: fmt.Sprintf("%s overlaps %s, the pool of the gateway network that every task is on: want another", p, pool)})
			}
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
