package compose

import (
	"strings"
	"testing"
)

// one is a compose file of one service with more lines.
func one(lines ...string) string {
	return "services:\n  web:\n    image: nginx\n    " + strings.ReplaceAll(strings.Join(lines, "\n"), "\n", "\n    ") + "\n"
}

// TestRefused says of each thing that is not honoured where it is and what to do.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		file string
		want []string // each is in the error
	}{
		{"build", one("build: ."), []string{"a.yml:4: services.web.build: not supported: a swarm builds no images: build and push it", "--lenient"}},
		{"a schedule with something else", one("deploy: {mode: cron, x-schedule: {cron: '@daily', timezone: UTC}}"), []string{`services.web.deploy.x-schedule: unknown field "timezone"`}},
		{"cron without a schedule", one("deploy: {mode: cron}"), []string{"schedule: is missing: mode cron needs one"}},
		{"a schedule without cron", one("deploy: {x-schedule: {cron: '@daily'}}"), []string{"schedule: is for mode cron, not for mode replicated"}},
		{"container name", one("container_name: shop", "links: [db]"), []string{"a.yml:4: services.web.container_name: ", "a.yml:5: services.web.links: "}},
		{"link-local address", one("ports:", `  - "[fe80::1]:80:80"`), []string{"services.web: spec.endpoint.ports[0].hostIP: ", "link-local"}},
		{"no address", one("ports:", "  - target: 80", "    host_ip: localhost"), []string{"a.yml:6: services.web.ports[0].host_ip: invalid ip address: localhost: want one such as"}},
		{"below deploy", one("deploy:", "  resources:", "    reservations:", "      devices: [{capabilities: [gpu]}]"),
			[]string{"a.yml:7: services.web.deploy.resources.reservations.devices: "}},
		{"unknown", one("imagee: x", "deploy: {replicsa: 2}", "zzzz: 1"), []string{"a.yml:4: services.web.imagee: is a key that is not known here: did you mean image?",
			"a.yml:5: services.web.deploy.replicsa: is a key that is not known here: did you mean replicas?", "a.yml:6: services.web.zzzz: is a key that is not known here: leave it out"}},
		{"unknown at the top", one() + "service: {}\n", []string{"a.yml:5: service: is a key that is not known here: did you mean services?"}},
		{"unknown in a list", one("ports:", "  - {target: 80, publisched: 8080}"), []string{"a.yml:5: services.web.ports[0].publisched: is a key that is not known here: did you mean published?"}},
		{"no command", one("command: {a: b}"), []string{"a.yml:4: services.web.command: is a mapping: want a text, or a list"}},
		{"a list of mappings", one("command:", "  - x", "  - {a: b}"), []string{"a.yml:6: services.web.command[1]: is a mapping: want a text"}},
		{"no port", one("ports:", "  - 80", "  - abc"), []string{`a.yml:6: services.web.ports[1]: "abc" is no port: invalid containerPort: abc: want [[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL], such as 8080:80`}},
		{"uneven ports", one("ports: ['9000-9002:80-81']"), []string{`a.yml:4: services.web.ports[0]: "9000-9002:80-81" is no port: invalid ranges specified`, "with as many on both sides"}},
		{"no mapping", "- services\n", []string{"a.yml:1: is no mapping: want keys with values, such as services: "}},
		{"a list of services", "services: [web]\n", []string{"a.yml:1: services: must be a mapping"}},
		{"a wrong word", one("deploy: {mode: 7}", "tty: [x]"), []string{"a.yml:4: services.web.deploy.mode: is a number: want a text"}},
		{"no service", "services: {web: nginx}\n", []string{"a.yml:1: services.web: must be a mapping"}},
		{"network mode", one("network_mode: host"), []string{"a.yml:4: services.web.network_mode: "}},
		{"include", "include: [b.yml]\n" + one(), []string{"a.yml:1: include: "}},
		{"extends of another file", one("extends: {file: b.yml, service: x}"), []string{"extends.file: b.yml: not supported: give that file to --compose-file"}},
		{"driver", one("networks: [n]") + "networks: {n: {driver: bridge}}\n", []string{"a.yml:5: networks.n.driver: \"bridge\" is not supported"}},
		{"node's network", one("networks: [n]") + "networks: {n: {external: true, name: host}}\n", []string{"networks.n: a task cannot be on the node's own network"}},
		{"mount type", one("volumes: [{type: npipe, target: /x}]"), []string{"a.yml:4: services.web.volumes[0].type: \"npipe\" is not supported"}},
		{"mount option", one("volumes:", "  - db:/x:ro,zz") + "volumes: {db: }\n", []string{`a.yml:5: services.web.volumes[0]: the option "zz" is not known`}},
		{"making a folder", one("volumes: [{type: bind, source: /x, target: /x, bind: {create_host_path: true}}]"),
			[]string{"a.yml:4: services.web.volumes[0].bind.create_host_path: not supported: "}},
		{"selinux", one("volumes: ['./x:/x:z']"), []string{"services.web.volumes[0].bind.selinux: "}},
		{"tmpfs option", one("tmpfs: ['/x:noexec']"), []string{`services.web.tmpfs[0]: the option "noexec" is not supported`}},
		{"security", one("security_opt: [systempaths=unconfined]"), []string{"a.yml:4: services.web.security_opt[0]: \"systempaths=unconfined\" is not supported"}},
		{"empty command", one("command: []"), []string{"services.web.command: is empty"}},
		{"port range", one("ports: [{target: 80, published: 8000-8010}]"), []string{"services.web.ports[0].published: \"8000-8010\" is not one port"}},
		{"global with replicas", one("deploy: {mode: global, replicas: 2}"), []string{"services.web.deploy.replicas: is not for mode global"}},
		{"mode", one("deploy: {mode: daemon}"), []string{"services.web: spec.mode: "}},
		{"restart", one("restart: sometimes"), []string{"services.web.restart: \"sometimes\" is no restart policy"}},
		{"restart with dependents", one("depends_on: {db: {condition: service_started, restart: true}}") + "  db: {image: x}\n",
			[]string{"services.web.depends_on.db.restart: not supported: a change of one service restarts no other"}},
		{"host-gateway", one("extra_hosts: ['x:host-gateway']"), []string{"services.web.extra_hosts: x: host-gateway is not supported"}},
		{"secret without a file", one("secrets: [s]") + "secrets: {s: {file: ./none}}\n", []string{"a.yml:5: secrets.s.file: open /srv/none"}},
		{"secret without a variable", one("secrets: [s]") + "secrets: {s: {environment: NONE}}\n", []string{"secrets.s.environment: the variable NONE is not set"}},
		{"empty config", one("configs: [c]") + "configs: {c: {content: ''}}\n", []string{"configs.c: has no content"}},
		{"env file", one("env_file: none.env"), []string{"services.web.env_file[0]: open /srv/none.env"}},
		{"secret of no name", one("secrets: [s]"), []string{"a.yml:4: services.web.secrets[0]: there is no s below secrets"}},
		{"services that need each other", one("depends_on: [db]") + "  db: {image: x, depends_on: [web]}\n", []string{"depends_on: services need each other: db needs web needs db"}},
		{"name", strings.ReplaceAll(one(), "web", "web.one"), []string{"services.web.one: metadata.name: ", "is not a name"}},
		{"long name", strings.ReplaceAll(one(), "web", strings.Repeat("w", 60)), []string{"metadata.name: "}},
		{"network of no name", one("networks: [n]"), []string{"services.web.networks.n: there is no such network"}},
		{"volume of no name", one("volumes: ['vol:/v']"), []string{"services.web.volumes[0]: there is no volume vol below volumes"}},
		{"needs nothing that is there", one("depends_on: [db]"), []string{"services.web.depends_on.db: there is no such service"}},
		{"scale and replicas", one("scale: 2", "deploy: {replicas: 3}"), []string{"services.web.scale: 2 is not deploy.replicas, which is 3"}},
		{"replicas", one("deploy: {replicas: -1}"), []string{"services.web.deploy.replicas: -1 is no number of tasks"}},
		{"no services", "volumes: {x: }\n", []string{"services: there are none"}},
		{"nothing", "", []string{"a.yml: is empty"}},
		{"no YAML", "services: [\n", []string{"a.yml: "}},
		{"two documents that are one", "services: {web: {image: x}}\n---\nservices: {web: {privileged: true}}\n", []string{"a.yml:3: services.web.privileged: "}},
		{"a required variable", one("hostname: ${HOST:?say where}"), []string{"HOST", "say where"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := world{}.load(c.file)
			if err == nil {
				_, err = p.Stack()
			}
			if err == nil {
				t.Fatalf("no error, want one with %q", c.want)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error is\n%v\nwant one with\n%s", err, want)
				}
			}
		})
	}
}

// TestOneKeyIsNotKnown: what is known stays so where one key below it is not, and that key is all that is told of.
func TestOneKeyIsNotKnown(t *testing.T) {
	_, err := world{}.load(one("stop_grace_period: 1s", "secrets: [{source: s, target: s, on_change: none}]") + "secrets: {s: {environment: S}}\n")
	const want = "a.yml:5: services.web.secrets[0].on_change: is a key that is not known here: leave it out"
	if err == nil || err.Error() != want {
		t.Errorf("the error is\n%v\nwant\n%s", err, want)
	}
}

// TestSeveralFiles: what is refused is told of the file that says so.
func TestSeveralFiles(t *testing.T) {
	_, err := world{}.load(one(), "services:\n  web:\n    privileged: true\n  db:\n    image: x\n    build: .\n")
	want := "b.yml:3: services.web.privileged: not supported: tasks are never privileged: name what it needs with cap_add\n" +
		"b.yml:6: services.db.build: not supported: a swarm builds no images: build and push it, and name it with image\n" +
		"what is refused can be left out with --lenient, unless that would run something else than the file says"
	if err == nil || err.Error() != want {
		t.Errorf("the error is\n%v\nwant\n%s", err, want)
	}
}

// TestLenient leaves out what can be, and says so, and still refuses what would open more than the file says.
func TestLenient(t *testing.T) {
	w := world{lenient: true}
	p, err := w.load(one("container_name: shop", "build: .", "x-mine: y"))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Warnings) != 2 || !strings.Contains(p.Warnings[0], "services.web.container_name: ") || !strings.HasSuffix(p.Warnings[0], "(it is left out)") {
		t.Errorf("warnings: %q", p.Warnings)
	}
	s, err := p.Stack()
	if err != nil || len(s.Services) != 1 {
		t.Errorf("a lenient stack: %+v, %v", s, err)
	}
	for name, file := range map[string]string{"network_mode": one("network_mode: none"),
		"include": "include: [b.yml]\n" + one()} {
		if _, err := w.load(file); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "--lenient") {
			t.Errorf("%s with lenience: %v", name, err)
		}
	}
	p, err = w.load("services: {web: {build: .}}\n")
	if err == nil {
		_, err = p.Stack()
	}
	if err == nil || !strings.Contains(err.Error(), "services.web: has no image") {
		t.Errorf("a service whose image is to be built, with lenience: %v", err)
	}
}

// TestBombs: what would grow beyond measure is refused, and soon.
func TestBombs(t *testing.T) {
	var b strings.Builder
	b.WriteString("x-a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 20 {
		b.WriteString(strings.NewReplacer("N", string(rune('a'+i+1)), "P", string(rune('a'+i))).Replace("x-N: &N [*P,*P,*P,*P,*P,*P,*P,*P,*P,*P]\n"))
	}
	laughs := strings.Replace(b.String(), "&a0", "&a", 1) + one()
	deep := "x-a: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "\n" + one()
	itself := "x-a: &a {b: *a}\n" + one()
	large := "x-a: " + strings.Repeat("y", MaxFile) + "\n" + one()
	many := "x-a: [" + strings.Repeat("y,", maxNodes) + "y]\n" + one()
	for name, file := range map[string]string{"laughs": laughs, "deep": deep, "itself": itself, "large": large, "many": many} {
		if _, err := (world{}).load(file); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := Load(make([]Source, MaxFiles+1), Options{}); err == nil {
		t.Error("too many files: no error")
	}
}
