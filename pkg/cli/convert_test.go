package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// golden holds what was printed to a file of testdata/golden; UPDATE=1 writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := "testdata/golden/" + name
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s: -want +got\n%s", name, d)
	}
}

// fullService has every field that there is.
const fullService = `
metadata:
  id: 3t2g05worri4lljn07er0n18e
  name: web
  labels: {tier: front}
  createdAt: 2026-01-02T03:04:05.678Z
  updatedAt: 2026-01-02T03:05:05Z
  revisions: {spec: 7, desired: 9}
spec:
  mode: replicated
  replicas: 3
  dependsOn: [{service: db, condition: healthy}, {service: cache, condition: started, optional: true}]
  update: {parallelism: 2, delay: 10s, failureAction: rollback, monitor: 5s, maxFailureRatio: 0.25, order: start-first, progressDeadline: 10m}
  rollback: {parallelism: 1, failureAction: pause, monitor: 5s, order: stop-first}
  endpoint:
    mode: vip
    ports: [{target: 80, published: 8080, protocol: tcp, mode: ingress}, {target: 53, protocol: udp, mode: host}]
  task:
    forceUpdate: 1
    resources:
      limits: {cpus: 0.5, memory: 64m, pids: 100}
      reservations: {cpus: 0.25, memory: 32m, generic: [{kind: gpu, count: 1}]}
      memorySwap: -1
      memorySwappiness: 10
    restartPolicy: {condition: any, delay: 5s, maxAttempts: 3, window: 1m}
    placement:
      constraints: [node.role==worker]
      preferences: [{spread: node.labels.zone}]
      maxReplicas: 2
      platforms: [{architecture: amd64, os: linux}]
    networks: [{target: front, aliases: [www]}]
    logDriver: {name: json-file, options: {max-size: 1m}}
    container:
      image: nginx:1.27@sha256:abababababababababababababababababababababababababababababababab
      labels: {a: b}
      command: [/entry]
      args: [-g, "daemon <off>"]
      hostname: web
      env: [A=1, B=2]
      dir: /srv
      user: www
      groups: [adm]
      init: true
      stopSignal: SIGQUIT
      stopGracePeriod: 20s
      readOnly: true
      privileges: {noNewPrivileges: true, seccomp: {mode: default}, appArmor: {mode: default}}
      mounts:
        - {type: bind, source: /a, target: /b, readOnly: true, bind: {propagation: rprivate}}
        - {type: volume, source: data, target: /c, volume: {noCopy: true, driver: {name: local}}}
        - {type: tmpfs, target: /d, tmpfs: {size: 1m, mode: 1023}}
      healthcheck: {test: [CMD-SHELL, curl x], interval: 5s, timeout: 1s, startPeriod: 2s, retries: 3}
      hosts: [1.2.3.4 a]
      dns: {nameservers: [1.1.1.1], search: [example.org], options: ["ndots:1"]}
      secrets: [{source: key, target: /run/secrets/key, uid: "1", gid: "2", mode: 256, onChange: signal}]
      configs: [{source: page, target: /page}]
      sysctls: {net.core.somaxconn: "1"}
      capabilityAdd: [CAP_NET_ADMIN]
      capabilityDrop: [CAP_KILL]
      ulimits: [{name: nofile, soft: 1, hard: 2}]
      oomScoreAdj: 5
desired:
  ports: [{target: 80, published: 8080, protocol: tcp, mode: ingress}, {target: 53, published: 30000, protocol: udp, mode: host}]
  vips: [{network: networkid, addresses: [10.0.1.2/24, "fd00::2/64"]}]
  update: {state: completed, revision: r, startedAt: 2026-01-02T03:05:05Z, completedAt: 2026-01-02T03:06:05Z, message: update completed}
`

// fullNetwork has every field that there is.
const fullNetwork = `
metadata: {id: networkid, name: front, labels: {tier: front}, createdAt: 2026-01-02T03:04:05Z, updatedAt: 2026-01-02T03:04:05Z, revisions: {spec: 3, desired: 4}}
spec:
  driver: overlay
  options: {encrypted: "", com.docker.network.driver.mtu: "1400"}
  attachable: true
  internal: true
  ipv6: true
  subnets: [{subnet: 10.0.1.0/24, ipRange: 10.0.1.128/25}]
desired: {vni: 4097, subnets: [{subnet: 10.0.1.0/24, gateway: 10.0.1.1, ipRange: 10.0.1.128/25}, {subnet: "fd00::/64", gateway: "fd00::1"}], problem: "no room"}
`

func object[T any](t *testing.T, text string) *T {
	t.Helper()
	v := new(T)
	if err := yaml.UnmarshalStrict([]byte(text), v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestConvertService(t *testing.T) {
	svc := object[v1.Service](t, fullService)
	previous := &v1.ServiceRevision{Spec: &v1.ServiceRevisionSpec{Task: v1.TaskSpec{Container: v1.ContainerSpec{Image: "nginx:1.26"}}}}
	n := names{ids: map[v1.Kind]map[string]string{v1.KindSecret: {"key": "secretid"}, v1.KindConfig: {"page": "configid"}},
		networks: networkBook{object[v1.Network](t, fullNetwork)}}
	var out bytes.Buffer
	if err := writeInspected(&out, "", []any{convertService(svc, previous, n)}); err != nil {
		t.Fatal(err)
	}
	golden(t, "service.json", out.Bytes())

	a := &app{Options: withDefaults(Options{Out: &out, Now: func() time.Time { return time.Date(2026, 1, 2, 4, 6, 5, 0, time.UTC) }})}
	out.Reset()
	if err := a.writePretty(servicePretty, []string{"web"}, func(string) (any, error) {
		return convertService(svc, nil, names{networks: n.networks, people: true}), nil
	}); err != nil {
		t.Fatal(err)
	}
	golden(t, "service.pretty", out.Bytes())

	out.Reset()
	plain := object[v1.Service](t, "{metadata: {id: x, name: plain}, spec: {mode: global, task: {container: {image: hello}}}}")
	if err := a.writePretty(servicePretty, []string{"x"}, func(string) (any, error) { return convertService(plain, nil, names{}), nil }); err != nil {
		t.Fatal(err)
	}
	golden(t, "plain.pretty", out.Bytes())
}

// TestServiceTemplates: paths that scripts written for docker use.
func TestServiceTemplates(t *testing.T) {
	d := convertService(object[v1.Service](t, fullService), nil, names{})
	for format, want := range map[string]string{
		"{{.ID}}":                                                          "3t2g05worri4lljn07er0n18e",
		"{{.Version.Index}} {{.Spec.Name}}":                                "9 web",
		"{{.Spec.Mode.Replicated.Replicas}}":                               "3",
		"{{.UpdateStatus.State}}":                                          "completed",
		"{{json .Endpoint.Spec.Mode}}":                                     `"vip"`,
		"{{range .Endpoint.Ports}}{{.PublishedPort}} {{end}}":              "8080 30000 ",
		"{{index .Spec.Labels \"tier\"}}":                                  "front",
		"{{.Spec.TaskTemplate.ContainerSpec.Env | len}}":                   "2",
		"{{join .Spec.TaskTemplate.ContainerSpec.Env \",\" | upper}}":      "A=1,B=2",
		"{{.Spec.UpdateConfig.Delay}} {{.CreatedAt.Year}}":                 "10s 2026",
		"{{.Spec.TaskTemplate.RestartPolicy.MaxAttempts}}":                 "3",
		"{{title \"hello world\"}}{{truncate \"abc\" 2}}{{pad \"x\" 1 1}}": "Hello Worldab x ",
		"{{(index (split \"a,b\" \",\") 1)}}":                              "b",
	} {
		var out bytes.Buffer
		if err := writeInspected(&out, format, []any{d}); err != nil {
			t.Errorf("%s: %v", format, err)
		} else if got := strings.TrimSuffix(out.String(), "\n"); got != want {
			t.Errorf("%s: %q, want %q", format, got, want)
		}
	}
}

func TestConvertNodeAndTask(t *testing.T) {
	node := object[v1.Node](t, `
metadata: {id: nodeid, labels: {zone: east}, createdAt: 2026-01-02T03:04:05Z, updatedAt: 2026-01-02T03:04:05Z, revisions: {spec: 3, status: 8}}
spec: {role: manager, availability: active, index: 1}
status:
  state: ready
  addr: 192.168.1.2
  description: {hostname: manager1, platform: {architecture: x86_64, os: linux}, resources: {cpus: 4, memory: 8g}, engine: {version: 1.2.3, labels: {disk: ssd}}}
`)
	task := object[v1.Task](t, `
metadata: {id: taskid, createdAt: 2026-01-02T03:04:05Z, updatedAt: 2026-01-02T03:04:05Z, revisions: {desired: 4, status: 6}}
desired: {service: serviceid, serviceName: web, slot: 2, attempt: 1, revision: r, state: shutdown, placement: {node: nodeid},
  networks: [{network: networkid, addresses: [10.0.1.5/24]}, {network: gone, addresses: [10.0.2.5/24]}]}
status: {state: failed, at: 2026-01-02T03:04:06Z, message: started, err: "task: non-zero exit (1)", container: {id: c, pid: 7, exitCode: 1},
  ports: [{target: 80, published: 32768, protocol: tcp, mode: host}]}
`)
	d := (&roster{managers: 1}).convert(node)
	var out bytes.Buffer
	revision := &v1.ServiceRevision{Spec: &v1.ServiceRevisionSpec{Task: v1.TaskSpec{Container: v1.ContainerSpec{Image: "hello:1"}}}}
	if err := writeInspected(&out, "", []any{d, convertTask(task, revision, names{networks: networkBook{object[v1.Network](t, fullNetwork)}})}); err != nil {
		t.Fatal(err)
	}
	golden(t, "node-task.json", out.Bytes())

	node.Desired = &v1.NodeDesired{Down: time.Unix(1, 0)}
	if d := convertNode(node); d.Status.State != "down" || d.ManagerStatus.Reachability != "unreachable" {
		t.Errorf("a lost node: %+v %+v", d.Status, d.ManagerStatus)
	}
	row := newTaskRow(task, "hello:1", true, time.Date(2026, 1, 2, 3, 9, 6, 0, time.UTC))
	want := taskRow{ID: "taskid", Name: "web.2", Image: "hello:1", Node: "nodeid", DesiredState: "Shutdown",
		CurrentState: "Failed 5 minutes ago", Error: `"task: non-zero exit (1)"`, Ports: "*:32768->80/tcp"}
	if d := cmp.Diff(want, row); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	task.Status.Err = "task: non-zero exit (1): the disk is full"
	for trunc, want := range map[bool]string{true: `"task: non-zero exit (1): the …"`, false: `"task: non-zero exit (1): the disk is full"`} {
		if got := newTaskRow(task, "hello:1", trunc, time.Now()).Error; got != want {
			t.Errorf("truncated %t: %s, want %s", trunc, got, want)
		}
	}
}

// TestForceWarning: who makes a swarm of its own out of one that is well is told of the others.
func TestForceWarning(t *testing.T) {
	well := v1.SwarmInfo{ControlAvailable: true, Managers: 3}
	if got := forceWarning(well); !strings.Contains(got, "3 managers") || !strings.Contains(got, "(2)") {
		t.Errorf("a swarm that is well: %q", got)
	}
	for name, s := range map[string]v1.SwarmInfo{"no leader": {ControlAvailable: true, Managers: 3, Error: "The swarm does not have a leader."},
		"alone": {ControlAvailable: true, Managers: 1}, "a worker": {}} {
		if got := forceWarning(s); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestInfoSwarm holds the swarm's part of info to docker info's lines.
func TestInfoSwarm(t *testing.T) {
	keep := v1.RaftSettings{SnapshotInterval: 10000, KeepOldSnapshots: 2}
	info := &v1.SwarmInfo{NodeID: "nodeid", NodeAddr: "10.0.0.2", LocalNodeState: v1.LocalNodeActive, ControlAvailable: true, Managers: 3, Nodes: 5,
		RemoteManagers: []v1.Peer{{NodeID: "b", Addr: "10.0.0.2:2377"}, {NodeID: "a", Addr: "10.0.0.1:2377"}},
		Cluster: &v1.ClusterInfo{ID: "clusterid", TaskHistoryLimit: 5, GatewayPool: "100.64.0.0/10", DefaultAddrPool: []string{"10.0.0.0/8"}, SubnetSize: 24,
			DataPathPort: 4789, HeartbeatPeriod: v1.Duration(time.Second), NodeCertExpiry: v1.Duration(90 * 24 * time.Hour), AutoLock: true}}
	var out bytes.Buffer
	writeSwarm(&out, info, &v1.ClusterSpec{Raft: &keep, ExternalCAs: []v1.ExternalCA{{Protocol: "cfssl", URL: "https://ca"}}})
	out.WriteString("--- a worker\n")
	writeSwarm(&out, &v1.SwarmInfo{NodeID: "nodeid", NodeAddr: "10.0.0.3", LocalNodeState: v1.LocalNodeActive,
		RemoteManagers: []v1.Peer{{NodeID: "a", Addr: "10.0.0.1:2377"}}}, nil)
	out.WriteString("--- without a leader\n")
	info.Error = "rpc error: code = Unknown desc = The swarm does not have a leader."
	writeSwarm(&out, info, nil)
	out.WriteString("--- locked\n")
	writeSwarm(&out, &v1.SwarmInfo{LocalNodeState: v1.LocalNodeLocked}, nil)
	golden(t, "info-swarm", out.Bytes())
}
