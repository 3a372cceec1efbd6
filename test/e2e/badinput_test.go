package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestMainJobBadInput gives the command line and the API what a careless and a hostile user would: each gets an error that
// says what is wrong, nothing is stored, and the daemon goes on.
func TestMainJobBadInput(t *testing.T) {
	_, h := oneHost(t)
	manifest := func(spec string) string {
		return "apiVersion: swarm/v1\nkind: Service\nmetadata: {name: bad}\nspec:\n" + spec
	}
	task := "  task:\n    container: {image: hello:1}\n"
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for i := range 9 {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", 'b'+i, 'b'+i, 'a'+i, 'a'+i, 'a'+i, 'a'+i, 'a'+i, 'a'+i, 'a'+i, 'a'+i, 'a'+i)
	}
	var labels strings.Builder
	for i := range 1_000_000 {
		fmt.Fprintf(&labels, "    l%d: x\n", i)
	}
	for name, c := range map[string]struct{ input, want string }{
		"unknown field":     {manifest("  task:\n    container: {imge: hello:1}\n"), "spec.task.container.imge"},
		"wrong type":        {manifest("  replicas: many\n" + task), "spec.replicas"},
		"negative replicas": {manifest("  replicas: -1\n" + task), "spec.replicas"},
		"no image":          {manifest("  task: {container: {}}\n"), "spec.task.container.image"},
		"bad image":         {manifest("  task: {container: {image: 'UPPER case'}}\n"), "spec.task.container.image"},
		"not yet":           {manifest("  task: {container: {image: 'hello:1'}, logDriver: {name: syslog}}\n"), "not supported yet"},
		"bad name":          {strings.Replace(manifest(task), "name: bad", "name: -bad-", 1), "metadata.name"},
		"long name":         {strings.Replace(manifest(task), "name: bad", "name: "+strings.Repeat("x", 64), 1), "63"},
		"no kind":           {"apiVersion: swarm/v1\nmetadata: {name: bad}\n", "kind"},
		"another version":   {strings.Replace(manifest(task), "swarm/v1", "apps/v1", 1), "swarm/v1"},
		"NUL byte":          {manifest("  task:\n    container: {image: \"hello:1\\0\"}\n"), "spec.task.container.image"},
		"raw NUL byte":      {manifest(task) + "\x00", ""},
		"not YAML":          {"{{{", ""},
		"duplicate key":     {manifest(task + "  replicas: 1\n  replicas: 2\n"), "replicas"},
		"YAML bomb":         {manifest(task) + bomb, ""},
		"a million labels":  {"apiVersion: swarm/v1\nkind: Service\nmetadata:\n  name: bad\n  labels:\n" + labels.String() + "spec:\n" + task, ""},
		"100 MB":            {manifest(task) + "# " + strings.Repeat("x", 100<<20), ""},
		"empty":             {"", "no objects"},
	} {
		began := time.Now()
		r := h.CtlInput(c.input, "apply", "--detach", "-f", "-")
		if r.Code == 0 || !strings.Contains(r.Stderr, c.want) || len(r.Stderr) < 10 || len(r.Stderr) > 4000 {
			t.Errorf("%s: exit %d after %s, want an error with %q:\n%.500s", name, r.Code, time.Since(began).Round(time.Millisecond), c.want, r.Stderr)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"service", "create"}, "requires at least 1 argument"},
		{[]string{"service", "create", "--publish", "99999:80", "hello:1"}, "99999"},
		{[]string{"service", "create", "--limit-memory", "lots", "hello:1"}, "lots"},
		{[]string{"service", "create", "--constraint", "node.labels.zone=east", "hello:1"}, "node.labels.zone=east"},
		{[]string{"service", "create", "--mode", "sideways", "hello:1"}, "sideways"},
		{[]string{"service", "create", "--secret", "s", "hello:1"}, "s"},
		{[]string{"service", "create", "--network", "nosuch", "hello:1"}, "network nosuch not found"},
		{[]string{"service", "create", "--endpoint-mode", "dnsrr", "--publish", "80", "hello:1"}, "ingress needs endpoint mode vip"},
		{[]string{"network", "create", "--driver", "bridge", "n"}, "--driver bridge"},
		{[]string{"network", "create", "--subnet", "10.0.0.0/99", "n"}, "10.0.0.0/99"},
		{[]string{"network", "create", "host"}, "predefined host network"},
		{[]string{"network", "rm", "nosuch"}, "nosuch"},
		{[]string{"service", "scale", "nosuch=3"}, "nosuch"},
		{[]string{"service", "scale", "hello"}, "hello"},
		{[]string{"service", "rm", "nosuch"}, "nosuch"},
		{[]string{"apply", "-f", "/nosuch.yaml"}, "/nosuch.yaml"},
		{[]string{"image", "load", "-i", "/etc/passwd"}, ""},
		{[]string{"nosuch"}, "nosuch"},
		{[]string{"service", "ls", "--filter", "colour=red"}, "colour"},
		{[]string{"swarm", "init"}, "already part of a swarm"},
	} {
		if r := h.Ctl(c.args...); r.Code == 0 || !strings.Contains(r.Stderr, c.want) || len(r.Stderr) < 10 {
			t.Errorf("swarmctl %s: exit %d, want an error with %q:\n%.500s", strings.Join(c.args, " "), r.Code, c.want, r.Stderr)
		}
	}
	badRequests(t, h.Socket())
	if out := h.Must("service", "ls", "-q"); out != "" {
		t.Errorf("something was stored: %q", out)
	}
}

// badRequests goes past the command line, to the socket.
func badRequests(t *testing.T, socket string) {
	t.Helper()
	c := &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	for name, r := range map[string]struct {
		method, path string
		body         io.Reader
		status       int
	}{
		"100 MB":           {"POST", "/v1/services", bytes.NewReader(bytes.Repeat([]byte(" "), 100<<20)), http.StatusRequestEntityTooLarge},
		"deep nesting":     {"POST", "/v1/services", strings.NewReader(strings.Repeat("[", 1<<20)), http.StatusBadRequest},
		"invalid UTF-8":    {"POST", "/v1/services", strings.NewReader("{\"kind\":\"\xff\xfe\"}"), http.StatusBadRequest},
		"empty":            {"POST", "/v1/services", nil, http.StatusBadRequest},
		"no such path":     {"GET", "/v1/nosuch", nil, http.StatusNotFound},
		"wrong method":     {"PATCH", "/v1/services", nil, http.StatusMethodNotAllowed},
		"no such revision": {"GET", "/v1/services?watch=true&after=x", nil, http.StatusBadRequest},
		"long path":        {"GET", "/v1/services/" + strings.Repeat("x", 1<<16), nil, 0},
	} {
		req, err := http.NewRequestWithContext(t.Context(), r.method, "http://swarmd"+r.path, r.body)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := c.Do(req)
		if err != nil {
			if r.status == http.StatusRequestEntityTooLarge && strings.Contains(err.Error(), "broken pipe") {
				continue // refused before all of it was sent
			}
			t.Errorf("%s: %v", name, err)
			continue
		}
		answer.Body.Close()
		if r.status != 0 && answer.StatusCode != r.status || answer.StatusCode < 400 || answer.StatusCode >= 500 {
			t.Errorf("%s: %s, want %d", name, answer.Status, r.status)
		}
	}
}
