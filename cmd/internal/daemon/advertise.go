package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// DefaultPort is where managers listen for the swarm.
const DefaultPort = "2377"

// checkInit refuses what cannot be honoured yet, and finds the address that the node is reached at, with its port.
func checkInit(r *v1.InitRequest) (addr string, err error) {
	for option, used := range map[string]bool{
		"--autolock":          r.AutoLock,
		"--force-new-cluster": r.ForceNewCluster,
		"--data-path-port":    r.DataPathPort != 0,
		"--data-path-addr":    r.DataPathAddr != "",
		"--default-addr-pool": len(r.DefaultAddrPool) > 0,
	} {
		if used {
			return "", fmt.Errorf("%s is not supported yet", option)
		}
	}
	switch r.Availability {
	case "", v1.AvailabilityActive, v1.AvailabilityPause, v1.AvailabilityDrain:
	default:
		return "", fmt.Errorf("invalid availability %q: want active, pause or drain", r.Availability)
	}
	if r.Spec != nil {
		if errs := v1.Validate(&v1.Cluster{Meta: v1.Meta{Name: v1.ClusterName}, Spec: r.Spec}); len(errs) > 0 {
			return "", errs
		}
	}
	return advertised(r.AdvertiseAddr)
}

// advertised is the address, with a port, that a node tells others: the one that was given, that of the interface that
// was given, or the machine's only one.
func advertised(given string) (string, error) {
	host, port := given, DefaultPort
	if h, p, err := net.SplitHostPort(given); err == nil {
		host, port = h, p
	}
	if host == "" {
		found, err := onlyAddress()
		return net.JoinHostPort(found, port), err
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.IsUnspecified() {
			return "", errors.New("advertise address must be a non-zero IP address or network interface (with optional port number)")
		}
		return net.JoinHostPort(ip.String(), port), nil
	}
	link, err := net.InterfaceByName(host)
	if err != nil {
		return "", fmt.Errorf("advertise address %q is neither an IP address nor a network interface of this machine", given)
	}
	found, err := addresses([]net.Interface{*link})
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("interface %s has %d addresses (%s): specify one with --advertise-addr", host, len(found), strings.Join(found, ", "))
	}
	return net.JoinHostPort(found[0], port), nil
}

// onlyAddress is the machine's single address that is not of this machine or link alone.
func onlyAddress() (string, error) {
	links, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	found, err := addresses(links)
	switch {
	case err != nil:
		return "", err
	case len(found) == 0:
		return "", errors.New("could not find the system's IP address - specify one with --advertise-addr")
	case len(found) > 1:
		return "", fmt.Errorf("could not choose an IP address to advertise since this system has multiple addresses (%s) - specify one with --advertise-addr", strings.Join(found, ", "))
	}
	return found[0], nil
}

// addresses are those of the links that are up which others could reach: the IPv4 ones where there are any, as Docker
// chooses, and else those of IPv6.
func addresses(links []net.Interface) ([]string, error) {
	var four, six []string
	for _, link := range links {
		if link.Flags&net.FlagUp == 0 || link.Flags&net.FlagLoopback != 0 || link.Name == "gw0" {
			continue
		}
		all, err := link.Addrs()
		if err != nil {
			return nil, fmt.Errorf("addresses of %s: %w", link.Name, err)
		}
		for _, a := range all {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil || !prefix.Addr().IsGlobalUnicast() {
				continue
			}
			if prefix.Addr().Is4() {
				four = append(four, prefix.Addr().String())
			} else {
				six = append(six, prefix.Addr().String())
			}
		}
	}
	if len(four) > 0 {
		return four, nil
	}
	return six, nil
}
