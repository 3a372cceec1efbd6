package cli

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// createFlags are those of service create beyond what service update has too.
type createFlags struct {
	*serviceFlags
	name, mode              string
	labels, containerLabels *list[string]
	env, envFiles           *list[string]
	mounts                  *list[v1.Mount]
	constraints             *list[string]
	preferences             *list[v1.PlacementPreference]
	networks                *list[v1.NetworkAttachment]
	secrets, configs        *list[v1.FileReference]
	ports                   *list[v1.PortConfig]
	groups                  *list[string]
	dns, dnsOption, search  *list[string]
	hosts, sysctls          *list[string]
	ulimits                 *list[v1.Ulimit]
	generic                 *list[v1.GenericResource]
	dependsOn               *list[v1.Dependency]
}

func (a *app) serviceCreateCommand() *cobra.Command {
	var f *createFlags
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create a new service",
		Long:  "Create a new service, and wait until its tasks run. The service stays also when waiting is given up.",
		Example: `  # Three replicas behind port 8080 of every node
  swarmctl service create --name web --replicas 3 --publish 8080:80 nginx:1.27

  # One on each node whose label zone is east, at most half a core each
  swarmctl service create --name agent --mode global --constraint node.labels.zone==east --limit-cpu 0.5 agent:2

  # Every night
  swarmctl service create --name backup --mode cron --schedule "30 3 * * *" --time-zone Europe/Berlin backup:1`,
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			svc, err := f.service(a, args)
			if err != nil {
				return err
			}
			return a.createService(cmd.Context(), svc, f.serviceFlags)
		},
	}
	f = a.addCreateFlags(cmd)
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func (a *app) addCreateFlags(cmd *cobra.Command) *createFlags {
	f := &createFlags{serviceFlags: addServiceFlags(cmd, true),
		labels: newList("list", parseLabel), containerLabels: newList("list", parseLabel),
		env: newList("list", a.parseEnv), envFiles: newStrings(), mounts: newList("mount", parseMount),
		constraints: newStrings(), preferences: newList("pref", parsePreference), networks: newList("network", parseNetwork),
		secrets: newList("secret", parseReference("secret")), configs: newList("config", parseReference("config")),
		ports: &list[v1.PortConfig]{kind: "port", parse: parsePorts}, groups: newStrings(),
		dns: newList("list", parseAddress), dnsOption: newStrings(), search: newList("list", parseSearch),
		hosts: newList("list", parseHost), sysctls: newStrings(), ulimits: newList("ulimit", parseUlimit),
		generic: newList("list", parseGeneric), dependsOn: newList("dependency", parseDependency),
	}
	s := cmd.Flags()
	s.StringVar(&f.mode, "mode", "replicated", `Service mode ("replicated", "global", "replicated-job", "global-job", "cron")`)
	s.StringVar(&f.name, "name", "", "Service name")
	s.VarP(f.labels, "label", "l", "Service labels")
	s.Var(f.containerLabels, "container-label", "Container labels")
	s.VarP(f.env, "env", "e", "Set environment variables")
	s.Var(f.envFiles, "env-file", "Read in a file of environment variables")
	s.Var(f.mounts, "mount", "Attach a filesystem mount to the service")
	s.Var(f.constraints, "constraint", "Placement constraints")
	s.Var(f.preferences, "placement-pref", "Add a placement preference")
	s.Var(f.networks, "network", "Network attachments")
	s.Var(f.secrets, "secret", "Specify secrets to expose to the service")
	s.Var(f.configs, "config", "Specify configurations to expose to the service")
	s.VarP(f.ports, "publish", "p", "Publish a port as a node port")
	s.Var(f.groups, "group", "Set one or more supplementary user groups for the container")
	s.Var(f.dns, "dns", "Set custom DNS servers")
	s.Var(f.dnsOption, "dns-option", "Set DNS options")
	s.Var(f.search, "dns-search", "Set custom DNS search domains")
	s.Var(f.hosts, "host", "Set one or more custom host-to-IP mappings (host:ip)")
	s.Var(f.sysctls, "sysctl", "Sysctl options")
	s.Var(f.ulimits, "ulimit", "Ulimit options")
	s.Var(f.generic, "generic-resource", "User defined resources")
	s.Var(f.dependsOn, "depends-on", "Start once another service is there (SERVICE[=started|healthy|completed])")
	// --host means something else here, so that the daemon is picked by -H alone.
	s.StringVarP(&a.host, "daemon", "H", "", "Daemon `address` to speak to")
	s.Lookup("daemon").Hidden = true
	_ = cmd.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions(flagChoices["mode"], cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("secret", completeNames(a, v1.Secrets))
	_ = cmd.RegisterFlagCompletionFunc("config", completeNames(a, v1.Configs))
	_ = cmd.RegisterFlagCompletionFunc("depends-on", completeNames(a, v1.Services))
	_ = cmd.RegisterFlagCompletionFunc("network", completeNames(a, v1.Networks))
	return f
}

// service is what the flags ask for.
func (f *createFlags) service(a *app, args []string) (*v1.Service, error) {
	svc := &v1.Service{Spec: &v1.ServiceSpec{}}
	svc.Meta.Name = f.name
	if svc.Meta.Name == "" {
		svc.Meta.Name = randomName()
	}
	svc.Meta.Labels = toMap(f.labels.all)
	c := &svc.Spec.Task.Container
	c.Image, c.Args = args[0], args[1:]
	if len(c.Args) == 0 {
		c.Args = nil
	}
	if err := f.apply(svc); err != nil {
		return nil, err
	}
	if err := f.applyMode(svc.Spec); err != nil {
		return nil, err
	}
	env, err := a.environment(f.envFiles.all, f.env.all)
	if err != nil {
		return nil, err
	}
	c.Env = env
	f.applyLists(svc)
	return svc, nil
}

// applyMode sets the mode and what belongs to it.
func (f *createFlags) applyMode(s *v1.ServiceSpec) error {
	global := f.mode == "global" || f.mode == "global-job"
	cron := f.mode == "cron"
	job := f.mode == "replicated-job" || f.mode == "global-job" || cron
	switch {
	case !global && !job && f.mode != "replicated":
		return fmt.Errorf("unknown mode: %s, only replicated and global supported", f.mode)
	case (global || cron) && f.replicas.set:
		return errors.New("replicas can only be used with replicated or replicated-job mode")
	case global && f.maxReplicas > 0:
		return errors.New("replicas-max-per-node can only be used with replicated or replicated-job mode")
	case f.mode != "replicated-job" && f.concurrent.set:
		return errors.New("max-concurrent can only be used with replicated-job mode")
	case cron && f.cron.schedule == "":
		return errors.New("cron mode needs --schedule")
	case job && (s.Update != nil || s.Rollback != nil):
		return errors.New("update and rollback configuration is not supported for jobs")
	}
	s.Mode = v1.ServiceMode(f.mode)
	if f.replicas.set {
		s.Replicas = &f.replicas.v
	}
	if f.concurrent.set {
		s.MaxConcurrent = &f.concurrent.v
	}
	return f.applyCron(s)
}

func (f *createFlags) applyLists(svc *v1.Service) {
	t := &svc.Spec.Task
	c := &t.Container
	svc.Spec.DependsOn = f.dependsOn.all
	c.Labels = toMap(f.containerLabels.all)
	c.Mounts = f.mounts.all
	c.Secrets, c.Configs = f.secrets.all, f.configs.all
	c.Groups, c.Hosts = f.groups.all, f.hosts.all
	c.Sysctls = toMap(f.sysctls.all)
	c.CapabilityAdd, c.CapabilityDrop = effectiveCapabilities(f.capAdd.all, f.capDrop.all)
	c.Ulimits = ulimitList(nil, f.ulimits.all, nil)
	if len(f.dns.all)+len(f.dnsOption.all)+len(f.search.all) > 0 {
		*dnsConfig(c) = v1.DNSConfig{Nameservers: f.dns.all, Search: f.search.all, Options: f.dnsOption.all}
	}
	t.Networks = f.networks.all
	if len(f.constraints.all) > 0 {
		placement(t).Constraints = f.constraints.all
	}
	if len(f.preferences.all) > 0 {
		placement(t).Preferences = f.preferences.all
	}
	if len(f.generic.all) > 0 {
		reservations(t).Generic = f.generic.all
	}
	if len(f.ports.all) > 0 {
		endpoint(svc.Spec).Ports = f.ports.all
	}
}

// ulimitList is old without the names removed, with those added, by name; the last of equal names counts.
func ulimitList(old, add []v1.Ulimit, remove []string) []v1.Ulimit {
	all := slices.DeleteFunc(slices.Clone(old), func(u v1.Ulimit) bool { return slices.Contains(remove, u.Name) })
	for _, u := range add {
		all = append(slices.DeleteFunc(all, func(o v1.Ulimit) bool { return o.Name == u.Name }), u)
	}
	slices.SortFunc(all, func(x, y v1.Ulimit) int { return strings.Compare(x.Name, y.Name) })
	if len(all) == 0 {
		return nil
	}
	return all
}

func (a *app) createService(ctx context.Context, svc *v1.Service, f *serviceFlags) error {
	c, err := a.daemon()
	if err != nil {
		return err
	}
	if f.withAuth { // first, so that the image can be looked up with it
		if err := a.sendLogins(ctx, c, []string{svc.Spec.Task.Container.Image}); err != nil {
			return err
		}
	}
	if list := svc.Spec.Task.Networks; len(list) > 0 {
		book, err := newNetworkBook(ctx, c)
		if err != nil {
			return err
		}
		svc.Spec.Task.Networks = book.whole(list)
	}
	started := a.Now()
	created, warnings, err := client.Create(ctx, c, v1.Services, svc, client.ResolveImage(f.resolveImage()))
	if err != nil {
		return apiError(err, v1.KindService, svc.Meta.Name)
	}
	a.warn(warnings)
	fmt.Fprintln(a.Out, created.Meta.ID)
	return a.converge(ctx, c, &f.wait, started, created)
}

var (
	nameAdjectives = strings.Fields("amber bold brisk calm clever cosmic crisp eager fair fleet gentle glad grand happy keen kind lively lucid mellow merry nimble noble placid prime proud quick quiet rapid ready serene sharp silver smooth solid sound spry steady sunny swift tidy vivid warm wise witty")
	nameNouns      = strings.Fields("badger bear bee bison crane deer dove eagle elk falcon finch fox gull hare hawk heron horse ibex jay kite lark lion lynx marten mole moose otter owl panda pike puma quail raven robin seal shrew sparrow stork swan swift tern tiger toad vole whale wolf wren yak")
)

// randomName is a name for a service that was given none, as Docker makes them up.
func randomName() string {
	var b [8]byte
	rand.Read(b[:])
	n := binary.LittleEndian.Uint64(b[:])
	adjectives, nouns := uint64(len(nameAdjectives)), uint64(len(nameNouns))
	return fmt.Sprintf("%s_%s%02d", nameAdjectives[n%adjectives], nameNouns[n/adjectives%nouns], n/adjectives/nouns%100)
}
