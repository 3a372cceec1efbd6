package cli

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

func (a *app) infoCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "info [OPTIONS]",
		Short: "Display system-wide information",
		Example: `  swarmctl info
  swarmctl info --format '{{.Swarm.LocalNodeState}}'`,
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.daemon()
			if err != nil {
				return err
			}
			info, err := c.Info(cmd.Context())
			if err != nil {
				return daemonError(err)
			}
			if format != "" {
				return a.writeOne(format, info)
			}
			var settings *v1.ClusterSpec // beside what info tells; nil where the daemon cannot say
			if info.Swarm.ControlAvailable && info.Swarm.Error == "" {
				if cluster, err := client.Get(cmd.Context(), c, v1.Clusters, v1.ClusterName); err == nil {
					settings = cluster.Spec
				}
			}
			writeInfo(a.Out, &info, settings)
			a.warn(info.Warnings)
			a.warn(info.Swarm.Warnings)
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", `Format output: "json", or a Go template`)
	return cmd
}

// writeOne prints one object through a template, or as JSON.
func (a *app) writeOne(format string, v any) error {
	if format == "json" {
		format = "{{json .}}"
	}
	return writeInspected(a.Out, format, []any{v})
}

// writeInfo prints what docker info prints, as far as it is so of this daemon.
func writeInfo(w io.Writer, i *v1.Info, settings *v1.ClusterSpec) {
	line := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	line("Client:\n Version:    %s\n", buildVersion())
	line("Server:\n Images: %d\n Server Version: %s", i.Images, i.ServerVersion)
	line(" Cgroup Version: %s", i.CgroupVersion)
	line(" Swarm: %s", i.Swarm.LocalNodeState)
	writeSwarm(w, &i.Swarm, settings)
	line(" Default Runtime: %s", i.DefaultRuntime)
	line(" Kernel Version: %s\n Operating System: %s\n OSType: %s\n Architecture: %s", i.KernelVersion, i.OperatingSystem, i.OSType, i.Architecture)
	line(" CPUs: %d\n Total Memory: %s\n Name: %s\n ID: %s", i.NCPU, units.BytesSize(float64(i.MemTotal)), i.Name, i.ID)
	line(" Docker Root Dir: %s", i.RootDir)
	if len(i.Labels) > 0 {
		line(" Labels:")
		for _, l := range i.Labels {
			line("  %s", l)
		}
	}
	line("")
}

// writeSwarm prints a node's place in the swarm.
func writeSwarm(w io.Writer, s *v1.SwarmInfo, settings *v1.ClusterSpec) {
	if s.LocalNodeState == v1.LocalNodeInactive || s.LocalNodeState == v1.LocalNodeLocked {
		return
	}
	line := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	line("  NodeID: %s", s.NodeID)
	if s.Error != "" {
		line("  Error: %s", s.Error)
	}
	line("  Is Manager: %t", s.ControlAvailable)
	if c := s.Cluster; c != nil && s.ControlAvailable && s.Error == "" && s.LocalNodeState != v1.LocalNodeError {
		line("  ClusterID: %s\n  Managers: %d\n  Nodes: %d", c.ID, s.Managers, s.Nodes)
		writeCluster(line, c, settings)
	}
	line("  Node Address: %s", s.NodeAddr)
	writeManagers(w, s.RemoteManagers)
}

func writeCluster(line func(string, ...any), c *v1.ClusterInfo, settings *v1.ClusterSpec) {
	if len(c.DefaultAddrPool) > 0 {
		line("  Default Address Pool: %s  \n  SubnetSize: %d", strings.Join(c.DefaultAddrPool, "  "), c.SubnetSize)
	}
	if c.DataPathPort > 0 {
		line("  Data Path Port: %d", c.DataPathPort)
	}
	line("  Gateway Address Pool: %s", c.GatewayPool)
	line("  Orchestration:\n   Task History Retention Limit: %d", c.TaskHistoryLimit)
	if settings != nil && settings.Raft != nil {
		line("  Raft:\n   Snapshot Interval: %d\n   Number of Old Snapshots to Retain: %d", settings.Raft.SnapshotInterval, settings.Raft.KeepOldSnapshots)
	}
	if c.HeartbeatPeriod > 0 {
		line("  Dispatcher:\n   Heartbeat Period: %s", units.HumanDuration(time.Duration(c.HeartbeatPeriod)))
	}
	if c.NodeCertExpiry > 0 {
		line("  CA Configuration:\n   Expiry Duration: %s", units.HumanDuration(time.Duration(c.NodeCertExpiry)))
	}
	if settings != nil && len(settings.ExternalCAs) > 0 {
		line("   External CAs:")
		for _, e := range settings.ExternalCAs {
			line("     %s: %s", e.Protocol, e.URL)
		}
	}
	line("  Autolock Managers: %t\n  Root Rotation In Progress: %t", c.AutoLock, c.RootRotationInProgress)
}

func writeManagers(w io.Writer, peers []v1.Peer) {
	if len(peers) == 0 {
		return
	}
	var addresses []string
	for _, p := range peers {
		addresses = append(addresses, p.Addr)
	}
	slices.Sort(addresses)
	fmt.Fprintln(w, "  Manager Addresses:")
	for _, address := range addresses {
		fmt.Fprintln(w, "   "+address)
	}
}

// versions are those of both ends, with Docker's fields.
type versions struct {
	Client v1.VersionInfo
	Server *v1.VersionInfo `json:",omitempty"`
}

func (a *app) versionCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:                   "version [OPTIONS]",
		Short:                 "Show the swarmctl and swarmd version information",
		Example:               "  swarmctl version --format '{{.Server.Version}}'",
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			both := versions{Client: v1.VersionInfo{Version: buildVersion(), APIVersion: v1.APIVersion, GoVersion: runtime.Version(),
				Os: runtime.GOOS, Arch: runtime.GOARCH}}
			c, err := a.daemon()
			if err != nil {
				return err
			}
			server, serverErr := c.Version(cmd.Context())
			if serverErr == nil {
				both.Server = &server
			}
			if format != "" {
				if err := a.writeOne(format, both); err != nil && serverErr == nil {
					return err
				}
				return daemonError(serverErr)
			}
			a.writeVersion("Client", &both.Client)
			if both.Server != nil {
				a.printf("\n")
				a.writeVersion("Server", both.Server)
			}
			return daemonError(serverErr)
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", `Format output: "json", or a Go template`)
	return cmd
}

func (a *app) writeVersion(whose string, v *v1.VersionInfo) {
	a.printf("%s:\n Version:           %s\n API version:       %s\n Go version:        %s\n", whose, v.Version, v.APIVersion, v.GoVersion)
	if v.GitCommit != "" {
		a.printf(" Git commit:        %s\n", v.GitCommit)
	}
	if v.BuildTime != "" {
		a.printf(" Built:             %s\n", v.BuildTime)
	}
	a.printf(" OS/Arch:           %s/%s\n", v.Os, v.Arch)
	for _, c := range v.Components {
		a.printf(" %s:\n  Version:          %s\n", c.Name, c.Version)
	}
}
