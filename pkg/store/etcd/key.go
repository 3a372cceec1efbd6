package etcd

import (
	"fmt"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// The prefixes. The watch covers everything of ours, so that the view's revision moves with an election too; only what is
// below objects is state.
const (
	ours    = "/swarm/v1"
	objects = ours + "/"
	leaders = ours + "-leader/"
	checks  = ours + "-keyring"
	nothing = ours + "-nothing" // never written; asked for its revision
)

// escaper keeps an ID one element of the path, whatever is in it: a claim's ID has a slash.
var (
	escaper   = strings.NewReplacer("%", "%25", "/", "%2F")
	unescaper = strings.NewReplacer("%25", "%", "%2F", "/")
)

// objectPath is the prefix of all sections of an object.
func objectPath(kind v1.Kind, id string) string {
	return objects + string(kind) + "/" + escaper.Replace(id) + "/"
}

func sectionPath(kind v1.Kind, id string, s v1.Section) string {
	return objectPath(kind, id) + s.String()
}

// parsePath is the inverse of sectionPath.
func parsePath(path string) (d v1.Descriptor, id string, s v1.Section, err error) {
	parts := strings.Split(strings.TrimPrefix(path, objects), "/")
	if !strings.HasPrefix(path, objects) || len(parts) != 3 || parts[1] == "" {
		return nil, "", 0, fmt.Errorf("store: etcd: key %q is not of the form %s<kind>/<id>/<section>", path, objects)
	}
	d, ok := v1.Describe(v1.Kind(parts[0]))
	if !ok {
		return nil, "", 0, fmt.Errorf("store: etcd: key %q: no such kind %q", path, parts[0])
	}
	s, ok = v1.ParseSection(parts[2])
	if !ok || !d.Has(s) {
		return nil, "", 0, fmt.Errorf("store: etcd: key %q: %s has no section %q", path, d.Kind(), parts[2])
	}
	return d, unescaper.Replace(parts[1]), s, nil
}
