package cli

import (
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

func port(published, target uint16, protocol v1.Protocol, mode v1.PublishMode) v1.PortConfig {
	return v1.PortConfig{Published: published, Target: target, Protocol: protocol, Mode: mode}
}

func TestParsePorts(t *testing.T) {
	for text, want := range map[string][]v1.PortConfig{
		"80":                    {port(0, 80, v1.TCP, v1.PublishIngress)},
		":80":                   {port(0, 80, v1.TCP, v1.PublishIngress)},
		"8080:80/UDP":           {port(8080, 80, v1.UDP, v1.PublishIngress)},
		"8080-8081:80-81":       {port(8080, 80, v1.TCP, v1.PublishIngress), port(8081, 81, v1.TCP, v1.PublishIngress)},
		"8080-8081:80":          {port(8080, 80, v1.TCP, v1.PublishIngress), port(8081, 80, v1.TCP, v1.PublishIngress)},
		"80-81":                 {port(0, 80, v1.TCP, v1.PublishIngress), port(0, 81, v1.TCP, v1.PublishIngress)},
		"65534-65535:1-2":       {port(65534, 1, v1.TCP, v1.PublishIngress), port(65535, 2, v1.TCP, v1.PublishIngress)},
		"target=80":             {port(0, 80, v1.TCP, v1.PublishIngress)},
		"127.0.0.1:8080:80":     {{Published: 8080, Target: 80, Protocol: v1.TCP, Mode: v1.PublishIngress, HostIP: "127.0.0.1"}},
		"[2001:db8::1]:8080:80": {{Published: 8080, Target: 80, Protocol: v1.TCP, Mode: v1.PublishIngress, HostIP: "2001:db8::1"}},
		"[::]:8080:80":          {{Published: 8080, Target: 80, Protocol: v1.TCP, Mode: v1.PublishIngress, HostIP: "::"}},
		"target=80,published=8080,host_ip=2001:db8::/32":    {{Published: 8080, Target: 80, Protocol: v1.TCP, Mode: v1.PublishIngress, HostIP: "2001:db8::/32"}},
		"target=80,published=8080,host_ip=10.0.0.0/8":       {{Published: 8080, Target: 80, Protocol: v1.TCP, Mode: v1.PublishIngress, HostIP: "10.0.0.0/8"}},
		"target=80,published=8080,mode=host,Interface=ethA": {{Published: 8080, Target: 80, Protocol: v1.TCP, Mode: v1.PublishHost, Interface: "ethA"}},
		"Target=80,MODE=HOST,published=8080,protocol=sctp":  {port(8080, 80, v1.SCTP, v1.PublishHost)},
	} {
		got, err := parsePorts(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: -want +got\n%s", text, d)
		}
	}
}

func TestParseMount(t *testing.T) {
	here, err := filepath.Abs("./data")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]v1.Mount{
		"target=/a":                      {Type: v1.MountVolume, Target: "/a"},
		"type=bind,src=./data,dst=/a,ro": {Type: v1.MountBind, Source: here, Target: "/a", ReadOnly: true},
		"type=bind,source=/x,destination=/a,readonly=false,bind-propagation=RShared,bind-recursive=enabled": {Type: v1.MountBind,
			Source: "/x", Target: "/a", Bind: &v1.BindOptions{Propagation: "rshared"}},
		"type=bind,src=/x,dst=/a,ro,bind-propagation=rprivate,bind-recursive=readonly": {Type: v1.MountBind, Source: "/x", Target: "/a", ReadOnly: true,
			Bind: &v1.BindOptions{Propagation: "rprivate", Recursive: "readonly"}},
		"type=tmpfs,target=/a,tmpfs-size=64m,tmpfs-mode=1777": {Type: v1.MountTmpfs, Target: "/a",
			Tmpfs: &v1.TmpfsOptions{Size: 64 << 20, Mode: 0o1777}},
		`source=data,target=/a,volume-nocopy,volume-subpath=x,volume-label=a=b,volume-driver=nfs,"volume-opt=o=addr=1,rw"`: {
			Type: v1.MountVolume, Source: "data", Target: "/a", Volume: &v1.VolumeOptions{NoCopy: true, Subpath: "x",
				Labels: map[string]string{"a": "b"}, Driver: &v1.Driver{Name: "nfs", Options: map[string]string{"o": "addr=1,rw"}}}},
	} {
		got, err := parseMount(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: -want +got\n%s", text, d)
		}
	}
}

func TestParseReferences(t *testing.T) {
	mode := uint32(0o400)
	got, err := parseReference("secret")("source=key,target=/etc/key,uid=1,gid=2,mode=0400")
	if d := cmp.Diff(v1.FileReference{Source: "key", Target: "/etc/key", UID: "1", GID: "2", Mode: &mode}, got); d != "" || err != nil {
		t.Errorf("long form: %v -want +got\n%s", err, d)
	}
	got, err = parseReference("config")("page")
	if d := cmp.Diff(v1.FileReference{Source: "page"}, got); d != "" || err != nil {
		t.Errorf("short form: %v -want +got\n%s", err, d)
	}
	net, err := parseNetwork("name=Front,alias=a,alias=b,driver-opt=k=v")
	if d := cmp.Diff(v1.NetworkAttachment{Target: "Front", Aliases: []string{"a", "b"}, DriverOpts: map[string]string{"k": "v"}}, net); d != "" || err != nil {
		t.Errorf("network: %v -want +got\n%s", err, d)
	}
}

func TestEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("\ufeff# comment\n\n  A=1 \nB\nC\nD=4\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &app{Options: withDefaults(Options{LookupEnv: func(name string) (string, bool) { return "from outside", name == "B" }})}
	got, err := a.environment([]string{file}, []string{"D=5", "E=", "E=6"})
	if d := cmp.Diff([]string{"A=1 ", "B=from outside", "D=5", "E=6"}, got); d != "" || err != nil {
		t.Errorf("%v -want +got\n%s", err, d)
	}
	for text, want := range map[string]string{
		"=x":      "no variable name on line '=x'",
		"a b=c":   "variable 'a b' contains whitespaces",
		"\xff":    `invalid utf8 bytes at line 1: "\xff"`,
		"A\x00=1": "",
	} {
		_, err := readEnvFile(strings.NewReader(text), a.LookupEnv)
		if got := errText(err); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if _, err := readEnvFile(strings.NewReader(strings.Repeat("A=1\n", maxEnvFile/4+1)), a.LookupEnv); err == nil {
		t.Error("a file of more than the limit was read")
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestCapabilities(t *testing.T) {
	for _, c := range []struct{ add, drop, wantAdd, wantDrop string }{
		{"", "", "", ""},
		{"net_admin", "", "CAP_NET_ADMIN", ""},
		{"CAP_CHOWN chown", "chown kill", "CAP_CHOWN", "CAP_KILL"},
		{"all net_admin", "all", "ALL", ""},
		{"", "ALL kill", "", "ALL"},
		{"RESET kill", "reset", "CAP_KILL", ""},
	} {
		adds, drops := effectiveCapabilities(strings.Fields(c.add), strings.Fields(c.drop))
		if strings.Join(adds, " ") != c.wantAdd || strings.Join(drops, " ") != c.wantDrop {
			t.Errorf("add %q drop %q: %v %v, want %q %q", c.add, c.drop, adds, drops, c.wantAdd, c.wantDrop)
		}
	}
}

func FuzzPorts(f *testing.F) {
	for _, s := range []string{"80", "8080:80/udp", "1-65535:1-65535", "[::1]:80:80", "target=80,published=8080", "", ":", "-", "::::", "0-0:0-0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ports, err := parsePorts(text)
		if err == nil && len(ports) == 0 {
			t.Error("neither ports nor an error")
		}
		if len(ports) > 65536 {
			t.Errorf("%d ports", len(ports))
		}
		for _, p := range ports {
			if p.Protocol == "" || p.Mode == "" {
				t.Errorf("%+v is not complete", p)
			}
		}
	})
}

func FuzzMount(f *testing.F) {
	for _, s := range []string{"target=/a", "type=bind,src=.,dst=/a,ro", `"a,b"`, "type=tmpfs,tmpfs-size=1m", "volume-opt=a=b,target=/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseMount(text)
		if err != nil {
			return
		}
		if m.Type == "" || m.Bind != nil && m.Type != v1.MountBind || m.Volume != nil && m.Type != v1.MountVolume || m.Tmpfs != nil && m.Type != v1.MountTmpfs {
			t.Errorf("%q: %+v mixes types", text, m)
		}
	})
}

func FuzzFlags(f *testing.F) {
	for _, s := range []string{"spread=node.labels.a", "nofile=1:2", "gpu=1", "a:1.2.3.4", "source=a,mode=0400", "name=a,alias=b", "1/3", "0.5", "64m", "x.example", "1h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := parsePreference(text); err == nil && "spread="+p.Spread != text {
			t.Errorf("preference %q: %+v", text, p)
		}
		if r, err := parseReference("secret")(text); err == nil && r.Source == "" && text != "" {
			t.Errorf("reference %q without a source", text)
		}
		if n, err := parseNetwork(text); err == nil && n.Target == "" && text != "" {
			t.Errorf("network %q without a name", text)
		}
		if line, err := parseHost(text); err == nil && len(strings.Fields(line)) != 2 {
			t.Errorf("host %q: %q", text, line)
		}
		if g, err := parseGeneric(text); err == nil && (g.Kind == "" || g.Count < 0) {
			t.Errorf("generic resource %q: %+v", text, g)
		}
		if c, err := parseCPUs(text); err == nil {
			if want, ok := new(big.Rat).SetString(text); !ok || want.Mul(want, big.NewRat(1e9, 1)).Cmp(new(big.Rat).SetInt64(int64(c))) != 0 {
				t.Errorf("cpus %q: %d", text, c)
			}
		}
		parseUlimit(text)
		parseSearch(text)
		parseAddress(text)
		parseLabel(text)
		parseBytes(text)
		parseWords(text)
		parseDuration(text)
		readEnvFile(strings.NewReader(text), func(string) (string, bool) { return "", false })
	})
}

func TestParseHTTPProbe(t *testing.T) {
	for text, want := range map[string]v1.HTTPProbe{
		"http://:8080/healthz":        {Port: 8080, Path: "/healthz", Scheme: "http"},
		":8080":                       {Port: 8080, Path: "/", Scheme: "http"},
		"https://localhost/a%20b?c=d": {Port: 443, Path: "/a%20b?c=d", Scheme: "https"},
		"127.0.0.1:81/x":              {Port: 81, Path: "/x", Scheme: "http"},
	} {
		got, err := parseHTTPProbe(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if *got != want {
			t.Errorf("%s: got %+v, want %+v", text, *got, want)
		}
	}
	for text, want := range map[string]string{
		"ftp://:21/x":         "is not a page",
		"http://web:80/":      `is of host "web"`,
		"http://:0/":          "has no port from 1 to 65535",
		"http://:99999/":      "has no port from 1 to 65535",
		"http://u:p@:80/":     "is not a page",
		"http://:80/x#middle": "is not a page",
		"http://:x/":          "is not a page",
	} {
		if _, err := parseHTTPProbe(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
