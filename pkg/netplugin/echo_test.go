package netplugin

import (
	"testing"
)

// TestEcho asks tasks of another machine on two networks, one with IPv6, in the order in which they go: who is there answers, who is not does
// not, and a network that nobody here is on is not asked on.
func TestEcho(t *testing.T) {
	f := newFleet(t, 2)
	dual, plain, foreign := f.network(1, true), f.network(2, false), f.network(3, false)
	f.task(0, dual, plain)
	there, gone := f.task(1, dual, plain), f.task(1, dual, plain, foreign)
	f.apply()
	reach := func(to testTask, net int, six bool) Reach { return Reach{f.nets[net].ID, f.address(to, net, six)} }
	of := []Reach{
		reach(there, dual, false), reach(there, dual, true), reach(there, plain, false),
		reach(gone, dual, false), reach(gone, dual, true), reach(gone, plain, false), reach(gone, foreign, false),
		{Overlay: "unknown", Address: f.address(there, dual, false)},
	}
	expect := func(what string, answers bool) {
		t.Helper()
		got, err := f.labs[0].linux.Echo(t.Context(), of)
		must(t, err)
		for i, r := range of {
			switch answered, asked := got[r]; {
			case i >= 6 && asked:
				t.Errorf("%s: %v was asked", what, r)
			case i < 6 && (!asked || answered != (i < 3 || answers)):
				t.Errorf("%s: %v was asked %t, and answered %t", what, r, asked, answered)
			}
		}
	}
	expect("both are there", true)
	config := f.config(1)
	for i, task := range config.Tasks {
		if task.ID == gone.id {
			config.Tasks = append(config.Tasks[:i], config.Tasks[i+1:]...)
			break
		}
	}
	f.labs[1].apply(config)
	expect("one has no link any more", false)
}

// TestEchoByGateway: tasks that are on no network, and those without a way out, are asked by way of the mesh.
func TestEchoByGateway(t *testing.T) {
	f := newFabric(t, 2, 2)
	f.configs[1].Tasks[1].Internal = true
	f.publish(spread("tcp", 8080, [2]int{0, 0}, [2]int{1, 0}, [2]int{1, 1}))
	of := []Reach{{Address: meshAddr(1, 0)}, {Address: meshAddr(1, 1)}, {Address: meshAddr(1, 2)}}
	got, err := f.nodes[0].linux.Echo(t.Context(), of)
	must(t, err)
	for i, r := range of {
		if answered, asked := got[r]; !asked || answered != (i < 2) {
			t.Errorf("%v was asked %t, and answered %t", r, asked, answered)
		}
	}
}
