package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

// asWanted compares what the kernels hold of networks with what the API says: on each host the namespace of each task there, a router for each
// network that a task there is on, in it a route for each address of a task of the network, anywhere, and a way to each service's tasks; a way
// from each published port to each task behind it; and nothing else of these. What else there may be, sameWhenMade sees.
func (c *chaos) asWanted(tasks []chaosTask) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), answerWithin)
	defer cancel()
	api := c.client(c.Hosts[0])
	networks, err := client.List(ctx, api, v1.Networks, nil)
	if err != nil {
		return err
	}
	services, err := client.List(ctx, api, v1.Services, nil)
	if err != nil {
		return err
	}
	for _, h := range c.Hosts {
		var have []string
		for _, path := range routersOf(h) {
			if id := filepath.Base(path); id != gateway {
				have = append(have, id)
			}
		}
		var want []string
		for _, n := range networks {
			if !slices.ContainsFunc(tasks, func(t chaosTask) bool { return t.host == h && t.at[n.Meta.Name] != "" }) {
				continue
			}
			want = append(want, n.Meta.ID)
			if err := c.routerAsWanted(h, n, tasks, services); err != nil {
				return fmt.Errorf("network %s on %s: %w", n.Meta.Name, h.Name, err)
			}
		}
		slices.Sort(have)
		if slices.Sort(want); !slices.Equal(have, want) {
			return fmt.Errorf("%s has routers of %v, want of %v", h.Name, have, want)
		}
		if err := errors.Join(tasksAsWanted(h, tasks), c.portsAsWanted(h)); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	return nil
}

// tasksAsWanted looks at which tasks have a namespace on a host.
func tasksAsWanted(h *lab.Host, tasks []chaosTask) error {
	var have, want []string
	for _, path := range spacesOf(h, "netns") {
		have = append(have, filepath.Base(path))
	}
	for _, t := range tasks {
		if t.host == h {
			want = append(want, t.task.Meta.ID)
		}
	}
	slices.Sort(have)
	if slices.Sort(want); !slices.Equal(have, want) {
		return fmt.Errorf("namespaces of the tasks %v, want of %v", have, want)
	}
	return nil
}

// portsAsWanted looks at how many backends a host has for each published port.
func (c *chaos) portsAsWanted(h *lab.Host) error {
	want := map[string]int{}
	for _, s := range c.services {
		if s.published > 0 {
			want[fmt.Sprint(s.published)] = s.replicas
		}
	}
	return h.Do(func() error {
		for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
			have, err := backendsOf(family, func(key []byte) string { return fmt.Sprint(binary.BigEndian.Uint16(key[4:])) })
			if err != nil {
				return err
			}
			if !maps.Equal(have, want) {
				return fmt.Errorf("published ports with backends %v, want %v (family %d)", have, want, family)
			}
		}
		return nil
	})
}

// routerAsWanted looks at one network's router on a host.
func (c *chaos) routerAsWanted(h *lab.Host, network *v1.Network, tasks []chaosTask, services []*v1.Service) error {
	n, err := lab.Inside(filepath.Join(h.Root, "network", "router", network.Meta.ID))
	if err != nil {
		return err
	}
	defer n.Leave()
	wantRoutes, links := map[string]bool{}, 2 // lo and vx
	wantVIPs := map[string]int{}
	for _, t := range tasks {
		if addr := t.at[network.Meta.Name]; addr != "" {
			wantRoutes[addr] = true
			if six := t.at6[network.Meta.Name]; six != "" {
				wantRoutes[six] = true
			}
			if t.host == h {
				links++
			}
		}
	}
	for _, o := range services {
		for _, v := range vipsOf(o) {
			for _, t := range tasks {
				if t.service != o.Meta.Name || v.Network != network.Meta.ID {
					continue
				}
				for _, a := range v.Addresses {
					wantVIPs[a]++
				}
			}
		}
	}
	return n.Do(func() error {
		all, err := whole(netlink.LinkList)
		if err != nil {
			return err
		}
		if len(all) != links {
			return fmt.Errorf("%d links, want %d", len(all), links)
		}
		routes, err := routesIn(unix.RT_TABLE_MAIN)
		if err != nil {
			return err
		}
		have := map[string]bool{}
		for _, r := range routes {
			if ones, bits := r.Dst.Mask.Size(); ones == bits && r.Protocol != unix.RTPROT_KERNEL {
				have[r.Dst.IP.String()] = true
			}
		}
		if !maps.Equal(have, wantRoutes) {
			return fmt.Errorf("routes to %v, want to %v", have, wantRoutes)
		}
		vips, err := backendsOf(nftables.TableFamilyIPv4, func(key []byte) string { return netip.AddrFrom4([4]byte(key[:4])).String() })
		if err != nil {
			return err
		}
		if network.Spec.IPv6 {
			six, err := backendsOf(nftables.TableFamilyIPv6, func(key []byte) string { return netip.AddrFrom16([16]byte(key[:16])).String() })
			if err != nil {
				return err
			}
			maps.Copy(vips, six)
		}
		if !maps.Equal(vips, wantVIPs) {
			return fmt.Errorf("virtual addresses with backends %v, want %v", vips, wantVIPs)
		}
		return nil
	})
}

// backendsOf are how many backends the namespace's table has, by what a name is made of from their keys.
func backendsOf(family nftables.TableFamily, name func(key []byte) string) (map[string]int, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	set, err := conn.GetSetByName(&nftables.Table{Name: "swarmd", Family: family}, "backends")
	if err != nil {
		return nil, fmt.Errorf("find the backends: %w", err)
	}
	elements, err := conn.GetSetElements(set)
	if err != nil {
		return nil, err
	}
	found := make(map[string]int)
	for _, e := range elements {
		found[name(e.Key)]++
	}
	return found, nil
}
