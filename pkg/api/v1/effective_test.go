package v1

import "testing"

func TestEffective(t *testing.T) {
	bad := &Service{Meta: Meta{ID: "web", Generation: 2}, Spec: &ServiceSpec{Task: TaskSpec{Container: ContainerSpec{Image: "bad"}},
		Endpoint: &EndpointSpec{Ports: []PortConfig{{Target: 80, Published: 81}}}}}
	if Effective(bad) != bad || Effective(nil) != nil {
		t.Error("a service that was not rolled back is another one")
	}
	good := &Service{Meta: bad.Meta, Spec: &ServiceSpec{Task: TaskSpec{Container: ContainerSpec{Image: "good"}}}}
	bad.Desired = &ServiceDesired{RolledBack: &RolledBack{From: RevisionID(bad), Task: good.Spec.Task}}
	back := Effective(bad)
	if RevisionID(back) != RevisionID(good) || bad.Spec.Task.Container.Image != "bad" || len(PublishedPorts(bad)) != 0 {
		t.Errorf("rolled back it is %+v, and publishes %v", back.Spec, PublishedPorts(bad))
	}
	other := *bad
	other.Spec = &ServiceSpec{Task: TaskSpec{Container: ContainerSpec{Image: "other"}}}
	if Effective(&other) != &other {
		t.Error("what the user asked for since is not what the service is")
	}
}
