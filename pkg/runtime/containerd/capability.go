package containerd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/cap"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/swarmd/swarmd/pkg/runtime"
)

// defaultCapabilities are those that Docker gives a container.
var defaultCapabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// capabilities are the default ones without drop and with add, or all without drop, or none with add, as Docker reads
// them. A user who is not root has them only in the bounding set, where a set-uid program finds them.
func capabilities(add, drop []string, uid uint32) (*specs.LinuxCapabilities, error) {
	add, addAll, err := parseCapabilities(add)
	if err != nil {
		return nil, err
	}
	drop, dropAll, err := parseCapabilities(drop)
	if err != nil {
		return nil, err
	}
	var set []string
	switch {
	case addAll:
		if set, err = cap.Current(); err != nil {
			return nil, fmt.Errorf("containerd: read the capabilities of this process: %w", err)
		}
		add = nil
	case !dropAll:
		set = slices.Clone(defaultCapabilities)
	}
	set = slices.DeleteFunc(set, func(c string) bool { return slices.Contains(drop, c) })
	set = append(set, add...)
	slices.Sort(set)
	set = slices.Compact(set)
	c := &specs.LinuxCapabilities{Bounding: set}
	if uid == 0 {
		c.Effective, c.Permitted = set, set
	}
	return c, nil
}

// parseCapabilities reads names with or without CAP_, in any case, and takes ALL out.
func parseCapabilities(names []string) (parsed []string, all bool, err error) {
	for _, name := range names {
		full := strings.ToUpper(name)
		if full == "ALL" {
			all = true
			continue
		}
		if !strings.HasPrefix(full, "CAP_") {
			full = "CAP_" + full
		}
		if !slices.Contains(cap.Known(), full) {
			return nil, false, fmt.Errorf("invalid capability %q: want one such as NET_ADMIN, or ALL: %w", name, runtime.ErrInvalid)
		}
		parsed = append(parsed, full)
	}
	return parsed, all, nil
}
