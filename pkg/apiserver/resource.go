package apiserver

import (
	"net/http"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// writable are the kinds that users create, change and delete, and who of the users. The swarm makes the others; the one cluster is
// made with it.
var writable = map[v1.Kind]rights{
	v1.KindService: rightsOperate, v1.KindNetwork: rightsOperate, v1.KindSecret: rightsOperate, v1.KindConfig: rightsOperate,
	v1.KindVolume: rightsOperate, v1.KindRegistry: rightsOperate, v1.KindNode: rightsAdmin, v1.KindUser: rightsAdmin,
	v1.KindAttachment: rightsOperate,
}

// resourceHandler answers for one kind.
type resourceHandler func(w http.ResponseWriter, r *http.Request, d v1.Descriptor) error

// writers are the handlers of a kind that write. A nil one is a door that the kind does not have.
type writers struct{ create, update, remove resourceHandler }

// writersOf are the handlers for a kind: most are alike.
func (s *Server) writersOf(k v1.Kind) writers {
	switch k {
	case v1.KindNode:
		return writers{s.createNode, s.updateNode, s.removeNode}
	case v1.KindUser:
		return writers{s.createUser, s.updateUser, s.remove}
	case v1.KindCluster:
		return writers{update: s.updateCluster}
	}
	if writable[k] == 0 {
		return writers{}
	}
	return writers{s.create, s.update, s.remove}
}

// resourceRoutes are the doors of one kind.
func (s *Server) resourceRoutes(d v1.Descriptor) []route {
	k, plural := d.Kind(), d.Plural()
	if v1.Internal(k) {
		return nil
	}
	all, one := "/v1/"+plural, "/v1/"+plural+"/{ref}"
	with := func(handle resourceHandler) func(http.ResponseWriter, *http.Request) error {
		return func(w http.ResponseWriter, r *http.Request) error { return handle(w, r, d) }
	}
	see, write := rightsView, writable[k]
	if k == v1.KindUser {
		see = rightsAdmin
	}
	routes := []route{
		{method: http.MethodGet, path: all, resource: plural, may: see, summary: "List the " + plural + ", or watch them with watch=true.",
			query: []string{"filter", "limit", "continue", "watch", "after"}, out: listOf(d), handle: with(s.list)},
		{method: http.MethodGet, path: one, resource: plural, may: see, out: d.New(), handle: with(s.get),
			summary: "Read the one that is meant by ID, name or the beginning of an ID."},
	}
	create := route{method: http.MethodPost, path: all, resource: plural, may: write, in: d.New(), out: d.New(), query: []string{"dryRun"},
		summary: "Create one."}
	put := route{method: http.MethodPut, path: one, resource: plural, may: write, in: d.New(), out: d.New(), query: []string{"dryRun"},
		summary: "Replace labels and spec, on the condition of metadata.revisions.spec where that is given."}
	remove := route{method: http.MethodDelete, path: one, resource: plural, may: write, query: []string{"dryRun"}, summary: "Delete one."}
	switch k {
	case v1.KindService:
		create.query, put.query = append(create.query, "resolveImage"), append(put.query, "resolveImage")
	case v1.KindCluster:
		put.may = rightsAdmin
	case v1.KindNode: // nodes come by joining
		create.may, put.may, remove.query = rightsRoot, rightsOperate, append(remove.query, "force")
	}
	does := s.writersOf(k)
	for _, door := range []struct {
		route
		handle resourceHandler
	}{{create, does.create}, {put, does.update}, {remove, does.remove}} {
		if door.handle != nil {
			door.route.handle = with(door.handle)
			routes = append(routes, door.route)
		}
	}
	return routes
}
