package cli

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// residents are who is on a network.
type residents struct {
	network *v1.Network
	// services are those that ask for the network or have an address there, by name.
	services []*v1.Service
	// tasks are those that have not ended, of these services or with an address there, in the order of lists.
	tasks []*v1.Task
	nodes map[string]*v1.Node
}

func newResidents(ctx context.Context, c *client.Client, n *v1.Network) (*residents, error) {
	r := &residents{network: n, nodes: make(map[string]*v1.Node)}
	services, err := client.List(ctx, c, v1.Services, nil)
	if err != nil {
		return nil, daemonError(err)
	}
	r.services = slices.DeleteFunc(services, func(s *v1.Service) bool { return r.attachment(s) == nil && r.vips(s) == nil })
	byName(r.services)
	asking := make(map[string]bool)
	for _, s := range r.services {
		asking[s.Meta.ID] = true
	}
	tasks, err := client.List(ctx, c, v1.Tasks, v1.Filter{"state": liveStates})
	if err != nil {
		return nil, daemonError(err)
	}
	r.tasks = slices.DeleteFunc(tasks, func(t *v1.Task) bool {
		return t.Desired == nil || !asking[t.Desired.Service] && addressesOn(n.Meta.ID, t.Desired.Networks) == nil
	})
	sortTasks(r.tasks)
	nodes, err := client.List(ctx, c, v1.Nodes, nil)
	if err != nil {
		return nil, daemonError(err)
	}
	for _, node := range nodes {
		r.nodes[node.Meta.ID] = node
	}
	return r, nil
}

// attachment is how a service asks for the network, nil where it does not.
func (r *residents) attachment(s *v1.Service) *v1.NetworkAttachment {
	if s.Spec == nil {
		return nil
	}
	list := s.Spec.Task.Networks
	i := slices.IndexFunc(list, func(a v1.NetworkAttachment) bool {
		return a.Target == r.network.Meta.Name || a.Target == r.network.Meta.ID
	})
	if i < 0 {
		return nil
	}
	return &list[i]
}

// vips are a service's addresses on the network.
func (r *residents) vips(s *v1.Service) []string {
	if s.Desired == nil {
		return nil
	}
	return addressesOn(r.network.Meta.ID, s.Desired.VIPs)
}

// address is where a node's traffic of tasks is, as far as the node has said.
func (r *residents) address(node string) string {
	if n := r.nodes[node]; n != nil && n.Status != nil {
		return n.Status.Addr
	}
	return ""
}

// convert adds what docker network inspect --verbose prints.
func (r *residents) convert(d *dockerNetworkResource) {
	services := make(map[string]*dockerNetworkService)
	at := func(name string) *dockerNetworkService {
		if services[name] == nil {
			services[name] = &dockerNetworkService{Ports: []string{}, Tasks: []dockerNetworkTask{}}
		}
		return services[name]
	}
	for _, s := range r.services {
		service := at(s.Meta.Name)
		if vips := r.vips(s); len(vips) > 0 {
			service.VIP = bare(vips[0])
		}
	}
	peers := make(map[string]bool)
	for _, t := range r.tasks {
		addresses := addressesOn(r.network.Meta.ID, t.Desired.Networks)
		if len(addresses) == 0 {
			continue
		}
		node := v1.TaskNode(t)
		service := at(t.Desired.ServiceName)
		service.Tasks = append(service.Tasks, dockerNetworkTask{Name: v1.ContainerName(t), EndpointID: t.Meta.ID, EndpointIP: bare(addresses[0]),
			Info: map[string]string{"Host IP": r.address(node)}})
		if node != "" {
			peers[node] = true
		}
	}
	d.Services = make(map[string]dockerNetworkService)
	for name, s := range services {
		d.Services[name] = *s
	}
	for _, node := range slices.Sorted(maps.Keys(peers)) {
		name := node
		if n := r.nodes[node]; n != nil {
			name = nodeName(n)
		}
		d.Peers = append(d.Peers, dockerPeer{name, r.address(node)})
	}
	slices.SortStableFunc(d.Peers, func(x, y dockerPeer) int { return cmp.Or(naturalCompare(x.Name, y.Name), strings.Compare(x.IP, y.IP)) })
}
