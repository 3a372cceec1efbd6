package v1

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDefault(t *testing.T) {
	for _, test := range []struct{ kind, in, want string }{
		{"Service", `{"task":{"container":{"image":"a"}}}`,
			`{"mode":"replicated","replicas":1,"task":{"container":{"image":"a","stopGracePeriod":"10s"},` +
				`"restartPolicy":{"condition":"any","delay":"5s"}},` +
				`"update":{"parallelism":1,"failureAction":"pause","monitor":"5s","order":"stop-first","progressDeadline":"10m0s"},` +
				`"rollback":{"parallelism":1,"failureAction":"pause","monitor":"5s","order":"stop-first","progressDeadline":"10m0s"},"endpoint":{"mode":"vip"}}`},
		{"Service", `{"replicas":0,"task":{"container":{"image":"a","stopGracePeriod":"0s"},"restartPolicy":{"condition":"none","delay":"0s"}},` +
			`"update":{"parallelism":0,"monitor":"0s","failureAction":"continue","order":"start-first"},"rollback":{"parallelism":2},` +
			`"endpoint":{"mode":"dnsrr","ports":[{"target":80},{"target":53,"protocol":"udp","mode":"host"}]}}`,
			`{"mode":"replicated","replicas":0,"task":{"container":{"image":"a","stopGracePeriod":"0s"},` +
				`"restartPolicy":{"condition":"none","delay":"0s"}},` +
				`"update":{"parallelism":0,"failureAction":"continue","monitor":"0s","order":"start-first","progressDeadline":"10m0s"},` +
				`"rollback":{"parallelism":2,"failureAction":"pause","monitor":"5s","order":"stop-first","progressDeadline":"10m0s"},` +
				`"endpoint":{"mode":"dnsrr","ports":[{"protocol":"tcp","target":80,"mode":"ingress"},{"protocol":"udp","target":53,"mode":"host"}]}}`},
		{"Service", `{"mode":"replicated-job","replicas":7,"task":{"container":{"image":"a"}}}`,
			`{"mode":"replicated-job","replicas":7,"maxConcurrent":7,"task":{"container":{"image":"a","stopGracePeriod":"10s"},` +
				`"restartPolicy":{"condition":"any","delay":"5s"}},"endpoint":{"mode":"vip"}}`},
		{"Service", `{"mode":"global-job","task":{"container":{"image":"a"}}}`,
			`{"mode":"global-job","task":{"container":{"image":"a","stopGracePeriod":"10s"},` +
				`"restartPolicy":{"condition":"any","delay":"5s"}},"endpoint":{"mode":"vip"}}`},
		{"Service", `{"mode":"global-job","task":{"container":{"image":"a","mounts":[{"source":"v","target":"/v"}],` +
			`"secrets":[{"source":"s"},{"source":"s","target":"x/y","uid":"7","mode":0}],"configs":[{"source":"c"},{"source":"c","target":"/etc/c"}]}}}`,
			`{"mode":"global-job","task":{"container":{"image":"a","stopGracePeriod":"10s","mounts":[{"type":"volume","source":"v","target":"/v"}],` +
				`"secrets":[{"source":"s","target":"/run/secrets/s","uid":"0","gid":"0","mode":292},` +
				`{"source":"s","target":"/run/secrets/x/y","uid":"7","gid":"0","mode":0}],` +
				`"configs":[{"source":"c","target":"/c","uid":"0","gid":"0","mode":292},{"source":"c","target":"/etc/c","uid":"0","gid":"0","mode":292}]},` +
				`"restartPolicy":{"condition":"any","delay":"5s"}},"endpoint":{"mode":"vip"}}`},
		{"Network", `null`, `{"driver":"overlay"}`},
		{"Volume", `{}`, `{"driver":"local"}`},
		{"Node", `{}`, `{"role":"worker","availability":"active"}`},
		{"Node", `{"role":"manager","availability":"drain","index":3}`, `{"role":"manager","availability":"drain","index":3}`},
		{"Cluster", `{}`, `{"taskHistoryLimit":5,"gatewayPool":"100.64.0.0/10","heartbeatPeriod":"1s","nodeCertExpiry":"2160h0m0s","defaultAddrPool":["10.0.0.0/8"],"subnetSize":24,"raft":{"snapshotInterval":10000},"snapshots":{"every":"12h0m0s","keep":5}}`},
		{"Secret", `null`, `{}`},
		{"Config", `{"data":"aGk="}`, `{"data":"aGk="}`},
	} {
		m, err := DecodeManifest([]byte(fmt.Sprintf(`{"apiVersion":"swarm/v1","kind":%q,"spec":%s}`, test.kind, test.in)))
		if err != nil {
			t.Fatal(err)
		}
		d, _ := Describe(m.Kind)
		for _, time := range []string{"once", "twice"} {
			Default(m.Object)
			if got, _ := json.Marshal(d.Section(m.Object, SectionSpec)); string(got) != test.want {
				t.Errorf("%s %s, %s:\ngot  %s\nwant %s", test.kind, test.in, time, got, test.want)
			}
		}
	}
}

// TestDefaultLeavesTheSwarmsObjects makes sure that what rules and agents wrote stays as it is.
func TestDefaultLeavesTheSwarmsObjects(t *testing.T) {
	task := &Task{Desired: &TaskDesired{}}
	Default(task)
	if diff := cmp.Diff(&Task{Desired: &TaskDesired{}}, task); diff != "" {
		t.Error(diff)
	}
}

func TestDefaultNamesTheCluster(t *testing.T) {
	c := new(Cluster)
	Default(c)
	if c.Meta.Name != ClusterName || Validate(c) != nil {
		t.Errorf("cluster %+v: %v", c, Validate(c))
	}
}

// TestRevisionOfWhatWasLeftOut makes sure that writing a default out does not look like a change of the service.
func TestRevisionOfWhatWasLeftOut(t *testing.T) {
	left := &Service{Meta: Meta{ID: "s"}, Spec: &ServiceSpec{Task: TaskSpec{Container: ContainerSpec{Image: "a"}}}}
	grace, delay := defaultGracePeriod, defaultDelay
	written := &Service{Meta: Meta{ID: "s"}, Spec: &ServiceSpec{
		Task: TaskSpec{Container: ContainerSpec{Image: "a", StopGracePeriod: &grace},
			RestartPolicy: &RestartPolicy{Condition: RestartAny, Delay: &delay}},
		Endpoint: &EndpointSpec{Mode: EndpointVIP},
	}}
	Default(left)
	Default(written)
	if RevisionID(left) != RevisionID(written) {
		t.Error("the revisions differ")
	}
}
