package node_test

import (
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/controllers/node"
	"github.com/swarmd/swarmd/pkg/store"
)

// TestMissedByWhoWasAwake: that a node is missed follows from silence, so that the leader must have been awake for as long as a silent
// node is waited for; that it is back, or was never there, follows from what is said.
func TestMissedByWhoWasAwake(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	slow, fast := v1.Duration(5*time.Second), v1.Duration(100*time.Millisecond)
	for _, test := range []struct {
		name    string
		present bool
		down    time.Time
		period  *v1.Duration
		ops     int
		awake   time.Duration
	}{
		{"it is there", true, time.Time{}, nil, 1, 0}, // since now
		{"it is missed", false, time.Time{}, nil, 1, 3 * time.Second},
		{"with slow heartbeats", false, time.Time{}, &slow, 1, 15 * time.Second},
		{"with fast heartbeats", false, time.Time{}, &fast, 1, 3 * time.Second},
		{"it is missed already", false, now, nil, 0, 0},
		{"it is back", true, now, nil, 1, 0},
	} {
		ops := []store.Op{
			{Kind: v1.KindCluster, ID: v1.ClusterName, Section: v1.SectionSpec, If: store.Always(), Meta: &v1.Meta{ID: v1.ClusterName},
				Value: &v1.ClusterSpec{HeartbeatPeriod: test.period}},
			{Kind: v1.KindNode, ID: "n1", Section: v1.SectionSpec, If: store.Always(), Meta: &v1.Meta{ID: "n1"}, Value: &v1.NodeSpec{}},
			{Kind: v1.KindNode, ID: "n1", Section: v1.SectionDesired, If: store.Always(), Value: &v1.NodeDesired{Down: test.down}},
			{Kind: v1.KindNode, ID: "n1", Section: v1.SectionStatus, If: store.Always(), Value: &v1.NodeStatus{State: v1.NodeReady}},
		}
		if test.present {
			ops = append(ops, store.Op{Kind: v1.KindPresence, ID: "n1", Section: v1.SectionStatus, If: store.Always(), Meta: &v1.Meta{ID: "n1"},
				Value: &v1.PresenceStatus{Session: "s"}})
		}
		s, _, err := store.NewSnapshot().With(1, ops)
		if err != nil {
			t.Fatal(err)
		}
		if plan := (node.Rule{}).Decide(now, s, "n1"); len(plan.Ops) != test.ops || plan.Awake != test.awake {
			t.Errorf("%s: %d operations for who was awake for %s, want %d for %s", test.name, len(plan.Ops), plan.Awake, test.ops, test.awake)
		}
	}
}
