package netplugin

import (
	"os/exec"
	"strings"
	"testing"
)

// nft runs the operator's tool in the namespace.
func nft(t *testing.T, n *namespace, args ...string) string {
	t.Helper()
	var out []byte
	err := n.within(func() (err error) {
		out, err = exec.Command("nft", args...).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("nft %s in %s: %v\n%s", strings.Join(args, " "), n.name, err, out)
	}
	return string(out)
}

func TestOperatorCanListTheMesh(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft, of the package nftables: ", err)
	}
	f := newFabric(t, 2, 1)
	f.publish(spread("tcp", 8080, [2]int{0, 0}))
	for _, tt := range []struct {
		n    *namespace
		want []string
	}{
		{f.nodes[0].host, []string{"table inet swarmd", "elements = { 10.77.0.2 }", "udp dport 4789 ip saddr @peers ip daddr 10.77.0.1 accept", "meta skuid != 4294967295 drop"}},
		{f.nodes[0].linux.router, []string{"ct original zone set", "elements = { 100.64.1.2 . tcp . 80 }", "ct mark set", `type filter hook egress device "vx"`, "meta mark set ct mark"}},
	} {
		ruleset := nft(t, tt.n, "list", "ruleset")
		for _, want := range tt.want {
			if !strings.Contains(ruleset, want) {
				t.Errorf("%s: the ruleset has no %q:\n%s", tt.n.name, want, ruleset)
			}
		}
		nft(t, tt.n, "--json", "list", "ruleset")
	}
}

// An nft that does not understand one of our rules can list nothing at all: it reads every rule first, whatever it is asked.
func TestOperatorCanListTheFirewall(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft, of the package nftables: ", err)
	}
	b := newLab(t)
	for _, tt := range []struct {
		name   string
		config Config
		want   []string
	}{
		{"no port", testConfig(1), []string{"meta l4proto . th dport vmap @ports", "masquerade"}},
		{"ports", everything(), []string{
			"meta l4proto . th dport vmap @ports", "tcp . 8080 : goto pick3", "udp . 8080 : goto pick1", "sctp . 99 : goto pick2",
			"tcp . 8080 . 0x00000002 : 100.64.1.4 . 80", "mod 3 seed 0x1 map @backends",
		}},
	} {
		b.apply(tt.config)
		ruleset := nft(t, b.host, "list", "ruleset")
		for _, want := range tt.want {
			if !strings.Contains(ruleset, want) {
				t.Errorf("%s: the ruleset has no %q:\n%s", tt.name, want, ruleset)
			}
		}
		if got := nft(t, b.host, "list", "tables"); got != "table ip swarmd\n" {
			t.Errorf("%s: tables are %q", tt.name, got)
		}
		if got := nft(t, b.host, "list", "chain", "ip", tableName, "prerouting"); !strings.Contains(got, "vmap @ports") {
			t.Errorf("%s: prerouting is\n%s", tt.name, got)
		}
		nft(t, b.host, "--json", "list", "ruleset")
		if got := nft(t, b.linux.router, "list", "ruleset"); !strings.Contains(got, "no task to task") {
			t.Errorf("%s: the router's ruleset is\n%s", tt.name, got)
		}
	}
}
