package cli

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// edited is a service after the flags of service update.
func edited(t *testing.T, before string, args ...string) (string, error) {
	t.Helper()
	svc := &v1.Service{Spec: &v1.ServiceSpec{Mode: v1.ModeReplicated}}
	if err := yaml.Unmarshal([]byte(before), svc); err != nil {
		t.Fatal(err)
	}
	a := &app{Options: withDefaults(Options{})}
	cmd := &cobra.Command{}
	f := a.addEditFlags(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	if err := f.edit(svc); err != nil {
		return "", err
	}
	once, err := json.Marshal(svc)
	if err != nil {
		t.Fatal(err)
	}
	return string(once), nil
}

func TestEdit(t *testing.T) {
	flags := func(args ...string) []string { return args }
	for _, c := range []struct {
		name, before, after string
		args                []string
	}{
		{"nothing", "spec: {task: {container: {image: a, env: [A=1]}}}", "spec: {task: {container: {image: a, env: [A=1]}}}", nil},
		{"image and args", "spec: {task: {container: {image: a, args: [x]}}}", "spec: {task: {container: {image: b, args: ['y', 'z w']}}}",
			flags("--image", "b", "--args", "y 'z w'")},
		{"no args any more", "spec: {task: {container: {image: a, args: [x]}}}", "spec: {task: {container: {image: a}}}", flags("--args", "")},
		{"force", "spec: {task: {container: {image: a}, forceUpdate: 1}}", "spec: {task: {container: {image: a}, forceUpdate: 2}}", flags("--force")},
		{"environment keeps its order", "spec: {task: {container: {image: a, env: [A=1, B=2, C=3]}}}",
			"spec: {task: {container: {image: a, env: [A=1, C=4, D=5]}}}", flags("--env-rm", "B", "--env-add", "C=4", "--env-add", "D=5")},
		{"labels", "{metadata: {labels: {a: '1', b: '2'}}, spec: {task: {container: {image: a, labels: {x: y}}}}}",
			"{metadata: {labels: {b: '3', c: ''}}, spec: {task: {container: {image: a}}}}",
			flags("--label-rm", "a", "--label-add", "b=3", "--label-add", "c", "--container-label-rm", "x")},
		{"mounts by target", "spec: {task: {container: {image: a, mounts: [{type: volume, source: b, target: /b}, {type: volume, source: c, target: /c}]}}}",
			"spec: {task: {container: {image: a, mounts: [{type: volume, source: a, target: /a}, {type: volume, source: x, target: /b}]}}}",
			flags("--mount-rm", "/c", "--mount-add", "source=x,target=/b", "--mount-add", "source=a,target=/a")},
		{"ports", "spec: {endpoint: {ports: [{target: 80, published: 8080, protocol: tcp, mode: ingress}, {target: 80, protocol: udp}]}, task: {container: {image: a}}}",
			"spec: {endpoint: {ports: [{target: 80, protocol: udp}, {target: 81, published: 81, protocol: tcp, mode: ingress}]}, task: {container: {image: a}}}",
			flags("--publish-rm", "80", "--publish-add", "81:81")},
		{"ports that stay keep their order", "spec: {endpoint: {ports: [{target: 82, published: 82}, {target: 81, published: 81}]}, task: {container: {image: a}}}",
			"spec: {endpoint: {ports: [{target: 82, published: 82}, {target: 81, published: 81}]}, task: {container: {image: a}}}", flags("--publish-rm", "80", "--publish-add", "81:81")},
		{"mounts that stay keep their order", "spec: {task: {container: {image: a, mounts: [{type: volume, source: c, target: /c}, {type: volume, source: b, target: /b}]}}}",
			"spec: {task: {container: {image: a, mounts: [{type: volume, source: c, target: /c}, {type: volume, source: b, target: /b}]}}}", flags("--mount-rm", "/x")},
		{"no port where there is none", "spec: {task: {container: {image: a}}}", "spec: {task: {container: {image: a}}}", flags("--publish-rm", "80")},
		{"port that is there", "spec: {endpoint: {ports: [{target: 80, published: 80}]}, task: {container: {image: a}}}",
			"spec: {endpoint: {ports: [{target: 80, published: 80}]}, task: {container: {image: a}}}", flags("--publish-add", "80:80")},
		{"constraints", "spec: {task: {container: {image: a}, placement: {constraints: [b==1, a==1]}}}",
			"spec: {task: {container: {image: a}, placement: {constraints: [a==1, c==1]}}}", flags("--constraint-rm", "b==1", "--constraint-add", "c==1")},
		{"preferences", "spec: {task: {container: {image: a}, placement: {preferences: [{spread: x}, {spread: y}]}}}",
			"spec: {task: {container: {image: a}, placement: {preferences: [{spread: y}, {spread: z}]}}}",
			flags("--placement-pref-rm", "spread=x", "--placement-pref-add", "spread=z")},
		{"hosts", "spec: {task: {container: {image: a, hosts: ['1.1.1.1 a b', '2.2.2.2 a', '3.3.3.3 c']}}}",
			"spec: {task: {container: {image: a, hosts: ['1.1.1.1 b', '3.3.3.3 c', '4.4.4.4 d']}}}", flags("--host-rm", "a", "--host-add", "d:4.4.4.4")},
		{"hosts by address", "spec: {task: {container: {image: a, hosts: ['1.1.1.1 a', '2.2.2.2 a']}}}",
			"spec: {task: {container: {image: a, hosts: ['2.2.2.2 a']}}}", flags("--host-rm", "a:1.1.1.1")},
		{"dns", "spec: {task: {container: {image: a, dns: {nameservers: [2.2.2.2]}}}}",
			"spec: {task: {container: {image: a, dns: {nameservers: [1.1.1.1, 2.2.2.2], search: [x]}}}}", flags("--dns-add", "1.1.1.1", "--dns-add", "2.2.2.2", "--dns-search-add", "x")},
		{"ulimits and sysctls", "spec: {task: {container: {image: a, sysctls: {x: '1'}, ulimits: [{name: nofile, soft: 1, hard: 1}, {name: core, soft: 1, hard: 1}]}}}",
			"spec: {task: {container: {image: a, sysctls: {'y': '2'}, ulimits: [{name: nofile, soft: 2, hard: 3}]}}}",
			flags("--ulimit-add", "nofile=2:3", "--ulimit-rm", "core", "--sysctl-rm", "x", "--sysctl-add", "y=2")},
		{"a dropped capability comes back", "spec: {task: {container: {image: a, capabilityDrop: [CAP_KILL]}}}",
			"spec: {task: {container: {image: a}}}", flags("--cap-add", "kill")},
		{"and is added the second time", "spec: {task: {container: {image: a}}}",
			"spec: {task: {container: {image: a, capabilityAdd: [CAP_KILL]}}}", flags("--cap-add", "kill")},
		{"resources", "spec: {task: {container: {image: a}, resources: {limits: {cpus: 1, memory: 64m}}}}",
			"spec: {task: {container: {image: a}, resources: {limits: {cpus: 0.5, memory: 64m}, reservations: {memory: 32m}, memorySwap: -1}}}",
			flags("--limit-cpu", "0.5", "--reserve-memory", "32m", "--memory-swap", "-1")},
		{"update", "spec: {update: {parallelism: 2, delay: 1s}, task: {container: {image: a}}}",
			"spec: {update: {parallelism: 0, delay: 1s, order: start-first, monitor: 2s}, task: {container: {image: a}}}",
			flags("--update-parallelism", "0", "--update-order", "start-first", "--update-monitor", "2s")},
		{"health", "spec: {task: {container: {image: a, healthcheck: {test: [NONE]}}}}",
			"spec: {task: {container: {image: a, healthcheck: {test: [CMD-SHELL, curl x], interval: 5s, retries: 3}}}}",
			flags("--health-cmd", "curl x", "--health-interval", "5s", "--health-retries", "3")},
		{"health by a page", "spec: {task: {container: {image: a, healthcheck: {test: [CMD-SHELL, curl x], retries: 3}}}}",
			"spec: {task: {container: {image: a, healthcheck: {http: {port: 8443, path: '/healthz?full=1', scheme: https}, retries: 3}}}}",
			flags("--health-http", "https://:8443/healthz?full=1")},
		{"health by a port", "spec: {task: {container: {image: a, healthcheck: {http: {port: 80}}}}}",
			"spec: {task: {container: {image: a, healthcheck: {tcp: {port: 5432}}}}}", flags("--health-tcp", "5432")},
		{"health by a command again", "spec: {task: {container: {image: a, healthcheck: {tcp: {port: 5432}}}}}",
			"spec: {task: {container: {image: a, healthcheck: {test: [CMD-SHELL, x]}}}}", flags("--health-cmd", "x")},
		{"no health", "spec: {task: {container: {image: a, healthcheck: {test: [CMD, x]}}}}",
			"spec: {task: {container: {image: a, healthcheck: {test: [NONE]}}}}", flags("--no-healthcheck")},
		{"networks and secrets", "spec: {task: {container: {image: a, secrets: [{source: k}]}, networks: [{target: 'n'}]}}",
			"spec: {task: {container: {image: a, secrets: [{source: l}]}, networks: [{target: m}]}}",
			flags("--secret-rm", "k", "--secret-add", "l", "--network-rm", "n", "--network-add", "m")},
		{"a secret at several paths", "spec: {task: {container: {image: a, secrets: [{source: k, target: /run/secrets/k}, {source: l, target: /l}]}}}",
			"spec: {task: {container: {image: a, secrets: [{source: k, uid: '7'}, {source: l, target: /l}, {source: k, target: x}, {source: k, target: 'y'}]}}}",
			flags("--secret-add", "source=k,target=x", "--secret-add", "source=k,target=y", "--secret-add", "source=k,uid=7")},
		{"a config at several paths", "spec: {task: {container: {image: a, configs: [{source: k, target: /k}, {source: k, target: /x}, {source: l, target: /l}]}}}",
			"spec: {task: {container: {image: a, configs: [{source: l, target: /l}, {source: k, target: 'y'}, {source: l, target: z}]}}}",
			flags("--config-rm", "k", "--config-add", "source=k,target=y", "--config-add", "source=l,target=z")},
		{"another secret's path is for the server to refuse", "spec: {task: {container: {image: a, secrets: [{source: k, target: /run/secrets/k}]}}}",
			"spec: {task: {container: {image: a, secrets: [{source: k, target: /run/secrets/k}, {source: l, target: k}]}}}",
			flags("--secret-add", "source=l,target=k")},
		{"log driver replaces its options", "spec: {task: {container: {image: a}, logDriver: {name: local, options: {a: b}}}}",
			"spec: {task: {container: {image: a}, logDriver: {name: json-file, options: {max-size: 1m}}}}",
			flags("--log-driver", "json-file", "--log-opt", "max-size=1m")},
		{"to no", "spec: {task: {container: {image: a, tty: true, readOnly: true, init: true}}}",
			"spec: {task: {container: {image: a, init: false}}}", flags("--tty=false", "--read-only=false", "--init=false")},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := edited(t, c.before, c.args...)
			if err != nil {
				t.Fatal(err)
			}
			want, err := edited(t, c.after)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

func TestEditErrors(t *testing.T) {
	for _, c := range []struct {
		before string
		args   []string
		want   string
	}{
		{"spec: {mode: global}", []string{"--replicas", "2"}, "replicas can only be used with replicated mode"},
		{"spec: {}", []string{"--max-concurrent", "2"}, "max-concurrent can only be used with replicated-job mode"},
		{"spec: {}", []string{"--mount-add", "target=/a", "--mount-add", "target=/a"}, "duplicate mount target"},
		{"spec: {task: {networks: [{target: 'n'}]}}", []string{"--network-add", "n"}, "service is already attached to network n"},
		{"spec: {}", []string{"--network-rm", "n"}, "no such network: n"},
		{"spec: {}", []string{"--generic-resource-rm", "gpu"}, "could not find generic-resource `gpu` to remove it"},
		{"spec: {}", []string{"--no-healthcheck", "--health-cmd", "x"}, "--no-healthcheck conflicts with --health-* options"},
		{"spec: {}", []string{"--health-tcp", "80", "--health-cmd", "x"}, "--health-cmd, --health-http and --health-tcp exclude each other"},
		{"spec: {}", []string{"--isolation", "hyperv"}, "--isolation is only for Windows"},
	} {
		if _, err := edited(t, c.before, c.args...); errText(err) != c.want {
			t.Errorf("%v: %v, want %s", c.args, err, c.want)
		}
	}
}

// TestEditAgain: after a conflict the same flags work on what somebody else wrote, not on what they had made before.
func TestEditAgain(t *testing.T) {
	a := &app{Options: withDefaults(Options{})}
	cmd := &cobra.Command{}
	f := a.addEditFlags(cmd)
	if err := cmd.ParseFlags([]string{"--env-add", "A=2", "--limit-memory", "64m", "--publish-add", "80:80", "--force"}); err != nil {
		t.Fatal(err)
	}
	var got [2][]byte
	for i := range got {
		svc := &v1.Service{Spec: &v1.ServiceSpec{}}
		svc.Spec.Task.Container.Env = []string{"A=1", "B=1"}
		if err := f.edit(svc); err != nil {
			t.Fatal(err)
		}
		got[i], _ = json.Marshal(svc)
	}
	if !bytes.Equal(got[0], got[1]) {
		t.Errorf("first %s\nthen  %s", got[0], got[1])
	}
}
