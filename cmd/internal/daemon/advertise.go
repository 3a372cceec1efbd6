package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// DefaultPort is where managers listen for the swarm.
const DefaultPort = "2377"

// place is where a node is reached.
type place struct {
	addr   string // host:port that other nodes use
	listen string // host:port to listen at, as a manager
	data   string // the address of tasks' traffic, where it is another
}

// What to do where an address is in the gateway pool, which is the swarm's for good.
const (
	choosePool   = "choose a pool that is used nowhere else with --gateway-pool, such as 198.18.0.0/15"
	chooseOthers = "give other addresses of this machine with --advertise-addr and --data-path-addr, or make the swarm anew with another pool, " +
		"such as \"swarmctl swarm init --gateway-pool 198.18.0.0/15\""
)

// outside checks that no address of the place is one of the gateway pool: the swarm would take what comes from such addresses for its tasks'.
func (p place) outside(pool, remedy string) error {
	prefix, err := netip.ParsePrefix(pool)
	if err != nil {
		return nil // which is told where the rest of the settings is looked at
	}
	host, _, _ := net.SplitHostPort(p.addr)
	for _, a := range []string{host, p.data} {
		if ip, err := netip.ParseAddr(a); err == nil && prefix.Contains(ip.Unmap()) {
			return fmt.Errorf("this machine's address %s is in the gateway pool %s, whose addresses are the tasks': %s "+
				"(Tailscale's addresses, and those of carriers, are in 100.64.0.0/10)", ip, prefix, remedy)
		}
	}
	return nil
}

// findPlace makes sense of the addresses of a request. Each may be an address or an interface of this machine, the first two with
// a port. Where no address is given to advertise, it is the one from which remote is reached, if there is a remote, or else the
// only one that the machine has.
func findPlace(listen, advertise, data, remote string) (p place, err error) {
	host, port := listen, DefaultPort
	if h, n, err := net.SplitHostPort(listen); err == nil {
		host, port = h, n
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return p, fmt.Errorf("listen address %q: %q is no port", listen, port)
	}
	if advertise == "" && remote != "" {
		if advertise, err = towards(remote); err != nil {
			return p, err
		}
	}
	if p.addr, err = advertised(advertise, port); err != nil {
		return p, err
	}
	if host == "" {
		host = "0.0.0.0"
		if strings.HasPrefix(p.addr, "[") {
			host = "::"
		}
	} else if host, err = addressOf(host, "--listen-addr"); err != nil {
		return p, fmt.Errorf("listen address %w", err)
	}
	p.listen = net.JoinHostPort(host, port)
	if data == "" {
		return p, nil
	}
	if p.data, err = addressOf(data, "--data-path-addr"); err != nil {
		return p, fmt.Errorf("data path address %w", err)
	}
	if ip, err := netip.ParseAddr(p.data); err != nil || ip.IsUnspecified() {
		return p, errors.New("data path address must be a non-zero IP address or network interface")
	}
	return p, nil
}

// towards is the address of this machine that a connection to the remote would come from. Nothing is sent.
func towards(remote string) (string, error) {
	conn, err := net.Dial("udp", remote)
	if err != nil {
		return "", fmt.Errorf("there is no way to %s: %w", remote, err)
	}
	defer conn.Close()
	host, _, err := net.SplitHostPort(conn.LocalAddr().String())
	return host, err
}

// checkInit refuses settings that make no sense, and moves those that are the swarm's into its spec.
func checkInit(r *v1.InitRequest) error {
	if err := checkAvailability(r.Availability); err != nil {
		return err
	}
	if r.Spec == nil {
		r.Spec = &v1.ClusterSpec{}
	}
	r.Spec.AutoLock = r.Spec.AutoLock || r.AutoLock
	r.Spec.DataPathPort = cmp.Or(r.DataPathPort, r.Spec.DataPathPort)
	r.Spec.SubnetSize = cmp.Or(r.SubnetSize, r.Spec.SubnetSize)
	if len(r.DefaultAddrPool) > 0 {
		r.Spec.DefaultAddrPool = r.DefaultAddrPool
	}
	if e := r.Spec.ExternalCAs; len(e) > 0 && !slices.ContainsFunc(e, func(e v1.ExternalCA) bool { return e.CACert != "" }) {
		return errors.New("a swarm that an external CA signs for needs that CA's root certificate when it is made: " +
			"give it with --external-ca protocol=cfssl,url=URL,cacert=FILE")
	}
	cluster := &v1.Cluster{Meta: v1.Meta{Name: v1.ClusterName}, Spec: r.Spec}
	v1.Default(cluster)
	if errs := v1.Validate(cluster); len(errs) > 0 {
		return errs
	}
	return checkPools(r.Spec.DefaultAddrPool)
}

// checkPools refuses ranges that overlap: one of them is a mistake. It is asked when a swarm is made, since its ranges never change.
func checkPools(texts []string) error {
	pools := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		pools[i] = netip.MustParsePrefix(text) // which validation has read
		for _, other := range pools[:i] {
			if other.Overlaps(pools[i]) {
				return fmt.Errorf("--default-addr-pool: %s overlaps with %s: want ranges that have no address in common", pools[i], other)
			}
		}
	}
	return nil
}

func checkAvailability(a v1.NodeAvailability) error {
	switch a {
	case "", v1.AvailabilityActive, v1.AvailabilityPause, v1.AvailabilityDrain:
		return nil
	}
	return fmt.Errorf("invalid availability %q: want active, pause or drain", a)
}

// advertised is the address, with a port, that a node tells others: the one that was given, that of the interface that
// was given, or the machine's only one.
func advertised(given, port string) (string, error) {
	host := given
	if h, p, err := net.SplitHostPort(given); err == nil {
		host, port = h, p
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", fmt.Errorf("advertise address %q: %q is no port", given, port)
		}
	}
	var err error
	if host == "" {
		host, err = onlyAddress()
	} else {
		host, err = addressOf(host, "--advertise-addr")
	}
	if err != nil {
		if given != "" {
			err = fmt.Errorf("advertise address %w", err)
		}
		return "", err
	}
	if ip, err := netip.ParseAddr(host); err != nil || ip.IsUnspecified() {
		return "", errors.New("advertise address must be a non-zero IP address or network interface (with optional port number)")
	}
	return net.JoinHostPort(host, port), nil
}

// addressOf is the address itself, or the only one of the interface of that name.
func addressOf(host, flag string) (string, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.String(), nil
	}
	link, err := net.InterfaceByName(host)
	if err != nil {
		return "", fmt.Errorf("%q is neither an IP address nor a network interface of this machine", host)
	}
	found, err := addresses([]net.Interface{*link})
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("cannot be that of interface %s, which has %d addresses (%s): specify one with %s", host, len(found), strings.Join(found, ", "), flag)
	}
	return found[0], nil
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
