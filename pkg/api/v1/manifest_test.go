package v1

import (
	"encoding/json"
	"strings"
	"testing"
)

const helloManifest = `{
 "apiVersion": "swarm/v1", "kind": "Service",
 "metadata": {"name": "hello", "labels": {"tier": "web"}},
 "spec": {"replicas": 3, "task": {"container": {"image": "nginx:1.27", "env": ["A=b"]},
   "resources": {"limits": {"cpus": 0.5, "memory": "64m"}}},
   "endpoint": {"ports": [{"target": 80, "published": 8080}]}}}`

func TestDecodeManifest(t *testing.T) {
	m, err := DecodeManifest([]byte(helloManifest))
	if err != nil {
		t.Fatal(err)
	}
	s := m.Object.(*Service)
	Default(s)
	if errs := Validate(s); errs != nil {
		t.Errorf("Validate: %v", errs)
	}
	if errs := Unsupported(s); errs != nil {
		t.Errorf("Unsupported: %v", errs)
	}
	if *s.Spec.Replicas != 3 || s.Spec.Task.Resources.Limits.Memory != 64<<20 || s.Spec.Task.Resources.Limits.CPUs != 5e8 {
		got, _ := json.Marshal(s)
		t.Errorf("read %s", got)
	}
}

func TestDecodeManifestRefuses(t *testing.T) {
	service := func(rest string) string {
		return `{"apiVersion":"swarm/v1","kind":"Service","metadata":{"name":"a"},` + rest + `}`
	}
	for _, test := range []struct{ name, in, want string }{
		{"empty", " \n", "there is nothing in it: want a JSON object"},
		{"not an object", `[]`, "want an object with apiVersion, kind, metadata or spec, found a list"},
		{"not JSON", "{\n  \"kind\": x}", "not JSON, at line 2, column 11: invalid character 'x' looking for beginning of value"},
		{"cut off", `{"kind":`, "not JSON, at line 1, column 8: unexpected end of JSON input"},
		{"trailing", `{} {}`, "there is more after the end of the object, at line 1, column 4"},
		{"utf-8", "{\"kind\":\n\"\xff\"}", "invalid UTF-8 at line 2, column 2"},
		{"NUL", "{\"kind\":\"\x00\"}", "NUL byte at line 1, column 10"},
		{"NUL escaped", service(`"spec":{"task":{"container":{"image":"a\u0000"}}}`), "spec.task.container.image: holds a NUL byte"},
		{"surrogate", service(`"spec":{"task":{"container":{"image":"a\ud800"}}}`), "spec.task.container.image: holds half of a surrogate pair"},
		{"deep", strings.Repeat(`[`, 40), "nested deeper than 32 levels at line 1, column 33"},
		{"large", `{"a":"` + strings.Repeat("x", MaxManifestSize) + `"}`, "2097160 bytes are too many: a manifest holds at most 2097152"},
		{"no kind", `{"apiVersion":"swarm/v1"}`, "kind: is missing: want Service, Network, Secret, Config, Volume, Registry, Node, Cluster, User or Attachment"},
		{"no version", `{"kind":"Service"}`, "apiVersion: is missing: want swarm/v1"},
		{"version", `{"apiVersion":"v1","kind":"Service"}`, `apiVersion: want swarm/v1, found "v1"`},
		{"kind near", `{"apiVersion":"swarm/v1","kind":"service"}`, `kind: "service" is not a kind; did you mean "Service"?`},
		{"kind of the swarm", `{"apiVersion":"swarm/v1","kind":"Task"}`,
			"kind: Task is made by the swarm, not by a manifest: want Service, Network, Secret, Config, Volume, Registry, Node, Cluster, User or Attachment"},
		{"kind twice", `{"apiVersion":"swarm/v1","kind":"Service","kind":"Node"}`, "kind: is given twice"},
		{"kind a number", `{"apiVersion":"swarm/v1","kind":1}`, "kind: want a string, found the number 1; put it in quotes"},
		{"unknown", service(`"spec":{"task":{"container":{"imgae":"a"}}}`), `spec.task.container.imgae: unknown field; did you mean "image"?`},
		{"case", service(`"spec":{"Replicas":1}`), `spec.Replicas: unknown field; did you mean "replicas"?`},
		{"unknown top", service(`"sepc":{}`), `sepc: unknown field; did you mean "spec"?`},
		{"unknown far", service(`"spec":{"task":{"resources":{"bananas":1}}}`),
			"spec.task.resources.bananas: unknown field; want limits, reservations, memorySwap or memorySwappiness"},
		{"twice", service(`"spec":{"replicas":1,"replicas":2}`), "spec.replicas: is given twice"},
		{"label twice", `{"apiVersion":"swarm/v1","kind":"Service","metadata":{"labels":{"a":"1","a":"2"}}}`, `metadata.labels["a"]: is given twice`},
		{"label a number", `{"apiVersion":"swarm/v1","kind":"Service","metadata":{"labels":{"a":1}}}`,
			`metadata.labels["a"]: want a string, found the number 1; put it in quotes`},
		{"type", service(`"spec":{"replicas":"three"}`), `spec.replicas: want a whole number from 0, found the string "three"`},
		{"fraction", service(`"spec":{"replicas":1.5}`), `spec.replicas: want a whole number from 0, found 1.5`},
		{"negative", service(`"spec":{"replicas":-1}`), `spec.replicas: want a whole number from 0, found -1`},
		{"port", service(`"spec":{"endpoint":{"ports":[{"target":80},{"target":70000}]}}`),
			`spec.endpoint.ports[1].target: want a whole number from 0 to 65535, found 70000`},
		{"list", service(`"spec":{"task":{"container":{"args":"a b"}}}`), `spec.task.container.args: want a list, found the string "a b"`},
		{"object", service(`"spec":{"task":[]}`), `spec.task: want an object with fields, found a list`},
		{"bool", service(`"spec":{"task":{"container":{"tty":"yes"}}}`), `spec.task.container.tty: want true or false, found the string "yes"`},
		{"duration", service(`"spec":{"update":{"delay":"10"}}`), `spec.update.delay: "10" is not a duration: want one such as 10s or 1m30s`},
		{"size", service(`"spec":{"task":{"resources":{"limits":{"memory":"lots"}}}}`),
			`spec.task.resources.limits.memory: "lots" is not a size: want a number with an optional unit b, k, m, g or t, such as 64m or 1.5g`},
		{"cpus", service(`"spec":{"task":{"resources":{"limits":{"cpus":"many"}}}}`),
			`spec.task.resources.limits.cpus: "many" is not a number of cpus: want one such as 0.5 or 2`},
		{"base64", `{"apiVersion":"swarm/v1","kind":"Secret","spec":{"data":"??"}}`, "spec.data: is not base64: illegal base64 data at input byte 0"},
		{"two errors", service(`"spec":{"replica":1,"task":{"container":{"tty":1}}}`),
			"spec.replica: unknown field; did you mean \"replicas\"?\nspec.task.container.tty: want true or false, found the number 1"},
		{"id", `{"apiVersion":"swarm/v1","kind":"Service","metadata":{"id":"x"}}`,
			"metadata.id: is written by the swarm, not by a manifest: leave it out"},
		{"status", service(`"status":{"anything":1}`), "status: is written by the swarm, not by a manifest: leave it out"},
		{"desired", service(`"desired":{}`), "desired: is written by the swarm, not by a manifest: leave it out"},
		{"revisions", `{"apiVersion":"swarm/v1","kind":"Service","metadata":{"revisions":{"x":1}}}`, `metadata.revisions: revisions: unknown section "x"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := DecodeManifest([]byte(test.in))
			if err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}
