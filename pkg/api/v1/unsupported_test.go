package v1

import (
	"fmt"
	"testing"
)

func TestUnsupported(t *testing.T) {
	const c = "spec.task.container."
	for _, test := range []struct{ kind, in, want string }{
		{"Service", `{"mode":"global","task":{"container":{"image":"a"}}}`, ""},
		{"Service", `{"mode":"replicated-job","task":{"container":{"image":"a"}}}`, ""},
		{"Service", `{"task":{"container":{"image":"a"},"networks":[{"target":"n","aliases":["m"]}]}}`, ""},
		{"Service", `{"task":{"container":{"image":"a"},"networks":[{"target":"n"},{"target":"m","driverOpts":{"a":"b"}}]}}`,
			"spec.task.networks[1].driverOpts: is not supported yet"},
		{"Service", `{"task":{"container":{"image":"a","secrets":[{"source":"s"}],"configs":[{"source":"c"}],"mounts":[{"target":"/a"},{"source":"b","target":"/b","volume":{"subpath":"x","driver":{"name":"nfs"}}}]}}}`,
			c + "mounts[1].volume.driver.name: nfs is not supported yet: want local"},
		{"Service", `{"task":{"container":{"image":"a","healthcheck":{"test":["NONE"]}}}}`, ""},
		{"Service", `{"task":{"container":{"image":"a","privileges":{"appArmor":{"mode":"default"},"seLinux":{"type":"t"},"noNewPrivileges":true}}}}`,
			c + "privileges.appArmor: is not supported yet\n" + c + "privileges.seLinux: is not supported yet"},
		{"Service", `{"task":{"container":{"image":"a"}},"endpoint":{"mode":"dnsrr"}}`, ""},
		{"Service", `{"task":{"container":{"image":"a"},"logDriver":{"name":"syslog","options":{"tag":"x"}}}}`,
			"spec.task.logDriver.name: syslog is not supported yet: want json-file, local or none\n" +
				`spec.task.logDriver.options["tag"]: is not supported yet: want max-size or max-file`},
		{"Service", `{"task":{"container":{"image":"a"},"logDriver":{"name":"json-file","options":{"max-size":"1m","max-file":"2"}}}}`, ""},
		{"Service", `{"task":{"container":{"image":"a","capabilityAdd":["NET_RAW"],"sysctls":{"net.core.somaxconn":"1"},` +
			`"ulimits":[{"name":"nofile","soft":1,"hard":1}],"init":true,"tty":true,"openStdin":true,"readOnly":true,"stopSignal":"SIGINT","hostname":"h",` +
			`"hosts":["1.1.1.1 a"],"dns":{"nameservers":["1.1.1.1"]},"user":"1","groups":["2"],"privileges":{"seccomp":{"mode":"unconfined"}},"oomScoreAdj":5},` +
			`"resources":{"limits":{"cpus":1,"memory":"1g","pids":5},"memorySwap":-1,"memorySwappiness":1,"reservations":{"cpus":1,"memory":"1g"}},` +
			`"restartPolicy":{"condition":"none"},"placement":{"constraints":["node.role==worker"],"maxReplicas":1}},"endpoint":{"ports":[{"target":80,"published":80,"mode":"host"}]}}`, ""},
		{"Service", `{"task":{"container":{"image":"a"}},"endpoint":{"ports":[{"target":80}]}}`, ""},
		{"Network", `{}`, ""},
		{"Network", `{"options":{"com.docker.network.driver.mtu":"1400"},"attachable":true,"ipv6":true}`, ""},
		{"Network", `{"options":{"encrypted":""},"internal":true}`, ""},
		{"Secret", `{"data":"aGk="}`, ""},
		{"Secret", `{"driver":{"name":"vault"}}`, "spec.driver: is not supported yet"},
		{"Config", `{"data":"aGk=","templating":{"name":"golang"}}`, ""},
		{"Volume", `{}`, ""},
		{"Volume", `{"driver":"nfs"}`, "spec.driver: nfs is not supported yet: want local"},
		{"Node", `{}`, ""},
	} {
		m, err := DecodeManifest([]byte(fmt.Sprintf(`{"apiVersion":"swarm/v1","kind":%q,"metadata":{"name":"a"},"spec":%s}`, test.kind, test.in)))
		if err != nil {
			t.Fatal(err)
		}
		Default(m.Object)
		if errs := Validate(m.Object); errs != nil {
			t.Errorf("%s %s is not even valid: %v", test.kind, test.in, errs)
		}
		if got := errorText(Unsupported(m.Object)); got != test.want {
			t.Errorf("%s %s:\ngot  %s\nwant %s", test.kind, test.in, got, test.want)
		}
	}
}
