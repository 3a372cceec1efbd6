package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// edit is a pair of flags: what to add to a list, and which of it to remove.
type edit[T any] struct {
	add    *list[T]
	remove *list[string]
}

// editFlags are the flags of service update beyond those that service create has too.
type editFlags struct {
	*serviceFlags
	image             string
	args              *value[[]string]
	force, doRollback bool

	labels, containerLabels, env    edit[string]
	mounts                          edit[v1.Mount]
	secrets, configs                edit[v1.FileReference]
	constraints, groups             edit[string]
	dns, dnsOption, search          edit[string]
	hosts, sysctls                  edit[string]
	ulimits                         edit[v1.Ulimit]
	generic                         edit[v1.GenericResource]
	dependsOn                       edit[v1.Dependency]
	networks                        edit[v1.NetworkAttachment]
	preferences, removedPreferences *list[v1.PlacementPreference]
	published, unpublished          *list[v1.PortConfig]
	// book is what networks there are, where the flags name any.
	book networkBook
}

func (a *app) serviceUpdateCommand() *cobra.Command {
	var f *editFlags
	cmd := &cobra.Command{
		Use:   "update [OPTIONS] SERVICE",
		Short: "Update a service",
		Long: `Change some of a service, and wait until its tasks are as it says.

What no flag names stays as it is. An update that was paused goes on with any update, also one without flags.`,
		Example: `  # A new image, one task after another, ten seconds apart
  swarmctl service update --image nginx:1.28 --update-delay 10s web

  # Start every task anew
  swarmctl service update --force web`,
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Services),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.doRollback {
				if err := f.onlyRollback(); err != nil {
					return err
				}
				return a.rollbackService(cmd.Context(), args[0], nil, &f.wait)
			}
			if f.withAuth {
				if err := a.sendLoginOf(cmd.Context(), args[0], f.image); err != nil {
					return err
				}
			}
			if f.changed("network-add", "network-rm") {
				c, err := a.daemon()
				if err != nil {
					return err
				}
				if f.book, err = newNetworkBook(cmd.Context(), c); err != nil {
					return err
				}
			}
			return a.updateImage(cmd.Context(), args[0], f.resolve(), &f.wait, f.edit)
		},
	}
	f = a.addEditFlags(cmd)
	return cmd
}

func (a *app) addEditFlags(cmd *cobra.Command) *editFlags {
	f := &editFlags{serviceFlags: addServiceFlags(cmd, false), args: newValue("command", parseWords)}
	s := cmd.Flags()
	s.StringVar(&f.image, "image", "", "Service image tag")
	s.Var(f.args, "args", "Service command args")
	s.BoolVar(&f.doRollback, "rollback", false, "Rollback to previous specification")
	s.BoolVar(&f.force, "force", false, "Force update even if no changes require it")
	f.labels = newEdit(s, "label", "a service label", newList("list", parseLabel))
	f.containerLabels = newEdit(s, "container-label", "a container label", newList("list", parseLabel))
	f.env = newEdit(s, "env", "an environment variable", newList("list", a.parseEnv))
	f.mounts = newEdit(s, "mount", "a mount", newList("mount", parseMount))
	s.Lookup("mount-rm").Usage = "Remove a mount by its target path"
	f.secrets = newEdit(s, "secret", "a secret", newList("secret", parseReference("secret")))
	f.configs = newEdit(s, "config", "a configuration file", newList("config", parseReference("config")))
	f.constraints = newEdit(s, "constraint", "a placement constraint", newStrings())
	f.groups = newEdit(s, "group", "a supplementary user group", newStrings())
	f.dns = newEdit(s, "dns", "a custom DNS server", newList("list", parseAddress))
	f.dnsOption = newEdit(s, "dns-option", "a DNS option", newStrings())
	f.search = newEdit(s, "dns-search", "a custom DNS search domain", newList("list", parseSearch))
	f.hosts = newEdit(s, "host", `a custom host-to-IP mapping ("host:ip")`, newList("list", parseHost))
	f.sysctls = newEdit(s, "sysctl", "a Sysctl option", newStrings())
	f.ulimits = newEdit(s, "ulimit", "a ulimit option", newList("ulimit", parseUlimit))
	f.generic = newEdit(s, "generic-resource", "a Generic resource", newList("list", parseGeneric))
	f.dependsOn = newEdit(s, "depends-on", "a service to wait for at the first start", newList("dependency", parseDependency))
	f.networks = newEdit(s, "network", "a network", newList("network", parseNetwork))
	f.preferences, f.removedPreferences = newList("pref", parsePreference), newList("pref", parsePreference)
	s.Var(f.preferences, "placement-pref-add", "Add a placement preference")
	s.Var(f.removedPreferences, "placement-pref-rm", "Remove a placement preference")
	f.published, f.unpublished = &list[v1.PortConfig]{kind: "port", parse: parsePorts}, &list[v1.PortConfig]{kind: "port", parse: parsePorts}
	s.Var(f.published, "publish-add", "Add or update a published port")
	s.Var(f.unpublished, "publish-rm", "Remove a published port by its target port")
	_ = cmd.RegisterFlagCompletionFunc("secret-add", completeNames(a, v1.Secrets))
	_ = cmd.RegisterFlagCompletionFunc("config-add", completeNames(a, v1.Configs))
	_ = cmd.RegisterFlagCompletionFunc("network-add", completeNames(a, v1.Networks))
	return f
}

// newEdit adds the flags that add to and remove from what a service has; what is one of it, with its article.
func newEdit[T any](s *pflag.FlagSet, name, what string, add *list[T]) edit[T] {
	e := edit[T]{add: add, remove: newStrings()}
	s.Var(e.add, name+"-add", "Add or update "+what)
	s.Var(e.remove, name+"-rm", "Remove "+what)
	return e
}

// resolve is when the image is looked up: where the command names none, it stays what it is.
func (f *editFlags) resolve() string {
	if !f.changed("image") {
		return "never"
	}
	return f.resolveImage()
}

func (f *editFlags) onlyRollback() error {
	var others bool
	f.set.Visit(func(flag *pflag.Flag) {
		switch flag.Name {
		case "rollback", "detach", "quiet", "timeout", "host":
		default:
			others = true
		}
	})
	if others {
		return errors.New("other flags may not be combined with --rollback")
	}
	return nil
}

// maxConflicts is how often an update that somebody else was faster than is tried again.
const maxConflicts = 10

// changeService reads a service, lets change work on a copy of it, and writes it back; where somebody else wrote in
// between, it begins again with what they wrote.
func (a *app) changeService(ctx context.Context, c *client.Client, ref string, change func(*v1.Service) error) (*v1.Service, error) {
	return a.changeImage(ctx, c, ref, "never", change) // an image that nobody names stays what it is
}

// changeImage is changeService, where resolve is when the image is looked up.
func (a *app) changeImage(ctx context.Context, c *client.Client, ref, resolve string, change func(*v1.Service) error) (*v1.Service, error) {
	for try := 1; ; try++ {
		svc, err := client.Get(ctx, c, v1.Services, ref)
		if err != nil {
			return nil, apiError(err, v1.KindService, ref)
		}
		failed := ""
		if svc.Desired != nil && svc.Desired.RolledBack != nil {
			failed = svc.Desired.RolledBack.From
		}
		svc = v1.Effective(svc)
		svc.Spec.RollbackTo = ""
		if err := change(svc); err != nil {
			return nil, err
		}
		if v1.RevisionID(svc) == failed {
			svc.Spec.Task.ForceUpdate++ // the user wants what was rolled back to be tried again
		}
		updated, warnings, err := client.Update(ctx, c, v1.Services, svc, client.ResolveImage(resolve))
		if client.Status(err) == http.StatusConflict && try < maxConflicts && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return nil, apiError(err, v1.KindService, ref)
		}
		a.warn(warnings)
		return updated, nil
	}
}

func (a *app) updateService(ctx context.Context, ref string, wait *waitFlags, change func(*v1.Service) error) error {
	return a.updateImage(ctx, ref, "never", wait, change)
}

func (a *app) updateImage(ctx context.Context, ref, resolve string, wait *waitFlags, change func(*v1.Service) error) error {
	c, err := a.daemon()
	if err != nil {
		return err
	}
	started := a.Now()
	updated, err := a.changeImage(ctx, c, ref, resolve, change)
	if err != nil {
		return err
	}
	fmt.Fprintln(a.Out, ref)
	return a.converge(ctx, c, wait, started, updated)
}
