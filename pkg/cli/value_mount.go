package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// parseMount reads --mount type=volume,source=data,target=/data,… as Docker does. A source that begins with a dot is made
// absolute here, since it means this folder.
func parseMount(text string) (v1.Mount, error) {
	m := v1.Mount{Type: v1.MountVolume}
	text = strings.TrimSpace(text)
	if text == "" {
		return m, errors.New("value is empty")
	}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return m, err
	}
	for _, field := range fields {
		key, val, hasValue, err := mountField(field)
		if err != nil {
			return m, err
		}
		if err := setMountField(&m, field, key, val, hasValue); err != nil {
			return m, err
		}
	}
	return m, checkMount(&m)
}

func mountField(field string) (key, val string, hasValue bool, err error) {
	key, val, hasValue = strings.Cut(field, "=")
	if trimmed := strings.TrimSpace(key); trimmed != key {
		return "", "", false, fmt.Errorf("invalid option '%s' in '%s': option should not have whitespace", trimmed, field)
	}
	if hasValue {
		trimmed := strings.TrimSpace(val)
		if trimmed == "" {
			return "", "", false, fmt.Errorf("invalid value for '%s': value is empty", key)
		}
		if trimmed != val {
			return "", "", false, fmt.Errorf("invalid value for '%s' in '%s': value should not have whitespace", key, field)
		}
	}
	key = strings.ToLower(key)
	if !hasValue {
		switch key {
		case "readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src":
		default:
			return "", "", false, fmt.Errorf("invalid field '%s' must be a key=value pair", field)
		}
	}
	return key, val, hasValue, nil
}

func setMountField(m *v1.Mount, field, key, val string, hasValue bool) (err error) {
	switch key {
	case "type":
		m.Type, err = mountType(val)
	case "source", "src":
		m.Source = val
		if strings.HasPrefix(val, ".") {
			if abs, err := filepath.Abs(val); err == nil {
				m.Source = abs
			}
		}
	case "target", "dst", "destination":
		m.Target = val
	case "readonly", "ro":
		m.ReadOnly, err = mountBool(key, val, hasValue)
	case "bind-propagation":
		bindOptions(m).Propagation = strings.ToLower(val)
	case "bind-nonrecursive":
		return errors.New("bind-nonrecursive is deprecated, use bind-recursive=disabled instead")
	case "bind-recursive":
		err = bindRecursive(m, key, val)
	case "volume-subpath":
		volumeOptions(m).Subpath = val
	case "volume-nocopy":
		volumeOptions(m).NoCopy, err = mountBool(key, val, hasValue)
	case "volume-label":
		o := volumeOptions(m)
		o.Labels = setPair(o.Labels, val)
	case "volume-driver":
		volumeDriver(m).Name = val
	case "volume-opt":
		d := volumeDriver(m)
		d.Options = setPair(d.Options, val)
	case "tmpfs-size":
		size, err := parseBytes(val)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, val)
		}
		tmpfsOptions(m).Size = size
	case "tmpfs-mode":
		mode, err := strconv.ParseUint(val, 8, 32)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, val)
		}
		tmpfsOptions(m).Mode = uint32(mode)
	case "consistency", "bind-create-src", "image-subpath":
		return fmt.Errorf("%s: not supported yet", key)
	default:
		return fmt.Errorf("unknown option '%s' in '%s'", key, field)
	}
	return err
}

func mountType(val string) (v1.MountType, error) {
	switch t := v1.MountType(strings.ToLower(val)); t {
	case v1.MountVolume, v1.MountBind, v1.MountTmpfs:
		return t, nil
	case "npipe":
		return "", errors.New("mount type npipe is only for Windows")
	case "cluster", "image":
		return "", fmt.Errorf("mount type %s: not supported yet", t)
	default:
		return "", fmt.Errorf("invalid mount type '%s': want volume, bind or tmpfs", val)
	}
}

// bindRecursive leaves out enabled, which is what happens without the option.
func bindRecursive(m *v1.Mount, key, val string) error {
	switch val {
	case "enabled":
		return nil
	case "disabled", "writable", "readonly":
		bindOptions(m).Recursive = val
		return nil
	}
	return fmt.Errorf(`invalid value for %s: %s (must be "enabled", "disabled", "writable", or "readonly")`, key, val)
}

func mountBool(key, val string, hasValue bool) (bool, error) {
	if !hasValue {
		return true, nil
	}
	switch val {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, fmt.Errorf(`invalid value for '%s': invalid boolean value (%q): must be one of "true", "1", "false", or "0" (default "true")`, key, val)
}

// checkMount refuses options of another type than the mount's.
func checkMount(m *v1.Mount) error {
	switch {
	case m.Bind != nil && m.Type != v1.MountBind:
		return fmt.Errorf("cannot mix 'bind-*' options with mount type '%s'", m.Type)
	case m.Volume != nil && m.Type != v1.MountVolume:
		return fmt.Errorf("cannot mix 'volume-*' options with mount type '%s'", m.Type)
	case m.Tmpfs != nil && m.Type != v1.MountTmpfs:
		return fmt.Errorf("cannot mix 'tmpfs-*' options with mount type '%s'", m.Type)
	}
	return nil
}

func bindOptions(m *v1.Mount) *v1.BindOptions {
	if m.Bind == nil {
		m.Bind = &v1.BindOptions{}
	}
	return m.Bind
}

func volumeOptions(m *v1.Mount) *v1.VolumeOptions {
	if m.Volume == nil {
		m.Volume = &v1.VolumeOptions{}
	}
	return m.Volume
}

func volumeDriver(m *v1.Mount) *v1.Driver {
	o := volumeOptions(m)
	if o.Driver == nil {
		o.Driver = &v1.Driver{}
	}
	return o.Driver
}

func tmpfsOptions(m *v1.Mount) *v1.TmpfsOptions {
	if m.Tmpfs == nil {
		m.Tmpfs = &v1.TmpfsOptions{}
	}
	return m.Tmpfs
}

func setPair(m map[string]string, pair string) map[string]string {
	if m == nil {
		m = make(map[string]string)
	}
	k, v, _ := strings.Cut(pair, "=")
	m[k] = v
	return m
}
