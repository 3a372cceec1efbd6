package apiserver

import (
	"net/http"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// writable are the kinds that users create, change and delete. The swarm makes the others; the one cluster is made with it.
var writable = map[v1.Kind]bool{
	v1.KindService: true, v1.KindNode: true, v1.KindNetwork: true, v1.KindSecret: true, v1.KindConfig: true, v1.KindVolume: true,
}

// resourceRoutes are the doors of one kind.
func (s *Server) resourceRoutes(d v1.Descriptor) []route {
	k, plural := d.Kind(), d.Plural()
	if v1.Internal(k) {
		return nil
	}
	all, one := "/v1/"+plural, "/v1/"+plural+"/{ref}"
	with := func(handle func(http.ResponseWriter, *http.Request, v1.Descriptor) error) func(http.ResponseWriter, *http.Request) error {
		return func(w http.ResponseWriter, r *http.Request) error { return handle(w, r, d) }
	}
	routes := []route{
		{method: http.MethodGet, path: all, resource: plural, summary: "List the " + plural + ", or watch them with watch=true.",
			query: []string{"filter", "limit", "continue", "watch", "after"}, out: listOf(d), handle: with(s.list)},
		{method: http.MethodGet, path: one, resource: plural, summary: "Read the one that is meant by ID, name or the beginning of an ID.",
			out: d.New(), handle: with(s.get)},
	}
	put := route{method: http.MethodPut, path: one, resource: plural, in: d.New(), out: d.New(), query: []string{"dryRun"},
		summary: "Replace labels and spec, on the condition of metadata.revisions.spec where that is given.", handle: with(s.update)}
	if k == v1.KindService {
		put.query = append(put.query, "resolveImage")
	}
	if k == v1.KindCluster {
		return append(routes, put)
	}
	if !writable[k] {
		return routes
	}
	create := route{method: http.MethodPost, path: all, resource: plural, in: d.New(), out: d.New(), query: put.query,
		summary: "Create one.", handle: with(s.create)}
	remove := route{method: http.MethodDelete, path: one, resource: plural, query: []string{"dryRun"}, summary: "Delete one.", handle: with(s.remove)}
	if k == v1.KindNode {
		create.handle = with(s.createNode)
		remove.query = append(remove.query, "force")
	}
	return append(routes, create, put, remove)
}
