package dnsplugin

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// view is what one asker sees: the zones of its networks, in their order.
type view []*Zone

// host finds a name: the addresses of the first zone that has any for it, and that zone. A name that is there without addresses is
// found as well. Addresses are never mixed from several zones: web in one network and web in another are different services.
func (v view) host(name string) (zone *Zone, addresses []netip.Addr, found bool) {
	for _, z := range v {
		switch addresses, there := z.host(name); {
		case len(addresses) > 0:
			return z, addresses, true
		case there && !found:
			zone, found = z, true
		}
	}
	return zone, nil, found
}

// reverse finds the name of an address.
func (v view) reverse(address netip.Addr) (string, bool) {
	text := address.String()
	for _, z := range v {
		if name, ok := z.Reverse.Get(text); ok {
			return name, true
		}
	}
	return "", false
}

// host finds a name, with or without the network's own.
func (z *Zone) host(name string) ([]netip.Addr, bool) {
	if addresses, ok := z.Hosts.Get(name); ok {
		return addresses, true
	}
	short, ok := z.short(name)
	if !ok {
		return nil, false
	}
	return z.Hosts.Get(short)
}

// short takes the network's name off a name, if it is there.
func (z *Zone) short(name string) (string, bool) {
	at := len(name) - len(z.Name) - 1
	if at < 1 || z.Name == "" || name[at] != '.' || !strings.EqualFold(name[at+1:], z.Name) {
		return "", false
	}
	return name[:at], true
}

// ports are those of a service that a label, without its underscore, names: by name, or by number.
func (z *Zone) ports(service, label, protocol string) []uint16 {
	all, ok := z.Ports[strings.TrimPrefix(service, "tasks.")]
	if short, qualified := z.short(service); !ok && qualified {
		all = z.Ports[strings.TrimPrefix(short, "tasks.")]
	}
	var found []uint16
	for _, p := range all {
		named := p.Name != "" && strings.EqualFold(p.Name, label) || p.Port != 0 && strconv.Itoa(int(p.Port)) == label
		if named && strings.EqualFold(p.Protocol, protocol) && !slices.Contains(found, p.Port) {
			found = append(found, p.Port)
		}
	}
	return found
}

// targets are the names that a service's addresses go by: each task's own where an address is a task's, else the service's.
func (z *Zone) targets(service string, addresses []netip.Addr) []target {
	var found []target
	at := map[string]int{}
	for _, a := range addresses {
		name, _ := z.Reverse.Get(a.String())
		name = strings.ToLower(name)
		// A name has few addresses that are told by it: it is a task's, or that of a service with virtual addresses.
		if back, _ := z.host(name); name == "" || !slices.Contains(back[:min(len(back), 8)], a) {
			name = service
		}
		i, ok := at[name]
		if !ok {
			i, at[name] = len(found), len(found)
			found = append(found, target{name: name})
		}
		found[i].addresses = append(found[i].addresses, a)
	}
	return found
}

// target is a name that an SRV record leads to.
type target struct {
	name      string
	addresses []netip.Addr
}
