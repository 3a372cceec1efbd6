package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// parseReference reads --secret and --config: a name, or source=,target=,uid=,gid=,mode=. What is not given is left to the
// server's defaults.
func parseReference(kind string) func(string) (v1.FileReference, error) {
	return func(text string) (v1.FileReference, error) {
		var ref v1.FileReference
		fields, err := csv.NewReader(strings.NewReader(text)).Read()
		if err != nil {
			return ref, err
		}
		if len(fields) == 1 && !strings.Contains(fields[0], "=") {
			ref.Source, fields = fields[0], nil
		}
		for _, field := range fields {
			key, val, ok := strings.Cut(field, "=")
			if !ok || key == "" {
				return ref, fmt.Errorf("invalid field '%s' must be a key=value pair", field)
			}
			if err := setReferenceField(&ref, kind, key, val); err != nil {
				return ref, err
			}
		}
		if ref.Source == "" {
			return ref, errors.New("source is required")
		}
		return ref, nil
	}
}

func setReferenceField(ref *v1.FileReference, kind, key, val string) error {
	switch strings.ToLower(key) {
	case "source", "src":
		ref.Source = val
	case "target":
		ref.Target = val
	case "uid":
		ref.UID = val
	case "gid":
		ref.GID = val
	case "mode":
		m, err := strconv.ParseUint(val, 0, 32)
		if err != nil {
			return fmt.Errorf("invalid mode specified: %v", err)
		}
		mode := uint32(m)
		ref.Mode = &mode
	case "on-change":
		switch ref.OnChange = v1.ChangeAction(val); ref.OnChange {
		case v1.ChangeRestart, v1.ChangeNone, v1.ChangeSignal:
		default:
			return fmt.Errorf("invalid on-change %q: want restart, none or signal", val)
		}
	default:
		return fmt.Errorf("invalid field in %s request: %s", kind, key)
	}
	return nil
}

// parseNetwork reads --network: a name, or name=,alias=,driver-opt=k=v.
func parseNetwork(text string) (v1.NetworkAttachment, error) {
	var n v1.NetworkAttachment
	if !keyValueForm.MatchString(text) {
		n.Target = text
		return n, nil
	}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return n, err
	}
	for _, field := range fields {
		key, val, ok := strings.Cut(field, "=")
		if !ok || key == "" {
			return n, fmt.Errorf("invalid field %s", field)
		}
		if err := setNetworkField(&n, strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(val)); err != nil {
			return n, err
		}
	}
	if n.Target == "" {
		return n, errors.New("network name/id is not specified")
	}
	return n, nil
}

func setNetworkField(n *v1.NetworkAttachment, key, val string) error {
	switch key {
	case "name":
		n.Target = val
	case "alias":
		n.Aliases = append(n.Aliases, val)
	case "driver-opt":
		name, _, ok := strings.Cut(val, "=")
		if !ok || name == "" {
			return errors.New("invalid key value pair format in driver options")
		}
		n.DriverOpts = setPair(n.DriverOpts, val)
	case "ip", "ip6", "link-local-ip":
		if _, err := netip.ParseAddr(val); err != nil {
			return err
		}
		return fmt.Errorf("%s: a service's tasks cannot share one address: not supported", key)
	case "mac-address", "gw-priority":
		return fmt.Errorf("%s: not supported for services", key)
	default:
		return errors.New("invalid field key " + key)
	}
	return nil
}
