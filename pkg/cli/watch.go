package cli

import (
	"context"
	"fmt"
	"iter"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// seen is one thing that a watch told of an object of any kind.
type seen struct {
	object v1.Object
	gone   bool
}

// watchAny is a watch of any kind, beginning with what there is.
func watchAny(ctx context.Context, c *client.Client, k v1.Descriptor, f v1.Filter) iter.Seq2[seen, error] {
	switch k.Kind() {
	case v1.KindService:
		return watchOf(ctx, c, v1.Services, f)
	case v1.KindServiceRevision:
		return watchOf(ctx, c, v1.ServiceRevisions, f)
	case v1.KindTask:
		return watchOf(ctx, c, v1.Tasks, f)
	case v1.KindNode:
		return watchOf(ctx, c, v1.Nodes, f)
	case v1.KindNetwork:
		return watchOf(ctx, c, v1.Networks, f)
	case v1.KindSecret:
		return watchOf(ctx, c, v1.Secrets, f)
	case v1.KindConfig:
		return watchOf(ctx, c, v1.Configs, f)
	case v1.KindVolume:
		return watchOf(ctx, c, v1.Volumes, f)
	case v1.KindRegistry:
		return watchOf(ctx, c, v1.Registries, f)
	case v1.KindCluster:
		return watchOf(ctx, c, v1.Clusters, f)
	case v1.KindUser:
		return watchOf(ctx, c, v1.Users, f)
	case v1.KindMember:
		return watchOf(ctx, c, v1.Members, f)
	case v1.KindAttachment:
		return watchOf(ctx, c, v1.Attachments, f)
	}
	return func(yield func(seen, error) bool) {
		yield(seen{}, fmt.Errorf("%s objects cannot be watched", k.Kind()))
	}
}

func watchOf[S, D, T any](ctx context.Context, c *client.Client, k v1.KindOf[S, D, T], f v1.Filter) iter.Seq2[seen, error] {
	return func(yield func(seen, error) bool) {
		for event, err := range client.Watch(ctx, c, k, f, -1) {
			if err != nil {
				yield(seen{}, err)
				return
			}
			if !yield(seen{event.Object, event.Type == client.EventDelete}, nil) {
				return
			}
		}
	}
}

// watchObjects prints objects as they are and then as they change, until ctx ends.
func (a *app) watchObjects(ctx context.Context, p *printer, refs []string, f v1.Filter, match func(map[string]string) bool) error {
	p.single = true
	for s, err := range watchAny(ctx, p.client, p.kind, f) {
		if err != nil {
			if ctx.Err() != nil {
				return &exitError{code: 130}
			}
			return daemonError(err)
		}
		m := s.object.GetMeta()
		wanted := len(refs) == 0 || slices.Contains(refs, objectName(s.object)) || slices.Contains(refs, m.ID)
		if !wanted || !match(m.Labels) {
			continue
		}
		if s.gone {
			fmt.Fprintf(a.Err, "%s removed\n", ref(p.kind.Kind(), objectName(s.object)))
			continue
		}
		if p.output == "yaml" {
			a.printf("---\n")
		}
		if err := p.print(ctx, []v1.Object{s.object}); err != nil {
			return err
		}
	}
	return nil
}
