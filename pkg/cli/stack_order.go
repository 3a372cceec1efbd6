package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/compose"
)

// service creates or changes a service, once those run that it depends on. One that stays as it is waits for nothing.
func (d *deployment) service(ctx context.Context, s compose.Service) (*v1.Service, error) {
	resolve, err := d.keepImage(ctx, s.Service)
	if err != nil {
		return nil, err
	}
	if len(s.Needs) > 0 {
		changes, err := d.changes(ctx, s.Service, resolve)
		if err != nil {
			return nil, err
		}
		if changes {
			if err := d.await(ctx, s); err != nil {
				return nil, err
			}
		}
	}
	r, err := d.put(ctx, s.Service, resolve)
	if err != nil {
		return nil, err
	}
	made := r.object.(*v1.Service)
	d.made[made.Meta.Name] = made
	return made, nil
}

// keepImage leaves a service the image that it has, digest and platforms included, where the file names the one that it named before,
// unless all are to be looked up anew. It tells when the image is to be looked up.
func (d *deployment) keepImage(ctx context.Context, s *v1.Service) (resolve string, err error) {
	if d.flags.resolve == "always" {
		return d.flags.resolve, nil
	}
	found, err := d.owned(ctx, s)
	if err != nil || found == nil {
		return d.flags.resolve, err
	}
	old := found.(*v1.Service)
	if old.Meta.Labels[compose.LabelImage] != s.Meta.Labels[compose.LabelImage] {
		return d.flags.resolve, nil
	}
	s.Spec.Task.Container.Image = old.Spec.Task.Container.Image
	if p := old.Spec.Task.Placement; p != nil && len(p.Platforms) > 0 {
		placement(&s.Spec.Task).Platforms = p.Platforms
	}
	return "never", nil
}

// changes tells whether deploying a service would change anything.
func (d *deployment) changes(ctx context.Context, s *v1.Service, resolve string) (bool, error) {
	if _, err := d.owned(ctx, s); err != nil {
		return false, err
	}
	r, err := applyOne(ctx, d.client, document{Manifest: v1.ManifestOf(s), resolve: resolve}, true)
	if err != nil {
		return false, fmt.Errorf("%s: %w", ref(v1.KindService, s.Meta.Name), daemonError(err))
	}
	return r.did != "unchanged", nil
}

// await waits for what a service depends on, each time for at most as long as is waited for any service.
func (d *deployment) await(ctx context.Context, s compose.Service) error {
	for _, need := range s.Needs {
		needed := d.made[need.Service]
		key := compose.Need{Service: need.Service, Completed: need.Completed}
		if needed == nil || d.waited[key] {
			continue
		}
		d.waited[key] = true
		word := "run"
		wait := d.flags.wait
		wait.detach, wait.goal = false, toRunOrEnd
		if need.Completed {
			word, wait.goal = "complete", toEnd
		}
		if !wait.quiet {
			d.printf("Waiting for service %s to %s: service %s depends on it\n", need.Service, word, s.Meta.Name)
		}
		err := d.converge(ctx, d.client, &wait, d.started, needed)
		switch _, interrupted := errors.AsType[*exitError](err); {
		case err == nil:
		case interrupted:
			return err
		case need.Optional:
			d.warn([]string{fmt.Sprintf("service %s depends on %s, and goes on without: %v", s.Meta.Name, need.Service, err)})
		default:
			return fmt.Errorf("service %s depends on %s: %w", s.Meta.Name, need.Service, err)
		}
	}
	return nil
}

// pruneServices removes the stack's services that the files no longer have.
func (d *deployment) pruneServices(ctx context.Context) error {
	services, err := client.List(ctx, d.client, v1.Services, inStack(d.stack.Name))
	if err != nil {
		return daemonError(err)
	}
	byName(services)
	services = slices.DeleteFunc(services, func(old *v1.Service) bool {
		return slices.ContainsFunc(d.stack.Services, func(s compose.Service) bool { return s.Meta.Name == old.Meta.Name })
	})
	return removeAll(ctx, d.app, d.client, v1.Services, services)
}

// removeAll removes objects of a stack, and says so. What is gone already is no error.
func removeAll[S, D, T any](ctx context.Context, a *app, c *client.Client, k v1.KindOf[S, D, T], all []*v1.Resource[S, D, T]) error {
	var errs []error
	for _, o := range all {
		a.printf("Removing %s\n", spoken(k.Kind(), o.Meta.Name))
		if err := apiError(client.Delete(ctx, c, k, o.Meta.ID), k.Kind(), o.Meta.Name); err != nil && !notFound(err) {
			errs = append(errs, fmt.Errorf("failed to remove %s: %w", spoken(k.Kind(), o.Meta.Name), err))
		}
	}
	return errors.Join(errs...)
}
