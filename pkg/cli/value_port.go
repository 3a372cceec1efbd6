package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

var keyValueForm = regexp.MustCompile(`\w+=\w+(,\w+=\w+)*`)

// parsePorts reads --publish in its long form (target=80,published=8080,protocol=tcp,mode=host,host_ip=10.0.0.0/8 or interface=eth1)
// and in its short one ([ip:][published[-range]:]target[-range][/protocol]), which is always in ingress mode.
func parsePorts(text string) ([]v1.PortConfig, error) {
	if !keyValueForm.MatchString(text) {
		return parseShortPorts(text)
	}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return nil, err
	}
	p := v1.PortConfig{Protocol: v1.TCP, Mode: v1.PublishIngress}
	for _, field := range fields {
		key, val, ok := strings.Cut(strings.ToLower(field), "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("invalid field: %s", field)
		}
		if key == "interface" { // whose name may have capitals
			_, val, _ = strings.Cut(field, "=")
		}
		if err := setPortField(&p, key, val); err != nil {
			return nil, err
		}
	}
	if p.Target == 0 {
		return nil, errors.New("missing mandatory field 'target'")
	}
	return []v1.PortConfig{p}, nil
}

func setPortField(p *v1.PortConfig, key, val string) (err error) {
	switch key {
	case "protocol":
		switch proto := v1.Protocol(val); proto {
		case v1.TCP, v1.UDP, v1.SCTP:
			p.Protocol = proto
		default:
			return fmt.Errorf("invalid protocol value '%s'", val)
		}
	case "mode":
		switch mode := v1.PublishMode(val); mode {
		case v1.PublishIngress, v1.PublishHost:
			p.Mode = mode
		default:
			return fmt.Errorf("invalid publish mode value (%s): must be either '%s' or '%s'", val, v1.PublishIngress, v1.PublishHost)
		}
	case "target":
		p.Target, err = portNumber("target", val)
	case "published":
		p.Published, err = portNumber("published", val)
	case "host_ip":
		p.HostIP = val
		_, err = p.Range()
	case "interface":
		p.Interface = val
	default:
		return fmt.Errorf("invalid field key: %s", key)
	}
	return err
}

func portNumber(what, val string) (uint16, error) {
	n, err := strconv.ParseUint(val, 10, 16)
	if err != nil {
		if number, ok := errors.AsType[*strconv.NumError](err); ok {
			err = number.Err
		}
		return 0, fmt.Errorf("invalid %s port (%s): value must be an integer: %w", what, val, err)
	}
	return uint16(n), nil
}

// parseShortPorts reads [ip:][published[-range]:]target[-range][/protocol].
func parseShortPorts(text string) ([]v1.PortConfig, error) {
	spec, proto, _ := strings.Cut(text, "/")
	ip, published, target, err := splitPort(spec)
	switch {
	case err != nil:
		return nil, err
	case target == "":
		return nil, fmt.Errorf("no port specified: %s<empty>", text)
	}
	low, high, ok := portRange(target)
	if !ok {
		return nil, fmt.Errorf("invalid containerPort: %s", target)
	}
	pubLow, pubHigh := uint16(0), uint16(0)
	if published != "" {
		if pubLow, pubHigh, ok = portRange(published); !ok {
			return nil, fmt.Errorf("invalid hostPort: %s", published)
		}
	}
	if published != "" && high-low != pubHigh-pubLow && low != high {
		return nil, fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", target, published)
	}
	protocol, err := shortProtocol(proto)
	if err != nil {
		return nil, err
	}
	at := v1.PortConfig{HostIP: ip}
	if _, err := at.Range(); err != nil {
		return nil, err
	}
	var ports []v1.PortConfig
	count := max(int(high-low), int(pubHigh-pubLow)) + 1
	for i := range count {
		p := v1.PortConfig{Protocol: protocol, Mode: v1.PublishIngress, Target: low, Published: pubLow, HostIP: ip}
		if low != high {
			p.Target += uint16(i)
		}
		if published != "" {
			p.Published += uint16(i)
		}
		ports = append(ports, p)
	}
	return ports, nil
}

// splitPort takes a short form apart at its last two colons, since an IPv6 address may have more.
func splitPort(spec string) (ip, published, target string, err error) {
	i := strings.LastIndexByte(spec, ':')
	if i < 0 {
		return "", "", spec, nil
	}
	target, spec = spec[i+1:], spec[:i]
	i = strings.LastIndexByte(spec, ':')
	if i < 0 {
		return "", spec, target, nil
	}
	published = spec[i+1:]
	ip = strings.TrimSuffix(strings.TrimPrefix(spec[:i], "["), "]")
	if _, err := netip.ParseAddr(ip); err != nil && ip != "" {
		return "", "", "", fmt.Errorf("invalid IP address: %s", spec[:i])
	}
	return ip, published, target, nil
}

func portRange(text string) (low, high uint16, ok bool) {
	first, last, isRange := strings.Cut(text, "-")
	a, err := strconv.ParseUint(first, 10, 16)
	if err != nil {
		return 0, 0, false
	}
	b := a
	if isRange {
		if b, err = strconv.ParseUint(last, 10, 16); err != nil || b < a {
			return 0, 0, false
		}
	}
	return uint16(a), uint16(b), true
}

func shortProtocol(text string) (v1.Protocol, error) {
	switch p := v1.Protocol(strings.ToLower(text)); p {
	case "":
		return v1.TCP, nil
	case v1.TCP, v1.UDP, v1.SCTP:
		return p, nil
	}
	return "", fmt.Errorf("invalid proto: %s", text)
}
