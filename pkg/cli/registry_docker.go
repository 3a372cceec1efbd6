package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// dockerHub is what Docker's configuration calls docker.io.
const dockerHub = "index.docker.io"

// repository is a repository, or a whole registry, as Docker's configuration is asked for it.
type repository string

// String implements authn.Resource.
func (r repository) String() string {
	host, path, deep := strings.Cut(string(r), "/")
	if host == standardRegistry {
		host = dockerHub
	}
	if deep {
		host += "/" + path
	}
	return host
}

// RegistryStr implements authn.Resource.
func (r repository) RegistryStr() string {
	host, _, _ := strings.Cut(r.String(), "/")
	return host
}

// dockerLogin is what "docker login" has kept for a repository or registry, in its file or with a credential helper; nil for nothing.
func dockerLogin(name string) (*v1.RegistrySpec, error) {
	found, err := authn.DefaultKeychain.Resolve(repository(name))
	if err != nil {
		return nil, fmt.Errorf("ask Docker's configuration for a login to %s: %w", name, err)
	}
	config, err := found.Authorization()
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask Docker's configuration for a login to %s: %w", name, err)
	case config.IdentityToken != "":
		return &v1.RegistrySpec{IdentityToken: config.IdentityToken}, nil
	case config.Username == "" || config.Password == "":
		return nil, nil
	}
	return &v1.RegistrySpec{Username: config.Username, Password: config.Password}, nil
}

// sendLogins gives the swarm this user's own logins to the registries of images, as --with-registry-auth asks for. A login of somebody
// else to the same registry stays: then this user's is for the image's repository alone.
func (a *app) sendLogins(ctx context.Context, c *client.Client, images []string) error {
	known, err := client.List(ctx, c, v1.Registries, nil)
	if err != nil {
		return daemonError(err)
	}
	var repositories []string
	for _, image := range images {
		if ref, err := v1.ParseImageReference(image); err == nil { // else the daemon says what is wrong
			repositories = append(repositories, ref.Repository())
		}
	}
	slices.Sort(repositories)
	repositories = slices.Compact(repositories)
	sent := make(map[string]bool)
	for _, r := range repositories {
		spec, err := dockerLogin(r)
		if err != nil {
			return err
		}
		if spec == nil {
			continue
		}
		name := loginPlace(known, r, spec)
		if sent[name] {
			continue
		}
		sent[name] = true
		warnings, err := putLogin(ctx, c, name, spec)
		if err != nil {
			return err
		}
		a.warn(warnings)
		if !slices.ContainsFunc(known, func(k *v1.Registry) bool { return k.Meta.Name == name }) {
			known = append(known, &v1.Registry{Meta: v1.Meta{Name: name}, Spec: &v1.RegistrySpec{Username: spec.Username}})
		}
	}
	if len(sent) == 0 && len(repositories) > 0 {
		a.warn([]string{fmt.Sprintf(`--with-registry-auth: "docker login" has kept no login for %s`, strings.Join(repositories, ", "))})
	}
	return nil
}

// sendLoginOf does so for an image, or where that is empty for the one that a service has.
func (a *app) sendLoginOf(ctx context.Context, service, image string) error {
	c, err := a.daemon()
	if err != nil {
		return err
	}
	if image == "" {
		svc, err := client.Get(ctx, c, v1.Services, service)
		if err != nil {
			return apiError(err, v1.KindService, service)
		}
		image = svc.Spec.Task.Container.Image
	}
	return a.sendLogins(ctx, c, []string{image})
}

// loginPlace is the name that a login for a repository is to be kept by: that of the login which it renews, which is the same user's, or
// the registry's where it has none yet, or the repository's own.
func loginPlace(known []*v1.Registry, repository string, spec *v1.RegistrySpec) string {
	var present *v1.Registry
	v1.MatchLogin(repository, func(name string) bool {
		i := slices.IndexFunc(known, func(k *v1.Registry) bool { return k.Meta.Name == name })
		if i >= 0 {
			present = known[i]
		}
		return i >= 0
	})
	switch {
	case present == nil:
		host, _, _ := strings.Cut(repository, "/")
		return host
	case present.Spec != nil && present.Spec.Username == spec.Username:
		return present.Meta.Name
	}
	return repository
}
