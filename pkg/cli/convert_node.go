package cli

import (
	"cmp"
	"net"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// managerPort is where a manager listens for other nodes.
const managerPort = "2377"

// convertTask is a task as docker inspect prints it. Revision is what it runs, nil where that is not known any more.
func convertTask(t *v1.Task, revision *v1.ServiceRevision, n names) *dockerTask {
	d := &dockerTask{ID: t.Meta.ID, dockerMeta: convertMeta(&t.Meta), Labels: t.Meta.Labels, NodeID: v1.TaskNode(t)}
	d.Status.State = v1.Observed(t).String()
	d.Status.Timestamp = t.Meta.UpdatedAt
	if revision != nil && revision.Spec != nil {
		d.Spec = convertTaskSpec(&revision.Spec.Task, n)
	}
	if t.Desired != nil {
		d.ServiceID, d.Slot, d.DesiredState = t.Desired.Service, t.Desired.Slot, t.Desired.State.String()
		d.Status.Err = t.Desired.Pending
		if p := t.Desired.Placement; p != nil {
			d.GenericResources = convertGeneric(p.Generic)
		}
		for _, address := range t.Desired.Networks {
			d.NetworksAttachments = append(d.NetworksAttachments, convertAttachment(address, n.networks.exact(address.Network)))
		}
	}
	if s := t.Status; s != nil {
		d.Status.Message, d.Status.Err = s.Message, s.Err
		if !s.At.IsZero() {
			d.Status.Timestamp = s.At
		}
		d.Status.PortStatus.Ports = convertPorts(s.Ports)
		if c := s.Container; c != nil {
			d.Status.ContainerStatus = &dockerContainerStatus{ContainerID: c.ID, PID: int(c.PID)}
			if c.ExitCode != nil {
				d.Status.ContainerStatus.ExitCode = *c.ExitCode
			}
		}
	}
	if t.Desired != nil && v1.MoveDropped(t) {
		d.Status.Err = strings.TrimSuffix(t.Desired.Reason+": "+d.Status.Err, ": ")
	}
	return d
}

// convertNode is a node as docker inspect prints it, from what the node says alone: see roster.convert.
func convertNode(node *v1.Node) *dockerNode {
	d := &dockerNode{ID: node.Meta.ID, dockerMeta: convertMeta(&node.Meta)}
	d.Spec.dockerAnnotations = annotations(&node.Meta)
	if node.Spec != nil {
		d.Spec.Role, d.Spec.Availability = string(node.Spec.Role), string(node.Spec.Availability)
	}
	d.Status.State = string(v1.NodeUnknown)
	if s := node.Status; s != nil {
		d.Status = dockerNodeStatus{string(cmp.Or(s.State, v1.NodeUnknown)), s.Message, s.Addr}
		d.Description = dockerDescription{
			Hostname: s.Description.Hostname,
			Platform: dockerPlatform(s.Description.Platform),
			Resources: dockerReservations{int64(s.Description.Resources.CPUs), int64(s.Description.Resources.Memory),
				convertGeneric(s.Description.Resources.Generic)},
			Engine: dockerEngine{s.Description.Engine.Version, s.Description.Engine.Labels},
		}
	}
	down := node.Desired != nil && !node.Desired.Down.IsZero()
	if down {
		d.Status.State = string(v1.NodeDown)
	}
	if d.Spec.Role == string(v1.RoleManager) {
		m := &dockerManagerStatus{Reachability: "reachable"}
		if down {
			m.Reachability = "unreachable"
		}
		if d.Status.Addr != "" {
			m.Addr = net.JoinHostPort(d.Status.Addr, managerPort)
		}
		d.ManagerStatus = m
	}
	return d
}

// convertSecret is a secret as docker inspect prints it: never with its data.
func convertSecret(s *v1.Secret) *dockerData {
	d := convertData(&s.Meta)
	if s.Spec != nil {
		d.Spec.Driver, d.Spec.Templating = convertDriver(s.Spec.Driver), convertDriver(s.Spec.Templating)
	}
	return d
}

// convertConfig is a config as docker inspect prints it.
func convertConfig(c *v1.Config) *dockerData {
	d := convertData(&c.Meta)
	if c.Spec != nil {
		d.Spec.Data, d.Spec.Templating = c.Spec.Data, convertDriver(c.Spec.Templating)
	}
	return d
}

func convertData(m *v1.Meta) *dockerData {
	d := &dockerData{ID: m.ID, dockerMeta: convertMeta(m)}
	d.Spec.dockerAnnotations = annotations(m)
	return d
}
