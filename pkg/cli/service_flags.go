package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// serviceFlags are the flags that service create and service update have in common. A flag that was not given says nothing:
// on create the server's default holds, on update what the service has.
type serviceFlags struct {
	set *pflag.FlagSet

	wait waitFlags

	workdir, user, hostname, stopSignal string
	entrypoint                          *value[[]string]
	capAdd, capDrop                     *list[string]
	init, tty, interactive, readOnly    bool
	oomScoreAdj                         int64

	limitCPU, reserveCPU                *value[v1.CPUs]
	limitMemory, reserveMemory, swap    *value[v1.Bytes]
	limitPIDs, swappiness               int64
	stopGrace, stopDrain                *value[v1.Duration]
	replicas, concurrent, maxAttempts   *value[uint64]
	maxReplicas                         uint64
	restartCondition, rebalance         string
	restartDelay, restartWindow         *value[v1.Duration]
	update, rollback                    updateFlags
	endpointMode                        string
	logDriver                           string
	logOpts                             *list[string]
	healthCmd                           string
	healthHTTP                          *value[*v1.HTTPProbe]
	healthTCP                           *value[*v1.TCPProbe]
	healthInterval, healthTimeout       *value[v1.Duration]
	healthStartPeriod, healthStartEvery *value[v1.Duration]
	healthRetries                       int
	noHealthcheck                       bool
	withAuth                            bool
	cron                                cronFlags
}

// updateFlags are those of an update or of a rollback, by the prefix of their names.
type updateFlags struct {
	prefix          string
	parallelism     uint64
	delay, monitor  *value[v1.Duration]
	failureAction   string
	maxFailureRatio *value[float64]
	deadline        *value[v1.Duration]
	order           string
}

// The completions of flags whose values are a fixed few.
var flagChoices = map[string][]string{
	"mode":                    {"replicated", "global", "replicated-job", "global-job", "cron"},
	"concurrency":             {"allow", "forbid", "replace"},
	"endpoint-mode":           {"vip", "dnsrr"},
	"restart-condition":       {"none", "on-failure", "any"},
	"update-order":            {"start-first", "stop-first"},
	"rollback-order":          {"start-first", "stop-first"},
	"update-failure-action":   {"pause", "continue", "rollback"},
	"rollback-failure-action": {"pause", "continue"},
}

func addServiceFlags(cmd *cobra.Command, create bool) *serviceFlags {
	f := &serviceFlags{set: cmd.Flags()}
	s := f.set
	f.wait.add(cmd)
	f.addContainerFlags()
	f.addResourceFlags()
	f.addHealthFlags()
	f.addRestartFlags()
	f.addCronFlags()
	f.update.add(s, "update", create)
	f.rollback.add(s, "rollback", create)
	mode := ""
	if create {
		mode = "vip"
	}
	s.StringVar(&f.endpointMode, "endpoint-mode", mode, "Endpoint mode (vip or dnsrr)")
	s.StringVar(&f.logDriver, "log-driver", "", "Logging driver for service")
	f.logOpts = newList("list", parseLabel)
	s.Var(f.logOpts, "log-opt", "Logging driver options")
	// Known, and refused by name: see refused.
	s.Var(newStrings(), "credential-spec", "Credential spec for managed service account (Windows only)")
	s.String("isolation", "", "Service container isolation mode (Windows only)")
	s.BoolVar(&f.withAuth, "with-registry-auth", false, `Give the swarm this user's login to the image's registry, as "docker login" has kept it`)
	s.Bool("no-resolve-image", false, "Do not query the registry to resolve image digest and supported platforms")
	for name, choices := range flagChoices {
		if s.Lookup(name) != nil {
			_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp))
		}
	}
	return f
}

func (f *serviceFlags) addContainerFlags() {
	s := f.set
	f.entrypoint = newValue("command", parseWords)
	f.capAdd, f.capDrop = newStrings(), newStrings()
	f.stopGrace = newValue("duration", parseDuration)
	f.stopDrain = newValue("duration", parseDuration)
	s.StringVarP(&f.workdir, "workdir", "w", "", "Working directory inside the container")
	s.StringVarP(&f.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	s.StringVar(&f.hostname, "hostname", "", "Container hostname")
	s.Var(f.entrypoint, "entrypoint", "Overwrite the default ENTRYPOINT of the image")
	s.Var(f.capAdd, "cap-add", "Add Linux capabilities")
	s.Var(f.capDrop, "cap-drop", "Drop Linux capabilities")
	s.BoolVar(&f.init, "init", false, "Use an init inside each service container to forward signals and reap processes")
	s.BoolVarP(&f.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	s.BoolVarP(&f.interactive, "interactive", "i", false, "Keep STDIN open, for swarmctl attach")
	s.BoolVar(&f.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	s.StringVar(&f.stopSignal, "stop-signal", "", "Signal to stop the container")
	s.Var(f.stopGrace, "stop-grace-period", "Time to wait before force killing a container (ns|us|ms|s|m|h) (default 10s)")
	s.Var(f.stopDrain, "stop-drain-delay", "Time that a task which nobody sends to any more goes on before its stop signal (ns|us|ms|s|m|h) (default 300ms)")
	s.Int64Var(&f.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
}

func (f *serviceFlags) addResourceFlags() {
	s := f.set
	f.limitCPU, f.reserveCPU = newValue("decimal", parseCPUs), newValue("decimal", parseCPUs)
	f.limitMemory, f.reserveMemory = newValue("bytes", parseBytes), newValue("bytes", parseBytes)
	f.swap = newValue("bytes", parseSwap)
	s.Var(f.limitCPU, "limit-cpu", "Limit CPUs")
	s.Var(f.limitMemory, "limit-memory", "Limit Memory")
	s.Var(f.reserveCPU, "reserve-cpu", "Reserve CPUs")
	s.Var(f.reserveMemory, "reserve-memory", "Reserve Memory")
	s.Int64Var(&f.limitPIDs, "limit-pids", 0, "Limit maximum number of processes (default 0 = unlimited)")
	s.Var(f.swap, "memory-swap", "Swap Bytes (-1 for unlimited)")
	s.Int64Var(&f.swappiness, "memory-swappiness", -1, "Tune memory swappiness (0-100), -1 to reset to default")
}

func (f *serviceFlags) addHealthFlags() {
	s := f.set
	f.healthInterval, f.healthTimeout = newValue("duration", parsePositiveDuration), newValue("duration", parsePositiveDuration)
	f.healthStartPeriod, f.healthStartEvery = newValue("duration", parsePositiveDuration), newValue("duration", parsePositiveDuration)
	s.StringVar(&f.healthCmd, "health-cmd", "", "Command to run to check health")
	f.healthHTTP, f.healthTCP = newValue("url", parseHTTPProbe), newValue("port", parseTCPProbe)
	s.Var(f.healthHTTP, "health-http", "Page of the container to ask for health, such as http://:8080/healthz, without a program in the image")
	s.Var(f.healthTCP, "health-tcp", "Port of the container to connect to for health, without a program in the image")
	s.Var(f.healthInterval, "health-interval", "Time between running the check (ms|s|m|h)")
	s.Var(f.healthTimeout, "health-timeout", "Maximum time to allow one check to run (ms|s|m|h)")
	s.IntVar(&f.healthRetries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	s.Var(f.healthStartPeriod, "health-start-period", "Start period for the container to initialize before counting retries towards unstable (ms|s|m|h)")
	s.Var(f.healthStartEvery, "health-start-interval", "Time between running the check during the start period (ms|s|m|h)")
	s.BoolVar(&f.noHealthcheck, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}

func (f *serviceFlags) addRestartFlags() {
	s := f.set
	f.replicas, f.concurrent, f.maxAttempts = newValue("uint", parseUint), newValue("uint", parseUint), newValue("uint", parseUint)
	f.restartDelay, f.restartWindow = newValue("duration", parseDuration), newValue("duration", parseDuration)
	s.Var(f.replicas, "replicas", "Number of tasks")
	s.Var(f.concurrent, "max-concurrent", "Number of job tasks to run concurrently (default equal to --replicas)")
	s.Uint64Var(&f.maxReplicas, "replicas-max-per-node", 0, "Maximum number of tasks per node (default 0 = unlimited)")
	s.StringVar(&f.rebalance, "rebalance", "", `Whether tasks that run move to nodes that join or come back ("off", "on-join") (default "off")`)
	s.StringVar(&f.restartCondition, "restart-condition", "", `Restart when condition is met ("none", "on-failure", "any") (default "any")`)
	s.Var(f.restartDelay, "restart-delay", "Delay between restart attempts (ns|us|ms|s|m|h) (default 5s)")
	s.Var(f.maxAttempts, "restart-max-attempts", "Maximum number of restarts before giving up")
	s.Var(f.restartWindow, "restart-window", "Window used to evaluate the restart policy (ns|us|ms|s|m|h)")
}

func (u *updateFlags) add(s *pflag.FlagSet, prefix string, create bool) {
	u.prefix = prefix
	u.delay, u.monitor = newValue("duration", parseDuration), newValue("duration", parseDuration)
	u.maxFailureRatio = newValue("float", parseRatio)
	parallelism, actions, one := uint64(0), `"pause", "continue"`, "a "+prefix
	if create {
		parallelism = 1
	}
	if prefix == "update" {
		actions += `, "rollback"`
		one = "an " + prefix
	}
	s.Uint64Var(&u.parallelism, prefix+"-parallelism", parallelism, "Maximum number of tasks changed at once by "+one+" (0 is all at once)")
	s.Var(u.delay, prefix+"-delay", "Delay between tasks of "+one+" (ns|us|ms|s|m|h) (default 0s)")
	s.Var(u.monitor, prefix+"-monitor", "How long a task's failure counts against the "+prefix+" (ns|us|ms|s|m|h) (default 5s)")
	s.StringVar(&u.failureAction, prefix+"-failure-action", "", "Action on "+prefix+` failure (`+actions+`) (default "pause")`)
	s.Var(u.maxFailureRatio, prefix+"-max-failure-ratio", "Failure rate to tolerate during "+one+" (default 0)")
	u.deadline = newValue("duration", parseDuration)
	s.Var(u.deadline, prefix+"-progress-deadline", "How long "+one+" may go without progress before it has failed, 0s for ever (ns|us|ms|s|m|h) (default 10m)")
	s.StringVar(&u.order, prefix+"-order", "", prefix+` order ("start-first", "stop-first") (default "stop-first")`)
}
