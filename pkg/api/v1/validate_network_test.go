package v1

import (
	"strings"
	"testing"
)

// TestOrdinaryNetworks: networks that are not for services to be on are refused, each for what it is.
func TestOrdinaryNetworks(t *testing.T) {
	subnets := func(all ...string) *NetworkSpec {
		n := &NetworkSpec{Driver: "overlay", IPv6: true}
		for _, s := range all {
			n.Subnets = append(n.Subnets, SubnetSpec{Subnet: s})
		}
		return n
	}
	const refused = " has addresses that are not for hosts: want one such as 10.1.0.0/24"
	for _, test := range []struct {
		spec *NetworkSpec
		want string
	}{
		{subnets("10.1.0.0/24", "fd00::/64"), ""}, {subnets("192.168.0.0/16"), ""}, {subnets("2001:db8::/64"), ""}, {subnets("223.255.255.0/24"), ""},
		{subnets("127.1.0.0/24"), "spec.subnets[0].subnet: 127.1.0.0/24" + refused},
		{subnets("169.254.77.0/24"), "spec.subnets[0].subnet: 169.254.77.0/24" + refused},
		{subnets("10.1.0.0/24", "fe80::/64"), "spec.subnets[1].subnet: fe80::/64" + refused},
		{subnets("224.1.0.0/24"), "spec.subnets[0].subnet: 224.1.0.0/24" + refused}, {subnets("250.0.0.0/8"), "spec.subnets[0].subnet: 250.0.0.0/8" + refused},
		{subnets("0.0.0.0/0"), "spec.subnets[0].subnet: 0.0.0.0/0" + refused}, {subnets("::/0"), "spec.subnets[0].subnet: ::/0" + refused},
		{subnets("ff02::/64"), "spec.subnets[0].subnet: ff02::/64" + refused},
		{&NetworkSpec{Driver: "overlay", Ingress: true}, "spec.ingress: is not supported: published ports use the gateway network, whose addresses are " +
			"chosen when the swarm is made: swarmctl swarm init --gateway-pool"},
	} {
		if got := errorText(Validate(&Network{Meta: Meta{Name: "a"}, Spec: test.spec})); got != test.want {
			t.Errorf("%+v:\ngot  %s\nwant %s", test.spec, got, test.want)
		}
	}
}

// TestPredefinedNetworks: no network is called like one of Docker's own, and no service is on one.
func TestPredefinedNetworks(t *testing.T) {
	for _, name := range predefinedNetworks {
		if err := ValidateName(KindNetwork, name); err == nil || err.Error() != "operation is not permitted on predefined "+name+" network: want another name" {
			t.Errorf("%s: %v", name, err)
		}
		if ValidateName(KindNetwork, strings.ToUpper(name)) == nil {
			t.Errorf("a network may be called %s", strings.ToUpper(name))
		}
		s := &Service{Meta: Meta{Name: "a"}, Spec: &ServiceSpec{Task: TaskSpec{Container: ContainerSpec{Image: "a"}, Networks: []NetworkAttachment{{Target: name}}}}}
		Default(s)
		want := "spec.task.networks[0].target: services cannot be attached to the " + name + " network: " + insteadOf[name]
		if got := errorText(Validate(s)); got != want || insteadOf[name] == "" {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if err := ValidateName(KindService, "host"); err != nil {
		t.Error(err)
	}
}
