package containerd

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/swarmd/swarmd/pkg/runtime"
)

// resources are the limits, and Docker's rule that no device may be used but those that runc allows by itself.
func (r *Runtime) resources(c runtime.Container) (*specs.LinuxResources, error) {
	res := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
	if cpus := int64(c.Limits.CPUs); cpus > 0 {
		period, quota := uint64(cpuPeriod), cpus*cpuPeriod/1e9
		if quota < 1000 { // the kernel's least, a hundredth of a core
			return nil, fmt.Errorf("a limit of %s cpus is too small: the kernel wants at least 0.01: %w", c.Limits.CPUs, runtime.ErrInvalid)
		}
		res.CPU = &specs.LinuxCPU{Period: &period, Quota: &quota}
	}
	if pids := c.Limits.PIDs; pids > 0 {
		res.Pids = &specs.LinuxPids{Limit: &pids}
	}
	var err error
	res.Memory, err = r.memory(c)
	return res, err
}

// memory bounds memory, and memory with swap: as in Docker twice the memory unless something else is asked for.
func (r *Runtime) memory(c runtime.Container) (*specs.LinuxMemory, error) {
	limit := int64(c.Limits.Memory)
	if limit <= 0 {
		if c.MemorySwap != nil && *c.MemorySwap > 0 {
			return nil, fmt.Errorf("a limit of swap needs a limit of memory: %w", runtime.ErrInvalid)
		}
		return nil, nil
	}
	m := &specs.LinuxMemory{Limit: &limit}
	if r.cgroup.swap {
		swap := 2 * limit
		if c.MemorySwap != nil && *c.MemorySwap != 0 {
			swap = int64(*c.MemorySwap)
		}
		if swap > 0 && swap < limit {
			return nil, fmt.Errorf("a limit of swap includes the memory: %d is less than the %d bytes of the limit of memory: %w", swap, limit, runtime.ErrInvalid)
		}
		m.Swap = &swap
	}
	if c.MemorySwappiness != nil && *c.MemorySwappiness >= 0 && !r.cgroup.unified { // version 2 has no such thing
		swappiness := uint64(*c.MemorySwappiness)
		m.Swappiness = &swappiness
	}
	return m, nil
}
