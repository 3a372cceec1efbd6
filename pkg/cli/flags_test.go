package cli_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/swarmd/swarmd/pkg/cli"
)

// run executes swarmctl in this process.
func run(t *testing.T, host string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	o := cli.Options{In: strings.NewReader(""), Out: &out, Err: &errs,
		Getenv:    func(string) string { return host },
		LookupEnv: func(string) (string, bool) { return "", false }}
	code = cli.Run(t.Context(), o, args)
	return code, out.String(), errs.String()
}

// TestFlagsAsDocker holds every flag value to what the docker command says of it.
func TestFlagsAsDocker(t *testing.T) {
	data, err := os.ReadFile("testdata/flags/docker.tsv")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) != 3 {
			t.Fatalf("testdata/flags/docker.tsv: %q has %d fields, want 3", line, len(fields))
		}
		n++
		code, _, stderr := run(t, "unix:///nowhere/s", "service", "create", "--"+fields[0], fields[1], "nginx")
		got, _, _ := strings.Cut(stderr, "\n")
		got = strings.TrimPrefix(got, "Error: ")
		if strings.HasPrefix(got, "Cannot connect") {
			got = "OK"
		}
		if got != fields[2] {
			t.Errorf("--%s %q:\n got %s\nwant %s", fields[0], fields[1], got, fields[2])
		}
		if code == 0 {
			t.Errorf("--%s %q: status 0 without a daemon", fields[0], fields[1])
		}
	}
	if n < 100 {
		t.Errorf("%d flag values, want more than 100", n)
	}
}

// TestFlagsApart lists where swarmctl answers otherwise than docker on purpose.
func TestFlagsApart(t *testing.T) {
	for _, c := range []struct{ flag, value, want string }{
		{"isolation", "process", "Error: --isolation is only for Windows"},
		{"credential-spec", "file://x", "Error: --credential-spec is only for Windows"},
		{"mount", "type=npipe,target=/a", `invalid argument "type=npipe,target=/a" for "--mount" flag: mount type npipe is only for Windows`},
		{"mount", "type=foo,target=/a", `invalid argument "type=foo,target=/a" for "--mount" flag: invalid mount type 'foo': want volume, bind or tmpfs`},
		{"mount", "type=bind,source=/a,target=/b,consistency=cached", `invalid argument "type=bind,source=/a,target=/b,consistency=cached" for "--mount" flag: consistency: not supported yet`},
		{"publish", "127.0.0.1:80:80", "Error: Cannot connect to the swarmd daemon at unix:///nowhere/s. Is the swarmd daemon running?"}, // Docker refuses it
		{"publish", "[fe80::1]:80:80", `invalid argument "[fe80::1]:80:80" for "-p, --publish" flag: "fe80::1" is of link-local addresses, at which published ports do not answer: want another address of the node`},
		{"publish", "target=80,published=80,host_ip=10.0.0.1/8", `invalid argument "target=80,published=80,host_ip=10.0.0.1/8" for "-p, --publish" flag: "10.0.0.1/8" has bits beyond its mask: want 10.0.0.0/8`},
		{"network", "name=a,ip=1.2.3.4", `invalid argument "name=a,ip=1.2.3.4" for "--network" flag: ip: a service's tasks cannot share one address: not supported`},
		{"network", "name=a,mac-address=x", `invalid argument "name=a,mac-address=x" for "--network" flag: mac-address: not supported for services`},
		{"log-opt", "a=b", "Error: --log-opt needs --log-driver"},
		{"generic-resource", "gpu=a", "invalid argument \"gpu=a\" for \"--generic-resource\" flag: invalid generic-resource request `gpu=a`, Named Generic Resources is not supported for service create or update"},
		{"limit-cpu", "1e999999999", `invalid argument "1e999999999" for "--limit-cpu" flag: failed to parse 1e999999999 as a rational number`},
		{"limit-cpu", "99999999999999999999", `invalid argument "99999999999999999999" for "--limit-cpu" flag: 99999999999999999999 is out of range`},
		{"update-max-failure-ratio", "NaN", `invalid argument "NaN" for "--update-max-failure-ratio" flag: "NaN" is not a ratio: want a number between 0 and 1`},
		{"dns", "fe80::1%eth0", `invalid argument "fe80::1%eth0" for "--dns" flag: IP address is not correctly formatted: fe80::1%eth0`},
	} {
		_, _, stderr := run(t, "unix:///nowhere/s", "service", "create", "--"+c.flag, c.value, "nginx")
		if got, _, _ := strings.Cut(stderr, "\n"); got != c.want {
			t.Errorf("--%s %q:\n got %s\nwant %s", c.flag, c.value, got, c.want)
		}
	}
}

// TestAllDockerFlags holds the commands to the flags that docker has.
func TestAllDockerFlags(t *testing.T) {
	root := cli.New(cli.Options{})
	for line, flags := range dockerFlags {
		cmd, _, err := root.Find(strings.Fields(line))
		if err != nil || cmd.CommandPath() != "swarmctl "+line {
			t.Errorf("%s: not found (%v)", line, err)
			continue
		}
		for name := range strings.FieldsSeq(flags) {
			if cmd.Flags().Lookup(name) == nil {
				t.Errorf("%s: no flag --%s", line, name)
			}
		}
		if cmd.Short == "" {
			t.Errorf("%s: no help", line)
		}
	}
}

const cronFlags = "concurrency keep-failed keep-successful schedule starting-deadline suspend time-zone "

const updateFlags = "update-delay update-failure-action update-max-failure-ratio update-monitor update-order update-parallelism update-progress-deadline " +
	"rollback-delay rollback-failure-action rollback-max-failure-ratio rollback-monitor rollback-order rollback-parallelism rollback-progress-deadline "

const commonFlags = updateFlags + cronFlags + "cap-add cap-drop credential-spec detach endpoint-mode entrypoint health-cmd health-http health-interval " +
	"health-retries health-start-interval health-start-period health-tcp health-timeout hostname init isolation limit-cpu limit-memory limit-pids " +
	"log-driver log-opt max-concurrent memory-swap memory-swappiness no-healthcheck no-resolve-image oom-score-adj quiet read-only rebalance " +
	"replicas replicas-max-per-node reserve-cpu reserve-memory restart-condition restart-delay restart-max-attempts restart-window " +
	"stop-grace-period stop-signal tty user with-registry-auth workdir "

var dockerFlags = map[string]string{
	"service create": commonFlags + "config constraint container-label depends-on dns dns-option dns-search env env-file generic-resource group " +
		"host label mode mount name network placement-pref publish secret sysctl ulimit",
	"service update": commonFlags + "args depends-on-add depends-on-rm config-add config-rm constraint-add constraint-rm container-label-add container-label-rm " +
		"dns-add dns-rm dns-option-add dns-option-rm dns-search-add dns-search-rm env-add env-rm force generic-resource-add " +
		"generic-resource-rm group-add group-rm host-add host-rm image label-add label-rm mount-add mount-rm network-add network-rm " +
		"placement-pref-add placement-pref-rm publish-add publish-rm rollback secret-add secret-rm sysctl-add sysctl-rm ulimit-add ulimit-rm",
	"service ls":       "filter format quiet",
	"service inspect":  "format pretty",
	"service ps":       "filter format no-resolve no-trunc quiet",
	"service logs":     "details follow no-resolve no-task-ids no-trunc raw since tail timestamps",
	"service scale":    "detach",
	"service rollback": "detach quiet to",
	"service history":  "format quiet",
	"service rm":       "",
	"network create": "attachable aux-address config-from config-only driver gateway ingress internal ip-range ipam-driver ipam-opt " +
		"ipv4 ipv6 label opt scope subnet",
	"network inspect": "format verbose",
	"network ls":      "filter format no-trunc quiet",
	"network prune":   "filter force",
	"network rm":      "force",
	"node ls":         "filter format quiet",
	"node inspect":    "format pretty",
	"node ps":         "filter format no-resolve no-trunc quiet",
	"node update":     "availability label-add label-rm role",
	"secret create":   "driver label template-driver",
	"secret ls":       "filter format quiet",
	"secret inspect":  "format pretty",
	"secret rm":       "",
	"config create":   "label template-driver",
	"config ls":       "filter format quiet",
	"config inspect":  "format pretty",
	"config rm":       "",
	"volume create":   "driver label opt",
	"volume ls":       "filter format quiet",
	"volume inspect":  "format",
	"volume rm":       "force",
	"swarm init": "advertise-addr autolock availability cert-expiry data-path-addr data-path-port default-addr-pool " +
		"default-addr-pool-mask-length dispatcher-heartbeat external-ca force-new-cluster listen-addr max-snapshots snapshot-interval task-history-limit",
	"swarm join":       "advertise-addr availability data-path-addr listen-addr token",
	"swarm join-token": "quiet rotate",
	"swarm leave":      "force",
	"swarm update":     "autolock cert-expiry dispatcher-heartbeat external-ca max-snapshots snapshot-interval task-history-limit",
	"swarm ca":         "ca-cert ca-key cert-expiry detach external-ca quiet rotate",
	"swarm unlock":     "",
	"swarm unlock-key": "quiet rotate",
	"node promote":     "",
	"node demote":      "",
	"node rm":          "force",
	"info":             "format",
	"version":          "format",
	"image load":       "input quiet",
	"image ls":         "format quiet no-trunc",
}
