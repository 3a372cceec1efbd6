package netplugin

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
)

// setting is a sysctl and what it should be.
type setting struct {
	name, value string
	// optional settings are those of a part that the kernel may be built without, such as IPv6.
	optional bool
}

// sysctlPath is the file of a setting of the calling thread's network namespace.
func sysctlPath(name string) string {
	return path.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
}

// checkSysctl refuses what is not a setting of a network namespace.
func checkSysctl(name string) error {
	if !strings.HasPrefix(name, "net.") || strings.Contains(name, "/") || strings.Contains(name, "..") || strings.HasSuffix(name, ".") {
		return fmt.Errorf("sysctl %q is not one of a network namespace: it must look like net.ipv4.tcp_syncookies", name)
	}
	return nil
}

// setSysctls makes the settings of the calling thread's network namespace. Those that are right already are not written.
func setSysctls(settings ...setting) error {
	var errs []error
	for _, s := range settings {
		have, err := getSysctl(s.name)
		if err == nil && have == strings.Join(strings.Fields(s.value), " ") {
			continue
		}
		if err == nil || !errors.Is(err, os.ErrNotExist) {
			err = os.WriteFile(sysctlPath(s.name), []byte(s.value), 0)
		}
		switch {
		case err == nil || s.optional && errors.Is(err, os.ErrNotExist):
		case errors.Is(err, os.ErrNotExist):
			errs = append(errs, fmt.Errorf("set sysctl %s=%s: this kernel has none of that name in a network namespace", s.name, s.value))
		default:
			errs = append(errs, fmt.Errorf("set sysctl %s=%s: %w", s.name, s.value, err))
		}
	}
	return errors.Join(errs...)
}

// getSysctl reads a setting of the calling thread's network namespace, with single spaces between its fields.
func getSysctl(name string) (string, error) {
	b, err := os.ReadFile(sysctlPath(name))
	return strings.Join(strings.Fields(string(b)), " "), err
}
