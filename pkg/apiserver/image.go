package apiserver

import (
	"context"
	"fmt"
	"net/http"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// When an image is looked up, as "docker stack deploy --resolve-image" has it.
const (
	resolveAlways  = "always"
	resolveChanged = "changed"
	resolveNever   = "never"
)

// pin makes a service's image mean the same bits for all of its tasks: its reference gets the digest that it has now. A
// registry that cannot be asked is a warning, and an image that was pinned before stays at what it was. old is nil for
// a new service.
func (s *Server) pin(r *http.Request, b *backend, service *v1.Service, old v1.Object) (warnings []string, err error) {
	when, err := oneOf(r, "resolveImage", resolveAlways, resolveChanged, resolveNever)
	if err != nil {
		return nil, err
	}
	c := &service.Spec.Task.Container
	ref, err := v1.ParseImageReference(c.Image)
	if err != nil || ref.Digest != "" || s.resolver == nil {
		return nil, nil // validation has refused what cannot be parsed
	}
	before, known := pinnedBefore(old, ref)
	if known && when == resolveChanged {
		c.Image = before.Container.Image
		inheritPlatforms(&service.Spec.Task, before)
		return nil, nil
	}
	if when == resolveNever {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.ResolveTimeout)
	defer cancel()
	login, err := b.loginFor(ctx, ref)
	if err != nil {
		return nil, err
	}
	pinned, platforms, err := s.resolver.Resolve(ctx, c.Image, login)
	switch {
	case err == nil:
		c.Image = pinned
		if len(platforms) > 0 {
			setPlatforms(&service.Spec.Task, platforms)
		}
		return nil, nil
	case r.Context().Err() != nil:
		return nil, context.Cause(r.Context())
	case known:
		warning := fmt.Sprintf("image %s could not be accessed on a registry; the service stays at %s", c.Image, before.Container.Image)
		c.Image = before.Container.Image
		inheritPlatforms(&service.Spec.Task, before)
		return []string{warning}, nil
	}
	s.log.Debug("an image could not be resolved", "image", c.Image, "error", err)
	return []string{fmt.Sprintf("image %[1]s could not be accessed on a registry to record\nits digest. Each node will access %[1]s "+
		"independently,\npossibly leading to different nodes running different\nversions of the image.\n", c.Image)}, nil
}

// pinnedBefore is what a service runs, if that is the same reference with a digest.
func pinnedBefore(old v1.Object, ref v1.ImageReference) (*v1.TaskSpec, bool) {
	service, ok := old.(*v1.Service)
	if !ok {
		return nil, false
	}
	was, err := v1.ParseImageReference(service.Spec.Task.Container.Image)
	if err != nil || was.Digest == "" {
		return nil, false
	}
	was.Digest = ""
	return &service.Spec.Task, was.String() == ref.String()
}

func inheritPlatforms(t, before *v1.TaskSpec) {
	if before.Placement != nil && len(before.Placement.Platforms) > 0 {
		setPlatforms(t, before.Placement.Platforms)
	}
}

func setPlatforms(t *v1.TaskSpec, platforms []v1.Platform) {
	placement := v1.Placement{}
	if t.Placement != nil {
		placement = *t.Placement
	}
	placement.Platforms = platforms
	t.Placement = &placement
}
