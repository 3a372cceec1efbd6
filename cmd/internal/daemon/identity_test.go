package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

func TestIdentity(t *testing.T) {
	d := disk{root: t.TempDir()}
	if id, err := loadIdentity(d); id != nil || err != nil {
		t.Fatalf("of an empty directory: %v, %v", id, err)
	}
	want := &identity{NodeID: "n", Role: v1.RoleManager, Addr: "a:1", Step: stepRestore, Init: &v1.InitRequest{AdvertiseAddr: "a"}}
	if err := want.save(d); err != nil {
		t.Fatal(err)
	}
	got, err := loadIdentity(d)
	if err != nil || got.NodeID != "n" || got.Init.AdvertiseAddr != "a" || got.Step != stepRestore {
		t.Fatalf("loaded %+v, %v", got, err)
	}
	for name, damage := range map[string]string{"cut off": `{"nodeID":"n"`, "empty": "", "another file": `{"a":1}`} {
		if err := os.WriteFile(d.path(identityName), []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadIdentity(d); err == nil || !strings.Contains(err.Error(), "is damaged") {
			t.Errorf("%s: %v, want an error that says so", name, err)
		}
	}
	left, _ := filepath.Glob(d.path("node.json.*"))
	if len(left) > 0 {
		t.Errorf("save left %v", left)
	}
}

// TestIdentityOfAnEarlierVersion: it had no steps, and its node was about to make a swarm where it still had the request.
func TestIdentityOfAnEarlierVersion(t *testing.T) {
	d := disk{root: t.TempDir()}
	for text, want := range map[string]step{
		`{"nodeID":"n","role":"manager","addr":"10.0.0.1:2377","init":{"advertiseAddr":"10.0.0.1"}}`: stepFound,
		`{"nodeID":"n","role":"manager","addr":"10.0.0.1:2377"}`:                                     stepUpgrade,
		`{"version":2,"nodeID":"n","role":"manager","addr":"10.0.0.1:2377"}`:                         stepNone,
		`{"nodeID":"n","role":"worker"}`:                                                             stepNone,
	} {
		if err := os.WriteFile(d.path(identityName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		id, err := loadIdentity(d)
		if err != nil || id.Step != want || id.ListenAddr != "0.0.0.0:2377" {
			t.Errorf("%s is %+v, %v; want the step %q", text, id, err, want)
		}
	}
}

func TestFindPlace(t *testing.T) {
	for _, c := range []struct {
		listen, advertise, data, remote string
		want                            place
	}{
		{advertise: "10.0.0.1", want: place{"10.0.0.1:2377", "0.0.0.0:2377", ""}},
		{advertise: "10.0.0.1:4000", want: place{"10.0.0.1:4000", "0.0.0.0:2377", ""}},
		{advertise: "10.0.0.1", listen: "0.0.0.0:4000", want: place{"10.0.0.1:4000", "0.0.0.0:4000", ""}},
		{advertise: "10.0.0.1", listen: "10.0.0.1", want: place{"10.0.0.1:2377", "10.0.0.1:2377", ""}},
		{advertise: "fd00::1", want: place{"[fd00::1]:2377", "[::]:2377", ""}},
		{advertise: "[fd00::1]:4000", data: "10.1.1.1", want: place{"[fd00::1]:4000", "[::]:2377", "10.1.1.1"}},
		{remote: "127.0.0.1:2377", want: place{"127.0.0.1:2377", "0.0.0.0:2377", ""}},
	} {
		if got, err := findPlace(c.listen, c.advertise, c.data, c.remote); err != nil || got != c.want {
			t.Errorf("%+v: %+v, %v", c, got, err)
		}
	}
	for _, c := range []struct{ listen, advertise, data, want string }{
		{advertise: "0.0.0.0", want: "must be a non-zero IP address"},
		{advertise: "10.0.0.1:99999", want: `advertise address "10.0.0.1:99999": "99999" is no port`},
		{advertise: "10.0.0.1:0", want: "is no port"},
		{advertise: "nosuchlink0", want: "neither an IP address nor a network interface"},
		{advertise: "lo", want: "has 0 addresses"},
		{advertise: "10.0.0.1", data: "::", want: "data path address must be a non-zero"},
		{advertise: "10.0.0.1", data: "nosuchlink0", want: "data path address"},
		{advertise: "10.0.0.1", listen: "nosuchlink0", want: "listen address"},
		{advertise: "10.0.0.1", listen: "10.0.0.1:x", want: "is no port"},
	} {
		if got, err := findPlace(c.listen, c.advertise, c.data, ""); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %+v, %v; want an error with %q", c, got, err, c.want)
		}
	}
}

func TestCheckInit(t *testing.T) {
	for want, r := range map[string]v1.InitRequest{
		"availability":                         {Availability: "sometimes"},
		"dataPathPort":                         {DataPathPort: 80},
		"defaultAddrPool":                      {DefaultAddrPool: []string{"10.0.0.0"}},
		"10.1.0.0/16 overlaps with 10.0.0.0/8": {DefaultAddrPool: []string{"10.0.0.0/8", "10.1.0.0/16"}},
		"subnetSize":                           {SubnetSize: 31},
		"cacert=FILE":                          {Spec: &v1.ClusterSpec{ExternalCAs: []v1.ExternalCA{{Protocol: "cfssl", URL: "https://ca.example.org/sign"}}}},
		"minimum":                              {Spec: &v1.ClusterSpec{NodeCertExpiry: new(v1.Duration)}},
	} {
		if err := checkInit(&r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want an error with %q", r, err, want)
		}
	}
	r := v1.InitRequest{AutoLock: true, DataPathPort: 4790, SubnetSize: 26, DefaultAddrPool: []string{"10.20.0.0/16", "10.21.0.0/16"}}
	if err := checkInit(&r); err != nil {
		t.Fatal(err)
	}
	if s := r.Spec; !s.AutoLock || s.DataPathPort != 4790 || s.SubnetSize != 26 || s.DefaultAddrPool[0] != "10.20.0.0/16" {
		t.Errorf("the swarm's settings are %+v", s)
	}
}
