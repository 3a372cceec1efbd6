package v1

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// decided are the fields of what a service runs, each either honoured or refused by Unsupported for now, at least in some
// of its values. A field that is in neither list would be accepted and silently ignored: whoever adds one decides here.
var decided = map[reflect.Type]struct{ honoured, refused string }{
	reflect.TypeFor[ServiceSpec]():   {"mode replicas maxConcurrent schedule task update rollback rollbackTo endpoint dependsOn", ""},
	reflect.TypeFor[Schedule]():      {"cron timeZone concurrency startingDeadline keepSuccessful keepFailed suspend runNow", ""},
	reflect.TypeFor[Dependency]():    {"service condition optional", ""},
	reflect.TypeFor[EndpointSpec]():  {"mode ports", ""},
	reflect.TypeFor[TaskSpec]():      {"container resources restartPolicy placement networks logDriver forceUpdate", "logDriver"},
	reflect.TypeFor[Resources]():     {"limits reservations memorySwap memorySwappiness", ""},
	reflect.TypeFor[Reservations]():  {"cpus memory generic", ""},
	reflect.TypeFor[Placement]():     {"constraints preferences maxReplicas platforms rebalance", ""},
	reflect.TypeFor[RestartPolicy](): {"condition delay maxAttempts window", ""},
	reflect.TypeFor[UpdateConfig]():  {"parallelism delay failureAction monitor maxFailureRatio order progressDeadline", ""},
	reflect.TypeFor[Privileges]():    {"noNewPrivileges seccomp", "appArmor seLinux"},
	reflect.TypeFor[ContainerSpec](): {"image labels command args hostname env dir user groups privileges init stopSignal " +
		"stopGracePeriod stopDrainDelay tty readOnly hosts dns sysctls capabilityAdd capabilityDrop ulimits oomScoreAdj healthcheck secrets configs mounts openStdin",
		""},
	reflect.TypeFor[Mount]():         {"type source target readOnly bind volume tmpfs", ""},
	reflect.TypeFor[BindOptions]():   {"propagation recursive", ""},
	reflect.TypeFor[VolumeOptions](): {"noCopy subpath labels driver", "driver"},
	reflect.TypeFor[TmpfsOptions]():  {"size mode", ""},
	reflect.TypeFor[FileReference](): {"source id target uid gid mode onChange", ""},

	reflect.TypeFor[NetworkAttachment](): {"target aliases", "driverOpts"},
	reflect.TypeFor[NetworkSpec]():       {"driver options attachable internal ipv6 subnets", "ingress"},
	reflect.TypeFor[SubnetSpec]():        {"subnet gateway ipRange", ""},
}

func TestEveryFieldIsDecided(t *testing.T) {
	for typ, lists := range decided {
		known := append(strings.Fields(lists.honoured), strings.Fields(lists.refused)...)
		for _, name := range fieldsOf(typ).names {
			if !slices.Contains(known, name) {
				t.Errorf("%s.%s: is it honoured, or refused by Unsupported?", typ.Name(), name)
			}
		}
		for _, name := range known {
			if !slices.Contains(fieldsOf(typ).names, name) {
				t.Errorf("%s has no field %s", typ.Name(), name)
			}
		}
	}
}
