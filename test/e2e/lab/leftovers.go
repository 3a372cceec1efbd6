package lab

import (
	"fmt"
	"path/filepath"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// Leftovers lists what is on the host beyond what the lab put there: processes, mounts,
// control groups, links and nftables tables.
func (h *Host) Leftovers() []string {
	var left []string
	pids, err := h.processes()
	if err != nil {
		left = append(left, err.Error())
	}
	for _, pid := range pids {
		left = append(left, fmt.Sprintf("process %d", pid))
	}
	for _, path := range mounts(h.Root) {
		left = append(left, "mount "+path)
	}
	for _, group := range cgroups(filepath.Join(h.Root, "containerd")) {
		left = append(left, "control group "+group)
	}
	err = h.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, link := range links {
			if name := link.Attrs().Name; name != "lo" && name != "eth0" {
				left = append(left, "link "+name)
			}
		}
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := conn.ListTables()
		for _, table := range tables {
			left = append(left, "nftables table "+table.Name)
		}
		return err
	})
	if err != nil {
		left = append(left, err.Error())
	}
	return left
}
