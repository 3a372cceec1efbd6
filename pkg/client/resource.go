package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// pageSize is how many objects a List asks for at a time.
const pageSize = 1000

// written is what is sent of an object: what the user writes of it.
type written[S any] struct {
	APIVersion string      `json:"apiVersion"`
	Kind       v1.Kind     `json:"kind"`
	Metadata   writtenMeta `json:"metadata"`
	Spec       *S          `json:"spec,omitempty"`
}

type writtenMeta struct {
	ID        string            `json:"id,omitempty"`
	Name      string            `json:"name,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Revisions *v1.Revisions     `json:"revisions,omitempty"`
}

// answer is what a write answers with.
type answer[S, D, T any] struct {
	v1.Resource[S, D, T]
	Warnings []string `json:"warnings"`
}

func write[S, D, T any](k v1.KindOf[S, D, T], obj *v1.Resource[S, D, T]) written[S] {
	return written[S]{v1.APIVersion, k.Kind(), writtenMeta{Name: obj.Meta.Name, Labels: obj.Meta.Labels}, obj.Spec}
}

// List returns all objects of a kind that the filter lets through, in the order of their IDs. It reads page after page; what
// is created or removed meanwhile may or may not be among them.
func List[S, D, T any](ctx context.Context, c *Client, k v1.KindOf[S, D, T], f v1.Filter) ([]*v1.Resource[S, D, T], error) {
	var all []*v1.Resource[S, D, T]
	query := url.Values{"filter": f.Strings(), "limit": {strconv.Itoa(pageSize)}}
	for {
		var page struct {
			Items    []*v1.Resource[S, D, T] `json:"items"`
			Continue string                  `json:"continue"`
		}
		if err := c.Do(ctx, http.MethodGet, "/v1/"+k.Plural()+"?"+query.Encode(), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Continue == "" {
			return all, nil
		}
		query.Set("continue", page.Continue)
	}
}

// Get finds the one object that ref means: its ID, its name, or the beginning of its ID.
func Get[S, D, T any](ctx context.Context, c *Client, k v1.KindOf[S, D, T], ref string) (*v1.Resource[S, D, T], error) {
	obj := new(v1.Resource[S, D, T])
	if err := c.Do(ctx, http.MethodGet, one(k, ref), nil, obj); err != nil {
		return nil, err
	}
	return obj, nil
}

// Create makes an object of obj's name, labels and spec, and returns it as it is stored. Warnings are for the user to read.
// A node alone may bring its ID.
func Create[S, D, T any](ctx context.Context, c *Client, k v1.KindOf[S, D, T], obj *v1.Resource[S, D, T], params ...Param) (*v1.Resource[S, D, T], []string, error) {
	w := write(k, obj)
	if k.Kind() == v1.KindNode {
		w.Metadata.ID = obj.Meta.ID
	}
	var a answer[S, D, T]
	if err := c.Do(ctx, http.MethodPost, "/v1/"+k.Plural()+query(params), w, &a); err != nil {
		return nil, nil, err
	}
	return &a.Resource, a.Warnings, nil
}

// Update replaces labels and spec of the object that has obj's ID, or its name where it has no ID. If obj has a revision of
// its spec, the update is refused (409) where someone else wrote since; without one it replaces whatever is there.
func Update[S, D, T any](ctx context.Context, c *Client, k v1.KindOf[S, D, T], obj *v1.Resource[S, D, T], params ...Param) (*v1.Resource[S, D, T], []string, error) {
	ref := obj.Meta.ID
	if ref == "" {
		ref = obj.Meta.Name
	}
	w := write(k, obj)
	if rev := obj.Meta.Revisions[v1.SectionSpec]; rev != 0 {
		w.Metadata.ID, w.Metadata.Revisions = obj.Meta.ID, &v1.Revisions{v1.SectionSpec: rev}
	}
	var a answer[S, D, T]
	if err := c.Do(ctx, http.MethodPut, one(k, ref)+query(params), w, &a); err != nil {
		return nil, nil, err
	}
	return &a.Resource, a.Warnings, nil
}

// Delete removes the one object that ref means.
func Delete[S, D, T any](ctx context.Context, c *Client, k v1.KindOf[S, D, T], ref string) error {
	return c.Do(ctx, http.MethodDelete, one(k, ref), nil, nil)
}

// Param is a parameter of a write.
type Param struct{ name, value string }

// ResolveImage is when a service's image is looked up in its registry: always, which is what happens without it, changed or never.
func ResolveImage(when string) Param { return Param{"resolveImage", when} }

func query(params []Param) string {
	if len(params) == 0 {
		return ""
	}
	all := make(url.Values, len(params))
	for _, p := range params {
		all.Set(p.name, p.value)
	}
	return "?" + all.Encode()
}

func one(k v1.Descriptor, ref string) string { return "/v1/" + k.Plural() + "/" + url.PathEscape(ref) }
