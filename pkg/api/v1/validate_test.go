package v1

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// validateSpec is what is wrong with an object of the kind that has this spec, with the defaults filled in.
func validateSpec(t *testing.T, kind Kind, spec string) FieldErrors {
	t.Helper()
	m, err := DecodeManifest([]byte(fmt.Sprintf(`{"apiVersion":"swarm/v1","kind":%q,"metadata":{"name":"default"},"spec":%s}`, kind, spec)))
	if err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
	Default(m.Object)
	return Validate(m.Object)
}

// many is n entries with commas between.
func many(n int, entry func(i int) string) string {
	list := make([]string, n)
	for i := range list {
		list[i] = entry(i)
	}
	return strings.Join(list, ",")
}

func same(entry string) func(int) string { return func(int) string { return entry } }

// TestValidate decodes a spec, fills in the defaults, and compares all that is wrong with it; "" is nothing. The shape is what
// stands around the part that the case is about.
func TestValidate(t *testing.T) {
	const container, task, endpoint = `{"task":{"container":{"image":"a",%s}}}`, `{"task":{"container":{"image":"a"},%s}}`,
		`{"task":{"container":{"image":"a"}},"endpoint":{%s}}`
	const noSysctl = "is not a sysctl: want words of letters, digits, _ and - with single dots between, such as net.core.somaxconn"
	const service = `{"task":{"container":{"image":"a"}},%s}`
	for _, test := range []struct{ kind, shape, in, want string }{
		// Services.
		{"Service", "%s", `{}`, "spec.task.container.image: is missing: want an image reference such as nginx:1.27"},
		{"Service", service, `"mode":"swarm"`, `spec.mode: "swarm" is not allowed: want replicated, global, replicated-job, global-job or cron`},
		{"Service", service, `"replicas":0`, ""},
		{"Service", service, `"replicas":1000000`, ""},
		{"Service", service, `"replicas":1000001`, "spec.replicas: 1000001 is too many: want 0 to 1000000"},
		{"Service", service, `"mode":"global"`, ""},
		{"Service", service, `"mode":"global","replicas":2`, "spec.replicas: is for mode replicated or replicated-job, not for mode global"},
		{"Service", service, `"maxConcurrent":2`, "spec.maxConcurrent: is for mode replicated-job, not for mode replicated"},
		{"Service", service, `"mode":"replicated-job","replicas":5,"maxConcurrent":2`, ""},
		{"Service", service, `"mode":"global-job","update":{}`, "spec.update: is not for jobs: a job that changes begins anew"},
		{"Service", service, `"mode":"replicated-job","rollback":{}`, "spec.rollback: is not for jobs: a job that changes begins anew"},
		// Updates.
		{"Service", service, `"update":{"parallelism":0,"delay":"10s","failureAction":"rollback","maxFailureRatio":1,"order":"start-first"}`, ""},
		{"Service", service, `"update":{"parallelism":1000001}`, "spec.update.parallelism: 1000001 is too many: want 0 (all at once) to 1000000"},
		{"Service", service, `"update":{"delay":"-1s"}`, "spec.update.delay: -1s is out of range: want 0s to 8760h0m0s"},
		{"Service", service, `"update":{"monitor":"9000h"}`, "spec.update.monitor: 9000h0m0s is out of range: want 0s to 8760h0m0s"},
		{"Service", service, `"update":{"failureAction":"stop"}`, `spec.update.failureAction: "stop" is not allowed: want pause, continue or rollback`},
		{"Service", service, `"rollback":{"failureAction":"rollback"}`, `spec.rollback.failureAction: "rollback" is not allowed: want pause or continue`},
		{"Service", service, `"update":{"maxFailureRatio":1.01}`, "spec.update.maxFailureRatio: 1.01 is out of range: want 0 to 1"},
		{"Service", service, `"update":{"maxFailureRatio":-0.1}`, "spec.update.maxFailureRatio: -0.1 is out of range: want 0 to 1"},
		{"Service", service, `"update":{"order":"random"}`, `spec.update.order: "random" is not allowed: want stop-first or start-first`},
		{"Service", service, `"dependsOn":[{"service":"db","condition":"healthy"},{"service":"cache"}]`, ""},
		{"Service", service, `"dependsOn":[{"service":"db","condition":"up"},{"service":"db"},{}]`,
			"spec.dependsOn[0].condition: \"up\" is not allowed: want started, healthy or completed\nspec.dependsOn[1].service: \"db\" is given twice\n" +
				"spec.dependsOn[2].service: is missing: want 1 to 63 letters, digits, - and _, beginning and ending with a letter or digit"},
		// Schedules.
		{"Service", service, `"mode":"cron","schedule":{"cron":"30 3 * * MON"}`, ""},
		{"Service", service, `"mode":"cron"`, "spec.schedule: is missing: mode cron needs one, with a cron such as 30 3 * * *"},
		{"Service", service, `"schedule":{"cron":"@daily"}`, "spec.schedule: is for mode cron, not for mode replicated"},
		{"Service", service, `"mode":"cron","schedule":{"cron":"daily","concurrency":"some","startingDeadline":"0s","keepFailed":101}`,
			"spec.schedule.concurrency: \"some\" is not allowed: want allow, forbid or replace\n" +
				"spec.schedule.cron: \"daily\" is no schedule: want five fields (minute hour day month weekday), such as 30 3 * * *, or @hourly, @daily, @weekly, @monthly or @yearly\n" +
				"spec.schedule.keepFailed: 101 is too many: want 0 to 100\n" +
				"spec.schedule.startingDeadline: 0s lets no run begin: want at least a few seconds, or none to begin however late"},
		{"Service", service, `"mode":"cron","replicas":2,"update":{},"schedule":{"cron":"@daily"}`,
			"spec.replicas: is for mode replicated or replicated-job, not for mode cron\nspec.update: is not for jobs: a job that changes begins anew"},
		// Endpoint.
		{"Service", endpoint, `"mode":"lb"`, `spec.endpoint.mode: "lb" is not allowed: want vip or dnsrr`},
		{"Service", endpoint, `"ports":[{"target":80},{"target":80},{"target":81,"published":8080},{"target":82,"published":8080,"protocol":"udp"}]`, ""},
		{"Service", endpoint, `"ports":[{"published":8080}]`, "spec.endpoint.ports[0].target: is missing: want the port in the container, 1 to 65535"},
		{"Service", endpoint, `"ports":[{"target":1,"published":8080},{"target":2,"published":8080,"mode":"host"}]`,
			"spec.endpoint.ports[1].published: 8080/tcp is published by ports[0] already"},
		{"Service", endpoint, `"ports":[{"target":1,"published":80,"hostIP":"127.0.0.1"},{"target":1,"published":80,"hostIP":"10.0.0.0/8"},{"target":1,"published":80,"interface":"eth1"}]`, ""},
		{"Service", endpoint, `"ports":[{"target":1,"published":80,"hostIP":"0.0.0.0"},{"target":1,"hostIP":"192.0.2.1"}]`, ""},
		{"Service", endpoint, `"ports":[{"target":1,"published":80,"hostIP":"127.0.0.1"},{"target":1,"published":80,"protocol":"tcp","hostIP":"127.0.0.1"}]`,
			"spec.endpoint.ports[1].published: 80/tcp is published by ports[0] already"},
		{"Service", endpoint, `"ports":[{"target":1,"published":80,"hostIP":"127.0.0.1"},{"target":2,"published":80,"hostIP":"127.0.0.2"}]`,
			"spec.endpoint.ports[1].published: 80/tcp is published by ports[0] already"},
		{"Service", endpoint, `"ports":[{"target":1,"hostIP":"localhost"}]`,
			`spec.endpoint.ports[0].hostIP: "localhost" is no address: want one such as 192.0.2.1 or 2001:db8::1, or a range such as 10.0.0.0/8`},
		{"Service", endpoint, `"ports":[{"target":1,"hostIP":"::1"},{"target":1,"hostIP":"2001:db8::/32"},{"target":1,"hostIP":"::"}]`, ""},
		{"Service", endpoint, `"ports":[{"target":1,"hostIP":"::ffff:10.0.0.1"}]`, `spec.endpoint.ports[0].hostIP: "::ffff:10.0.0.1" is an IPv4 address written as one of IPv6: want 10.0.0.1`},
		{"Service", endpoint, `"ports":[{"target":1,"hostIP":"fe80::1"}]`, `spec.endpoint.ports[0].hostIP: "fe80::1" is of link-local addresses, at which published ports do not answer: want another address of the node`},
		{"Service", endpoint, `"ports":[{"target":1,"hostIP":"224.0.0.0/4"}]`, `spec.endpoint.ports[0].hostIP: "224.0.0.0/4" is no address that a node has: it is one of groups, or of all on a link`},
		{"Service", endpoint, `"ports":[{"target":1,"hostIP":"ff02::1"}]`, `spec.endpoint.ports[0].hostIP: "ff02::1" is no address that a node has: it is one of groups, or of all on a link`},
		{"Service", endpoint, `"ports":[{"target":1,"hostIP":"169.254.77.53/32"}]`, `spec.endpoint.ports[0].hostIP: 169.254.77.53/32 is where tasks ask for names, and no port answers there: want another address of the node`},
		{"Service", endpoint, `"ports":[{"target":1,"hostIP":"255.255.255.255"}]`, `spec.endpoint.ports[0].hostIP: "255.255.255.255" is no address that a node has: it is one of groups, or of all on a link`},
		{"Service", endpoint, `"ports":[{"target":1,"hostIP":"fe80::1%eth0"}]`, `spec.endpoint.ports[0].hostIP: "fe80::1%eth0" is of link-local addresses, at which published ports do not answer: want another address of the node`},
		{"Service", endpoint, `"ports":[{"target":1,"hostIP":"2001:db8::1/32"}]`, `spec.endpoint.ports[0].hostIP: "2001:db8::1/32" has bits beyond its mask: want 2001:db8::/32`},
		{"Service", endpoint, `"ports":[{"target":1,"hostIP":"10.0.0.1/8"}]`, `spec.endpoint.ports[0].hostIP: "10.0.0.1/8" has bits beyond its mask: want 10.0.0.0/8`},
		{"Service", endpoint, `"ports":[{"target":1,"interface":"eth0:1"}]`,
			`spec.endpoint.ports[0].interface: "eth0:1" is no name of a network interface: want 1 to 15 characters without slash, colon or space`},
		{"Service", endpoint, `"ports":[{"target":1,"interface":"gw0"}]`, "spec.endpoint.ports[0].interface: gw0 is swarmd's own: want another interface of the nodes"},
		{"Service", endpoint, `"ports":[{"target":1,"hostIP":"127.0.0.1","interface":"lo"}]`,
			"spec.endpoint.ports[0].interface: cannot be given with hostIP: publish the port twice, once with each"},
		{"Service", endpoint, `"ports":[{"target":1,"protocol":"icmp"}]`, `spec.endpoint.ports[0].protocol: "icmp" is not allowed: want tcp, udp or sctp`},
		{"Service", endpoint, `"ports":[{"target":1,"mode":"node"}]`, `spec.endpoint.ports[0].mode: "node" is not allowed: want ingress or host`},
		{"Service", endpoint, `"mode":"dnsrr","ports":[{"target":1,"mode":"host"}]`, ""},
		{"Service", endpoint, `"mode":"dnsrr","ports":[{"target":1}]`,
			"spec.endpoint.ports[0].mode: ingress needs endpoint mode vip: want host, or spec.endpoint.mode vip"},
		{"Service", endpoint, `"ports":[` + many(1001, same(`{"target":1}`)) + `]`, "spec.endpoint.ports: has 1001 entries, at most 1000 are allowed"},
		// Resources.
		{"Service", task, `"resources":{"limits":{"cpus":0.001,"memory":"4m","pids":1},"reservations":{"cpus":2,"memory":"1g"}}`, ""},
		{"Service", task, `"resources":{"limits":{"cpus":0.0009}}`, "spec.task.resources.limits.cpus: 0.0009 is out of range: want at least 0.001"},
		{"Service", task, `"resources":{"reservations":{"cpus":-1}}`, "spec.task.resources.reservations.cpus: -1 is out of range: want at least 0.001"},
		{"Service", task, `"resources":{"limits":{"memory":4194303}}`, "spec.task.resources.limits.memory: 4194303 bytes is out of range: want at least 4MiB"},
		{"Service", task, `"resources":{"reservations":{"memory":-5}}`, "spec.task.resources.reservations.memory: -5 bytes is out of range: want at least 4MiB"},
		{"Service", task, `"resources":{"limits":{"pids":-1}}`, "spec.task.resources.limits.pids: -1 is out of range: want 0 (no limit) to 2147483647"},
		{"Service", task, `"resources":{"reservations":{"generic":[{"kind":"gpu","count":1},{"kind":"ssd","count":2}]}}`, ""},
		{"Service", task, `"resources":{"reservations":{"generic":[{"kind":"gpu","count":1},{"kind":"gpu","count":1}]}}`,
			`spec.task.resources.reservations.generic[1].kind: "gpu" is given twice`},
		{"Service", task, `"resources":{"reservations":{"generic":[{"kind":"gpu","value":"u1","count":1}]}}`,
			`spec.task.resources.reservations.generic[0].value: a service reserves a number of "gpu", not named ones: want count alone`},
		{"Service", task, `"resources":{"reservations":{"generic":[{}]}}`,
			"spec.task.resources.reservations.generic[0].count: 0 is out of range: want at least 1\n" +
				"spec.task.resources.reservations.generic[0].kind: is missing: want the kind of resource, such as gpu"},
		{"Service", task, `"resources":{"limits":{"memory":"8m"},"memorySwap":-1,"memorySwappiness":100}`, ""},
		{"Service", task, `"resources":{"memorySwap":"1g"}`, "spec.task.resources.memorySwap: needs a limit of memory: set spec.task.resources.limits.memory too"},
		{"Service", task, `"resources":{"limits":{"memory":"8m"},"memorySwap":-2}`, "spec.task.resources.memorySwap: -2 is out of range: want a size, or -1 for no limit"},
		{"Service", task, `"resources":{"limits":{"memory":"8m"},"memorySwap":"7m"}`,
			"spec.task.resources.memorySwap: is memory and swap together: want at least the limit of memory, 8388608"},
		{"Service", task, `"resources":{"memorySwappiness":101}`, "spec.task.resources.memorySwappiness: 101 is out of range: want 0 to 100"},
		// Restart policy.
		{"Service", task, `"restartPolicy":{"condition":"on-failure","delay":"0s","maxAttempts":1000,"window":"1h"}`, ""},
		{"Service", task, `"restartPolicy":{"condition":"always"}`, `spec.task.restartPolicy.condition: "always" is not allowed: want any, on-failure or none`},
		{"Service", task, `"restartPolicy":{"delay":"-5s"}`, "spec.task.restartPolicy.delay: -5s is out of range: want 0s to 8760h0m0s"},
		{"Service", task, `"restartPolicy":{"maxAttempts":1001}`, "spec.task.restartPolicy.maxAttempts: 1001 is too many: want 0 (no bound) to 1000"},
		{"Service", task, `"restartPolicy":{"window":-1}`, "spec.task.restartPolicy.window: -1ns is out of range: want 0s to 8760h0m0s"},
		// Placement.
		{"Service", task, `"placement":{"constraints":["node.role==worker","node.color!=blue"],"preferences":[{"spread":"node.labels.zone"}],"maxReplicas":2}`, ""},
		{"Service", task, `"placement":{"constraints":["node.role==worker","zone"]}`,
			`spec.task.placement.constraints[1]: "zone" is not a constraint: want key==value or key!=value, such as node.role==worker`},
		{"Service", task, `"placement":{"preferences":[{"spread":"node.hostname"}]}`,
			`spec.task.placement.preferences[0].spread: "node.hostname" is not a label to spread over: want node.labels.NAME or engine.labels.NAME`},
		{"Service", task, `"placement":{"preferences":[{"spread":"engine.labels."}]}`,
			`spec.task.placement.preferences[0].spread: "engine.labels." is not a label to spread over: want node.labels.NAME or engine.labels.NAME`},
		{"Service", task, `"placement":{"constraints":[` + many(101, same(`"node.role==worker"`)) + `]}`, "spec.task.placement.constraints: has 101 entries, at most 100 are allowed"},
		{"Service", task, `"placement":{"maxReplicas":1000001}`, "spec.task.placement.maxReplicas: 1000001 is too many: want 0 (no bound) to 1000000"},
		{"Service", `{"mode":"global","task":{"container":{"image":"a"},%s}}`, `"placement":{"maxReplicas":1}`,
			"spec.task.placement.maxReplicas: is for mode replicated and replicated-job; mode global has one task on each node"},
		{"Service", task, `"placement":{"rebalance":"on-join"}`, ""},
		{"Service", task, `"placement":{"rebalance":false}`, ""}, // YAML 1.1 reads off so
		{"Service", `{"mode":"global","task":{"container":{"image":"a"},%s}}`, `"placement":{"rebalance":"on-join"}`,
			"spec.task.placement.rebalance: is for mode replicated; the tasks of mode global do not move from node to node"},
		{"Service", `{"mode":"replicated-job","task":{"container":{"image":"a"},%s}}`, `"placement":{"rebalance":"on-join"}`,
			"spec.task.placement.rebalance: is for mode replicated; the tasks of mode replicated-job do not move from node to node"},
		{"Service", task, `"placement":{"rebalance":"always"}`, `spec.task.placement.rebalance: "always" is not allowed: want off or on-join`},
		// Networks and logs.
		{"Service", task, `"networks":[{"target":"back","aliases":["db","_x.y"]}]`, ""},
		{"Service", task, `"networks":[{}]`, "spec.task.networks[0].target: is missing: want the name or ID of a network"},
		{"Service", task, `"networks":[{"target":"ingress"}]`,
			"spec.task.networks[0].target: services cannot be attached to the ingress network: publish a port instead"},
		{"Service", task, `"networks":[{"target":"a"},{"target":"a"}]`, `spec.task.networks[1].target: "a" is given twice`},
		{"Service", task, `"networks":[{"target":"a","aliases":["a b"]}]`, `spec.task.networks[0].aliases[0]: "a b" is not a host name`},
		{"Service", task, `"logDriver":{"name":"json-file","options":{"max-size":"10m","max-file":"3"}}`, ""},
		{"Service", task, `"logDriver":{"options":{"max-size":"big","max-file":"0"}}`,
			"spec.task.logDriver.options[\"max-file\"]: \"0\" is not a number of files: want 1 to 1000\n" +
				"spec.task.logDriver.options[\"max-size\"]: \"big\" is not a size: want one such as 10m"},
		// Containers.
		{"Service", `{"task":{"container":{%s}}}`, `"image":"Nginx"`, `spec.task.container.image: "Nginx" is not an image reference: ` +
			`the repository's name must be in small letters; want one such as nginx:1.27 or registry.example.org:5000/team/app:v2`},
		{"Service", container, `"env":["A=","B=c=d"],"hostname":"a-1.b","dir":"/x","user":"1000:10","groups":["wheel"],"stopSignal":"SIGQUIT"`, ""},
		{"Service", container, `"env":["A","=b"]`, "spec.task.container.env[0]: \"A\" is not a variable: want NAME=value\n" +
			"spec.task.container.env[1]: \"=b\" is not a variable: want NAME=value"},
		{"Service", container, `"env":["A=` + strings.Repeat("x", MaxArgument) + `"]`, "spec.task.container.env[0]: has 131073 bytes, at most 131071 are allowed"},
		{"Service", container, `"args":[` + many(4097, same(`""`)) + `]`, "spec.task.container.args: has 4097 entries, at most 4096 are allowed"},
		{"Service", container, `"command":["` + strings.Repeat("x", 600<<10) + `"]`,
			"spec: is 614813 bytes long, at most 524288 are allowed\nspec.task.container.command[0]: has 614400 bytes, at most 131071 are allowed"},
		{"Service", container, `"hostname":"a b"`, `spec.task.container.hostname: "a b" is not a host name: want at most 64 letters, digits, - and .`},
		{"Service", container, `"hostname":"{{.Node.Hostname}}-{{.Task.Slot}}"`, ""},
		{"Service", container, `"env":["A={{.Task.Slot","B={{range .}}{{end}}","C={{.Service.Labels.zone}}","D={{.Task.Slot}}"],"hostname":"{{.Nope}}"`,
			"spec.task.container.env[0]: cannot be expanded: template: line:1: unclosed action\n" +
				"spec.task.container.env[1]: cannot be expanded: range is not supported\n" +
				`spec.task.container.env[2]: cannot be expanded: template: line:1:10: executing "line" at <.Service.Labels.zone>: map has no entry for key "zone"` + "\n" +
				`spec.task.container.hostname: cannot be expanded: template: line:1:2: executing "line" at <.Nope>: can't evaluate field Nope in type *v1.TemplateData`},
		{"Service", container, `"mounts":[{"source":"v-{{","target":"/a{{x}}","volume":{"labels":{"l":"{{"},"driver":{"options":{"type":"none","device":"/x","o":"{{"}}}}]`,
			"spec.task.container.mounts[0].source: cannot be expanded: template: line:1: unclosed action\n" +
				"spec.task.container.mounts[0].target: cannot be expanded: template: line:1: function \"x\" not defined\n" +
				"spec.task.container.mounts[0].volume.driver.options[\"o\"]: cannot be expanded: template: line:1: unclosed action\n" +
				"spec.task.container.mounts[0].volume.labels[\"l\"]: cannot be expanded: template: line:1: unclosed action"},
		{"Service", container, `"env":[` + many(100, same(`"A=`+strings.Repeat("{{.Node.Hostname}}", 200)+`"`)) + `]`,
			"spec.task.container.env[82]: cannot be expanded: all templates together expand to more than 4194304 bytes"},
		// What is no place for templates, a part of what a node has, and a slot that is a node.
		{"Service", container, `"args":["{{"],"labels":{"a":"{{"},"env":["A={{slice .Node.Hostname 0 20}}","B={{slice .Task.ID 0 12}}"]`, ""},
		{"Service", `{"mode":"global","task":{"container":{"image":"a",%s}}}`, `"env":["A={{slice .Task.Slot 0 12}}"]`, ""},
		{"Service", container, `"dir":"x"`, `spec.task.container.dir: "x" is not an absolute path: want one such as /data`},
		{"Service", container, `"user":"a\nb"`, `spec.task.container.user: "a\nb" holds control characters`},
		{"Service", container, `"user":"` + strings.Repeat("a", MaxString+1) + `"`, fmt.Sprintf("spec.task.container.user: has %d bytes, at most %d are allowed", MaxString+1, MaxString)},
		{"Service", container, `"command":["","x"]`, "spec.task.container.command[0]: is empty: want the program to run"},
		{"Service", container, `"command":["x",""],"args":[""]`, ""},
		{"Service", container, `"groups":[""]`, "spec.task.container.groups[0]: is empty: want a group's name or number"},
		{"Service", container, `"stopSignal":"SIGFOO"`, `spec.task.container.stopSignal: "SIGFOO" is not a signal: want one such as SIGTERM, or 1 to 64`},
		{"Service", container, `"stopGracePeriod":"-1s"`, "spec.task.container.stopGracePeriod: -1s is out of range: want 0s to 8760h0m0s"},
		{"Service", container, `"stopDrainDelay":"-1s"`, "spec.task.container.stopDrainDelay: -1s is out of range: want 0s to 8760h0m0s"},
		{"Service", container, `"oomScoreAdj":-1001`, "spec.task.container.oomScoreAdj: -1001 is out of range: want -1000 to 1000"},
		{"Service", container, `"hosts":["10.0.0.1 a b.c","::1 d"]`, ""},
		{"Service", container, `"hosts":["10.0.0.1","x y","10.0.0.1 a/b"]`,
			"spec.task.container.hosts[0]: \"10.0.0.1\" is not a host entry: want an address and names, such as 10.1.2.3 db.example.org\n" +
				"spec.task.container.hosts[1]: \"x\" is not an IP address: want one before the names, such as 10.1.2.3 db.example.org\n" +
				"spec.task.container.hosts[2]: \"a/b\" is not a host name"},
		{"Service", container, `"dns":{"nameservers":["1.1.1.1"],"search":["example.org","."],"options":["ndots:1"]}`, ""},
		{"Service", container, `"dns":{"nameservers":["one"],"search":["a b"],"options":["a b"]}`,
			"spec.task.container.dns.nameservers[0]: \"one\" is not an IP address\n" +
				"spec.task.container.dns.options[0]: \"a b\" is not one option of resolv.conf: want one such as ndots:1\n" +
				"spec.task.container.dns.search[0]: \"a b\" is not a domain"},
		{"Service", container, `"capabilityAdd":["NET_ADMIN","cap_sys_time"],"capabilityDrop":["ALL"]`, ""},
		{"Service", container, `"capabilityAdd":["NET"]`, `spec.task.container.capabilityAdd[0]: "NET" is not a capability: want ALL, or one such as NET_ADMIN`},
		{"Service", container, `"sysctls":{"net.core.somaxconn":"1024","kernel.shmmax":"1","net/ipv4/ip_forward":"1"}`, ""},
		{"Service", container, `"sysctls":{"vm.swappiness":"1"}`, `spec.task.container.sysctls["vm.swappiness"]: ` +
			"would change the whole node: want net.*, kernel.msg*, kernel.sem, kernel.shm*, kernel.domainname or fs.mqueue.*"},
		{"Service", container, `"sysctls":{"net/../kernel/panic":"1"}`, `spec.task.container.sysctls["net/../kernel/panic"]: ` + noSysctl},
		{"Service", container, `"sysctls":{"kernel.sem":"1\n2"}`,
			`spec.task.container.sysctls["kernel.sem"]: the value "1\n2" holds control characters: want one line of printable characters`},
		{"Service", container, `"sysctls":{"kernel.sem":"250 32000 32 128"}`, ""},
		{"Service", container, `"ulimits":[{"name":"nofile","soft":1,"hard":2},{"name":"core","soft":-1,"hard":-1},{"name":"nproc","soft":5,"hard":-1}]`, ""},
		{"Service", container, `"ulimits":[{"name":"files","soft":1,"hard":1}]`, `spec.task.container.ulimits[0].name: "files" is not allowed: want core, cpu, ` +
			"data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending or stack"},
		{"Service", container, `"ulimits":[{"name":"core","soft":2,"hard":1},{"name":"core","soft":-2,"hard":1},{"name":"cpu","soft":-1,"hard":1}]`,
			"spec.task.container.ulimits[0].soft: is above the hard limit of 1\nspec.task.container.ulimits[1].name: \"core\" is given twice\n" +
				"spec.task.container.ulimits[1].soft: -2 is out of range: want 0 or more, or -1 for no limit\n" +
				"spec.task.container.ulimits[2].soft: is above the hard limit of 1"},
		{"Service", container, `"privileges":{"noNewPrivileges":true,"seccomp":{"mode":"custom","profile":"{}"}}`, ""},
		{"Service", container, `"privileges":{"seccomp":{"mode":"off"}}`, `spec.task.container.privileges.seccomp.mode: "off" is not allowed: want default, unconfined or custom`},
		{"Service", container, `"privileges":{"seccomp":{"mode":"custom","profile":"x"}}`,
			"spec.task.container.privileges.seccomp.profile: is not JSON: want a seccomp profile in Docker's format"},
		{"Service", container, `"privileges":{"seccomp":{"profile":"{}"}}`, "spec.task.container.privileges.seccomp.profile: is for mode custom"},
		{"Service", container, `"privileges":{"appArmor":{"mode":"x"},"seLinux":{"disable":true,"user":"u"}}`,
			"spec.task.container.privileges.appArmor.mode: \"x\" is not allowed: want default or disabled\n" +
				"spec.task.container.privileges.seLinux.user: means nothing where seLinux.disable is true"},
		{"Service", container, `"healthcheck":{"test":["CMD","x"],"interval":"1ms","retries":3}`, ""},
		{"Service", container, `"healthcheck":{"http":{"port":80,"path":"/healthz?a=b"}}`, ""},
		{"Service", container, `"healthcheck":{"tcp":{"port":5432}}`, ""},
		{"Service", container, `"healthcheck":{"test":["CMD","x"],"http":{"port":0,"path":"healthz","scheme":"ftp"},"tcp":{"port":0}}`,
			"spec.task.container.healthcheck: has more than one of test, http and tcp: want one\n" +
				"spec.task.container.healthcheck.http.path: \"healthz\" is not a path: want one such as /healthz\n" +
				"spec.task.container.healthcheck.http.port: is missing: want the port in the container, 1 to 65535\n" +
				"spec.task.container.healthcheck.http.scheme: \"ftp\" is not allowed: want http or https\n" +
				"spec.task.container.healthcheck.tcp.port: is missing: want the port in the container, 1 to 65535"},
		{"Service", container, `"healthcheck":{"test":["RUN"],"interval":"1us","timeout":-1,"retries":-1}`,
			"spec.task.container.healthcheck.interval: 1µs is out of range: want 0s (the default), or 1ms to 8760h0m0s\n" +
				"spec.task.container.healthcheck.retries: -1 is out of range: want 0 (the default) to 10000\n" +
				"spec.task.container.healthcheck.test[0]: \"RUN\" is not allowed: want NONE, CMD or CMD-SHELL\n" +
				"spec.task.container.healthcheck.timeout: -1ns is out of range: want 0s (the default), or 1ms to 8760h0m0s"},
		{"Service", container, `"healthcheck":{"test":["CMD-SHELL"]}`,
			"spec.task.container.healthcheck.test: CMD-SHELL needs one command line: want [CMD-SHELL, command line]"},
		{"Service", container, `"healthcheck":{"test":["CMD"]}`, "spec.task.container.healthcheck.test: CMD needs a command: want [CMD, command, argument…]"},
		{"Service", container, `"healthcheck":{"test":["NONE","x"]}`, "spec.task.container.healthcheck.test: NONE stands alone"},
		// Mounts, secrets, configs.
		{"Service", container, `"mounts":[{"source":"data","target":"/data"},{"type":"bind","source":"/x","target":"/y","bind":{"propagation":"slave"}},` +
			`{"type":"tmpfs","target":"/t","tmpfs":{"size":"1m","mode":448}},{"target":"/anonymous"}]`, ""},
		{"Service", container, `"mounts":[{"target":"data","type":"nfs"}]`, "spec.task.container.mounts[0].target: \"data\" is not an absolute path: want one such as /data\n" +
			"spec.task.container.mounts[0].type: \"nfs\" is not allowed: want volume, bind or tmpfs"},
		{"Service", container, `"mounts":[{"source":"v","target":"/a","volume":{"subpath":"x/../y"}},{"type":"bind","source":"/x","target":"/y","readOnly":true,"bind":{"propagation":"rprivate","recursive":"readonly"}}]`, ""},
		{"Service", container, `"mounts":[{"source":"v","target":"/a","volume":{"subpath":"../x"}},{"source":"v","target":"/b","volume":{"subpath":"/x"}},{"target":"/c","volume":{"subpath":"x"}}]`,
			"spec.task.container.mounts[0].volume.subpath: \"../x\" is no path in the volume: want a relative one without ..\n" +
				"spec.task.container.mounts[1].volume.subpath: \"/x\" is no path in the volume: want a relative one without ..\n" +
				"spec.task.container.mounts[2].volume.subpath: is for volumes with a name: one without is empty"},
		{"Service", container, `"mounts":[{"type":"bind","source":"/x","target":"/a","bind":{"recursive":"writable"}},{"type":"bind","source":"/x","target":"/b","readOnly":true,"bind":{"recursive":"readonly"}}]`,
			"spec.task.container.mounts[0].bind.recursive: writable is for mounts that are readOnly\n" +
				"spec.task.container.mounts[1].bind.recursive: readonly needs the propagation rprivate to be given"},
		{"Service", container, `"mounts":[{"target":"/a"},{"target":"/a"}]`, `spec.task.container.mounts[1].target: "/a" is the target of spec.task.container.mounts[0] already`},
		{"Service", container, `"mounts":[{"type":"bind","source":"x","target":"/a","tmpfs":{}}]`,
			"spec.task.container.mounts[0].source: \"x\" is not an absolute path: want one such as /data\n" +
				"spec.task.container.mounts[0].tmpfs: is for mounts of type tmpfs, not of type bind"},
		{"Service", container, `"mounts":[{"type":"tmpfs","source":"x","target":"/a","tmpfs":{"size":-1,"mode":65535}}]`,
			"spec.task.container.mounts[0].source: a tmpfs has no source\nspec.task.container.mounts[0].tmpfs.mode: 0177777 is out of range: want 0 to 07777\n" +
				"spec.task.container.mounts[0].tmpfs.size: -1 is out of range: want 0 (no limit) or more"},
		{"Service", container, `"mounts":[{"source":"../x","target":"/a"}]`, `spec.task.container.mounts[0].source: "../x" is not a name: ` +
			"want 1 to 255 letters, digits, -, _ and ., beginning with a letter or digit"},
		{"Service", container, `"secrets":[{"source":"a"},{"source":"b","target":"/etc/b","uid":"33","mode":256}],"configs":[{"source":"a"}]`, ""},
		{"Service", container, `"secrets":[{"source":"a"},{"source":"b","target":"a"}]`,
			`spec.task.container.secrets[1].target: "/run/secrets/a" is the target of spec.task.container.secrets[0] already`},
		{"Service", container, `"configs":[{"source":"a","uid":"root","mode":4096}]`, "spec.task.container.configs[0].mode: 010000 is out of range: want 0 to 07777\n" +
			"spec.task.container.configs[0].uid: \"root\" is not a number: want 0 to 4294967295"},
		// Secrets and configs.
		{"Secret", "%s", `{"data":"aGk="}`, ""},
		{"Secret", "%s", `{}`, "spec.data: is 0 bytes long: want 1 to 511999"},
		{"Secret", "%s", `{"driver":{"name":"vault"}}`, ""},
		{"Secret", "%s", `{"driver":{},"data":"aGk="}`, "spec.data: comes from the driver: want one or the other\nspec.driver.name: is missing"},
		{"Config", "%s", `{"data":"aGk=","templating":{"name":"golang"}}`, ""},
		{"Config", "%s", `{"data":"e3sgLnggfX17eyBzZWNyZXQgIm4iIH19","templating":{"name":"golang"}}`, ""},
		{"Config", "%s", `{"data":"e3sgLng=","templating":{"name":"golang"}}`, "spec.data: cannot be expanded: template: line:1: unclosed action"},
		{"Config", "%s", `{"data":"e3sgLng="}`, ""},
		{"Config", "%s", `{"data":"e3sgcHJpbnRmICJ4IiB9fQ==","templating":{"name":"golang"}}`, "spec.data: cannot be expanded: printf is not supported: use print"},
		{"Secret", "%s", `{"data":"e3sgLng=","templating":{"name":"golang"}}`,
			"spec.data: cannot be expanded: template: line:1: no Go template that can be read"},
		{"Secret", "%s", `{"data":"e3sgcHJpbnRmICJ4IiB9fQ==","templating":{"name":"golang"}}`, "spec.data: cannot be expanded: printf is not supported: use print"},
		{"Config", "%s", `{"templating":{"name":"jinja"}}`, "spec.data: is 0 bytes long: want 1 to 1023999\nspec.templating.name: \"jinja\" is not allowed: want golang"},
		// Networks.
		{"Network", "%s", `{"options":{"encrypted":"banana"}}`, `spec.options["encrypted"]: "banana" is not allowed: want the option without a value`},
		{"Network", "%s", `{"options":{"encrypted":"","com.docker.network.driver.mtu":"1400"},"subnets":[{"subnet":"10.1.0.0/24","gateway":"10.1.0.1","ipRange":"10.1.0.128/25"}]}`, ""},
		{"Network", "%s", `{"options":{"com.docker.network.driver.mtu":"576"}}`, ""},
		{"Network", "%s", `{"ipv6":true,"options":{"com.docker.network.driver.mtu":"1279"}}`,
			`spec.options["com.docker.network.driver.mtu"]: "1279" is not an MTU: want 1280 to 65535`},
		{"Network", "%s", `{"ipv6":true,"subnets":[{"subnet":"fd00::/64"}],"options":{"com.docker.network.driver.mtu":"1000"}}`,
			`spec.options["com.docker.network.driver.mtu"]: "1000" is not an MTU: want 1280 to 65535`},
		{"Network", "%s", `{"driver":"macvlan"}`, `spec.driver: "macvlan" is not allowed: want overlay`},
		{"Network", "%s", `{"options":{"com.docker.network.driver.mtu":"9","x":"y"}}`,
			"spec.options[\"com.docker.network.driver.mtu\"]: \"9\" is not an MTU: want 576 to 65535\n" +
				"spec.options[\"x\"]: unknown option: want encrypted, com.docker.network.driver.mtu or com.docker.network.driver.overlay.vxlanid_list"},
		{"Network", "%s", `{"subnets":[{"subnet":"10.1.0.1/24"},{"subnet":"10.2.0.0/25"},{"subnet":"fd00::/64"},{"subnet":"x"},{"subnet":"::ffff:10.9.0.0/120"}]}`,
			"spec.subnets[0].subnet: 10.1.0.1/24 has bits beyond its mask: want 10.1.0.0/24\n" +
				"spec.subnets[1].subnet: 10.2.0.0/25 is a second one of its IP version, beside 10.1.0.1/24: want one of each at most\n" +
				"spec.subnets[2].subnet: fd00::/64 is of IP version 6: set ipv6 too\nspec.subnets[3].subnet: \"x\" is not a subnet: want one such as 10.1.0.0/24\n" +
				"spec.subnets[4].subnet: \"::ffff:10.9.0.0/120\" is not a subnet: want one such as 10.1.0.0/24"},
		{"Network", "%s", `{"subnets":[{"subnet":"10.9.0.0/31"}]}`, "spec.subnets[0].subnet: 10.9.0.0/31 has no room: want at least 4 addresses"},
		{"Network", "%s", `{"subnets":[{"subnet":"10.1.0.0/24","gateway":"10.1.0.0"}]}`,
			"spec.subnets[0].gateway: 10.1.0.0 is the address of the subnet itself: want another of 10.1.0.0/24"},
		{"Network", "%s", `{"subnets":[{"subnet":"10.1.0.0/24","gateway":"10.1.0.255"}]}`,
			"spec.subnets[0].gateway: 10.1.0.255 is the broadcast address: want another of 10.1.0.0/24"},
		{"Network", "%s", `{"ipv6":true,"subnets":[{"subnet":"10.1.0.0/24"},{"subnet":"fd00::/64","gateway":"fd00::ffff:ffff:ffff:ffff"}]}`, ""},
		{"Network", "%s", `{"subnets":[{"subnet":"10.1.0.0/24","ipRange":"10.1.0.130/25"}]}`,
			"spec.subnets[0].ipRange: 10.1.0.130/25 has bits beyond its mask: want 10.1.0.128/25"},
		{"Network", "%s", `{"subnets":[{"subnet":"10.6.0.0/24","ipRange":"10.6.0.1/32"}]}`, noRoom("10.6.0.1/32")},
		{"Network", "%s", `{"subnets":[{"subnet":"10.6.0.0/24","ipRange":"10.6.0.0/32"}]}`, noRoom("10.6.0.0/32")},
		{"Network", "%s", `{"subnets":[{"subnet":"10.6.0.0/24","ipRange":"10.6.0.255/32"}]}`, noRoom("10.6.0.255/32")},
		{"Network", "%s", `{"subnets":[{"subnet":"10.6.0.0/24","ipRange":"10.6.0.0/31"}]}`, noRoom("10.6.0.0/31")},
		{"Network", "%s", `{"subnets":[{"subnet":"10.6.0.0/24","gateway":"10.6.0.1","ipRange":"10.6.0.0/31"}]}`, noRoom("10.6.0.0/31")},
		{"Network", "%s", `{"subnets":[{"subnet":"10.6.0.0/24","gateway":"10.6.0.9","ipRange":"10.6.0.9/32"}]}`, noRoom("10.6.0.9/32")},
		{"Network", "%s", `{"subnets":[{"subnet":"10.6.0.0/24","gateway":"10.6.0.254","ipRange":"10.6.0.254/31"}]}`, noRoom("10.6.0.254/31")},
		{"Network", "%s", `{"subnets":[{"subnet":"10.6.0.0/24","gateway":"10.6.0.254","ipRange":"10.6.0.0/31"}]}`, ""},
		{"Network", "%s", `{"subnets":[{"subnet":"10.6.0.0/24","gateway":"10.6.0.254","ipRange":"10.6.0.1/32"}]}`, ""},
		{"Network", "%s", `{"subnets":[{"subnet":"10.6.0.0/24","ipRange":"10.6.0.254/31"}]}`, ""},
		{"Network", "%s", `{"subnets":[{"subnet":"10.6.0.0/24","ipRange":"10.6.0.0/30"}]}`, ""},
		{"Network", "%s", `{"subnets":[{"subnet":"10.6.0.0/30","ipRange":"10.6.0.0/30"}]}`, ""},
		{"Network", "%s", `{"ipv6":true,"subnets":[{"subnet":"fd00::/64","ipRange":"fd00::/127"}]}`, noRoom("fd00::/127")},
		{"Network", "%s", `{"ipv6":true,"subnets":[{"subnet":"fd00::/64","gateway":"fd00::9","ipRange":"fd00::9/128"}]}`, noRoom("fd00::9/128")},
		{"Network", "%s", `{"ipv6":true,"subnets":[{"subnet":"fd00::/64","gateway":"fd00::9","ipRange":"fd00::/127"}]}`, ""},
		{"Network", "%s", `{"ipv6":true,"subnets":[{"subnet":"fd00::/64","ipRange":"fd00::ffff:ffff:ffff:ffff/128"}]}`, ""},
		{"Network", "%s", `{"options":{"encrypted":"","com.docker.network.driver.overlay.vxlanid_list":"4096,8631"}}`, ""},
		{"Network", "%s", `{"options":{"encrypted":"","com.docker.network.driver.overlay.vxlanid_list":"4095, 8632"}}`,
			"spec.options[\"com.docker.network.driver.overlay.vxlanid_list\"]: 4095 cannot be an encrypted network's: want 4096 to 8631, from which its UDP port follows\n" +
				"spec.options[\"com.docker.network.driver.overlay.vxlanid_list\"]: 8632 cannot be an encrypted network's: want 4096 to 8631, from which its UDP port follows"},
		{"Network", "%s", `{"options":{"com.docker.network.driver.overlay.vxlanid_list":"1"}}`,
			"spec.options[\"com.docker.network.driver.overlay.vxlanid_list\"]: \"1\" is not a VXLAN ID: want 2 to 16777215, with commas between"},
		{"Network", "%s", `{"subnets":[{"subnet":"10.1.0.0/24","gateway":"10.2.0.1","ipRange":"10.0.0.0/8"}]}`,
			"spec.subnets[0].gateway: \"10.2.0.1\" is not an address of 10.1.0.0/24\nspec.subnets[0].ipRange: \"10.0.0.0/8\" is not a part of 10.1.0.0/24"},
		// Volumes, nodes, the cluster.
		{"Volume", "%s", `{"options":{"type":"nfs","device":":/x","o":"addr=10.0.0.1"}}`, ""},
		{"Volume", "%s", `{"driver":"x","options":{"":"x"}}`, `spec.options[""]: an option needs a name`},
		{"Node", "%s", `{}`, ""},
		{"Node", "%s", `{"role":"boss","availability":"off"}`, "spec.availability: \"off\" is not allowed: want active, pause or drain\n" +
			"spec.role: \"boss\" is not allowed: want worker or manager"},
		{"Cluster", "%s", `{"taskHistoryLimit":-1,"gatewayPool":"10.0.0.0/8"}`, ""},
		{"Cluster", "%s", `{"gatewayPool":"10.0.0.0/25"}`, `spec.gatewayPool: "10.0.0.0/25" is not a pool of /24 blocks: want a subnet of IP version 4 of /24 or larger, such as 100.64.0.0/10`},
		{"Cluster", "%s", `{"taskHistoryLimit":10001}`, "spec.taskHistoryLimit: 10001 is too many: want up to 10000, or a negative number to keep all"},
	} {
		got := validateSpec(t, Kind(test.kind), fmt.Sprintf(test.shape, test.in))
		if text := errorText(got); text != test.want {
			t.Errorf("%s %.200s:\ngot  %s\nwant %s", test.kind, test.in, text, test.want)
		}
	}
}

// noRoom is the refusal of a range without an address to give.
func noRoom(within string) string {
	return "spec.subnets[0].ipRange: " + within + " has no room: want an address in it that is not the subnet's own, its gateway's or for broadcast"
}

func errorText(errs FieldErrors) string {
	if errs == nil {
		return ""
	}
	return errs.Error()
}

func TestValidateMetadata(t *testing.T) {
	s := &Config{Meta: Meta{Name: "a", Labels: map[string]string{}}, Spec: &ConfigSpec{Data: []byte("x")}}
	for i := range MaxLabels {
		s.Meta.Labels[fmt.Sprint("l", i)] = ""
	}
	if errs := Validate(s); errs != nil {
		t.Errorf("as many labels as are allowed: %v", errs)
	}
	s.Meta.Labels["more"] = ""
	if got := errorText(Validate(s)); got != "metadata.labels: has 1001 entries, at most 1000 are allowed" {
		t.Errorf("too many: %s", got)
	}
	big := strings.Repeat("x", MaxLabelValue)
	s.Meta.Labels = map[string]string{"": "1", "a\x00": "2", " b": "3", strings.Repeat("k", 513): "4", "c": "x\x00", "d": big + "x"}
	want := `metadata.labels[" b"]: the name holds control characters, or spaces at its ends
metadata.labels[""]: a label needs a name
metadata.labels["a\x00"]: the name holds control characters, or spaces at its ends
metadata.labels["c"]: holds a NUL byte
metadata.labels["d"]: the value has 32769 bytes, at most 32768 are allowed
metadata.labels["kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk…"]: the name has 513 bytes, at most 512 are allowed`
	if got := errorText(Validate(s)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	s.Meta.Labels = map[string]string{"a": big, "b": big, "c": big, "d": big}
	if got := errorText(Validate(s)); got != "metadata.labels: take 131076 bytes together, at most 131072 are allowed" {
		t.Errorf("too large together: %s", got)
	}
	if got := errorText(Validate(&Service{Meta: Meta{Name: "-"}})); got !=
		"metadata.name: \"-\" is not a name: want 1 to 63 letters, digits, - and _, beginning and ending with a letter or digit\nspec: is missing" {
		t.Errorf("no spec: %s", got)
	}
}

// TestValidateIsBounded makes a spec with more errors than anybody wants to read.
func TestValidateIsBounded(t *testing.T) {
	errs := validateSpec(t, KindService, `{"task":{"container":{"image":"a","env":[`+many(4000, same(`"x"`))+`]}}}`)
	if len(errs) != maxFindings {
		t.Errorf("%d errors", len(errs))
	}
}

func TestSizeLimitsOfData(t *testing.T) {
	for _, test := range []struct {
		obj  Object
		want string
	}{
		{&Secret{Meta: Meta{Name: "a"}, Spec: &SecretSpec{Data: make([]byte, 511_999)}}, ""},
		{&Secret{Meta: Meta{Name: "a"}, Spec: &SecretSpec{Data: make([]byte, 512_000)}}, "spec.data: is 512000 bytes long: want 1 to 511999"},
		{&Config{Meta: Meta{Name: "a"}, Spec: &ConfigSpec{Data: make([]byte, 1_023_999)}}, ""},
		{&Config{Meta: Meta{Name: "a"}, Spec: &ConfigSpec{Data: make([]byte, 1_024_000)}}, "spec.data: is 1024000 bytes long: want 1 to 1023999"},
	} {
		if got := errorText(Validate(test.obj)); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
	largest, err := json.Marshal(ManifestOf(&Config{Meta: Meta{Name: "a"}, Spec: &ConfigSpec{Data: make([]byte, 1_023_999)}}))
	if err != nil || len(largest) > MaxManifestSize {
		t.Errorf("the largest config takes %d bytes as a manifest, more than MaxManifestSize (%v)", len(largest), err)
	}
}

func TestSignals(t *testing.T) {
	for name, want := range map[string]bool{
		"SIGTERM": true, "term": true, "9": true, "64": true, "65": false, "0": false, "-1": false, "SIGRTMIN+3": true, "RTMAX-1": true,
		"RTMIN+31": false, "RTMIN+": false, "RTMIN-1": false, "SIG": false, "": false,
	} {
		if got := isSignal(name); got != want {
			t.Errorf("isSignal(%q) = %v", name, got)
		}
	}
}

// TestSysctlNames checks the names that a container may set, each of which becomes a path below /proc/sys.
func TestSysctlNames(t *testing.T) {
	check := func(name string) FieldErrors {
		s := &Service{Spec: &ServiceSpec{Task: TaskSpec{Container: ContainerSpec{Image: "a", Sysctls: map[string]string{name: "1"}}}}}
		s.Meta.Name = "web"
		Default(s)
		return Validate(s)
	}
	for _, name := range []string{"net.core.somaxconn", "net/core/somaxconn", "net.ipv4.conf.eth0/100.forwarding",
		"net.ipv4.conf.br-1.rp_filter", "fs.mqueue.msg_max", "kernel.shm_rmid_forced"} {
		if errs := check(name); len(errs) > 0 {
			t.Errorf("%q: %v", name, errs)
		}
	}
	for _, name := range []string{"net/../kernel/panic", "net.ipv4/../../kernel.panic", "net....kernel.panic",
		"fs.mqueue.../../../kernel/panic", "net.", "net", "net..core", "net./core", "net/./core", "/net/core", ".net.core", "net/core/",
		"net.core\\x", "net.core x", "net.é", "net.a\nb", "../net.core", "kernel.panic", "kernel.sem.x"} {
		errs := check(name)
		if len(errs) == 0 {
			t.Errorf("%q is accepted", name)
			continue
		}
		if field := fmt.Sprintf("spec.task.container.sysctls[%q]", name); errs[0].Field != field {
			t.Errorf("%q: field %s, want %s", name, errs[0].Field, field)
		}
	}
}

// TestUser checks who a container may run as.
func TestUser(t *testing.T) {
	for _, s := range []string{"0", "1000", "4294967294", "1000:10", "anna", "anna:wheel", "1000:wheel", "_apt", "a.b-c_d", "host$", "1st", "0:0"} {
		if errs := validateSpec(t, KindService, fmt.Sprintf(`{"task":{"container":{"image":"a","user":%q}}}`, s)); len(errs) > 0 {
			t.Errorf("%q: %v", s, errs)
		}
	}
	for _, s := range []string{"-1", "1:2:3", "99999999999", "4294967295", "1:4294967295", "1:-1", "-anna", "anna:-b", ":", ":1", "1:", "+1",
		"a b", "a/b", "ä", "99999999999999999999999"} {
		want := fmt.Sprintf("spec.task.container.user: %q is not a user: want a name of letters, digits, _, ., - and $, or a number of "+
			"0 to 4294967294, with an optional :group that looks the same", s)
		if errs := validateSpec(t, KindService, fmt.Sprintf(`{"task":{"container":{"image":"a","user":%q}}}`, s)); errs.Error() != want {
			t.Errorf("%q:\n%v\nwant\n%s", s, errs, want)
		}
	}
}
