package etcd_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/store"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// TestThree: three members form one cluster, all of them take commits, and the death of the leader stops nobody.
func TestThree(t *testing.T) {
	_, a, b, c := three(t)
	a.put("from-a", "1")
	b.put("from-b", "2")
	c.put("from-c", "3")
	for _, h := range []*host{a, b, c} {
		if h.has("from-a") != "1" || h.has("from-b") != "2" || h.has("from-c") != "3" {
			t.Errorf("%s does not have all", h.name)
		}
		h.sees("a* b c")
	}
	a.kill()
	b.until("commits work again", func() bool {
		_, err := b.tryPut("after", "4") // one that was under way with the dead leader may be lost
		return err == nil
	})
	if c.has("after") != "4" || c.has("from-a") != "1" {
		t.Error("c lost something")
	}
	b.until("a is seen dead", func() bool { list := b.members(); return list == "a- b* c " || list == "a- b c* " })
	a.begin()
	if a.has("after") != "4" {
		t.Error("a came back and does not have what was written meanwhile")
	}
}

// TestRemove: members go and come again; what would lose the majority is refused, and who was removed learns it.
func TestRemove(t *testing.T) {
	_, a, b, c := three(t)
	c.kill()
	b.sees("a* b c-")
	if err := a.store.RemoveMember(a.ctx, "b"); !errors.Is(err, etcd.ErrQuorum) {
		t.Errorf("with c dead, b is removed: %v", err)
	}
	if err := a.store.CanRemove(a.ctx, "b"); !errors.Is(err, etcd.ErrQuorum) || !strings.Contains(err.Error(), "2 of 2 managers are needed") {
		t.Errorf("with c dead, b could be removed: %v", err)
	}
	if err := a.store.CanRemove(a.ctx, "c"); err != nil {
		t.Errorf("the dead one cannot be removed: %v", err)
	}
	for range 2 {
		if err := b.store.RemoveMember(a.ctx, "c"); err != nil {
			t.Fatal(err)
		}
	}
	a.sees("a* b")
	if err := c.try(); !errors.Is(err, etcd.ErrRemoved) {
		t.Errorf("the removed one starts again: %v", err)
	}
	if err := a.store.RemoveMember(a.ctx, "a"); err != nil { // hands over first
		t.Fatal(err)
	}
	<-a.store.Done()
	if err := a.store.Err(); !errors.Is(err, etcd.ErrRemoved) {
		t.Errorf("the removed one ended with: %v", err)
	}
	b.sees("b*")
	if err := b.store.RemoveMember(b.ctx, "b"); !errors.Is(err, etcd.ErrQuorum) {
		t.Errorf("the last one is removed: %v", err)
	}
	a.kill()
	a.dir, c.dir = t.TempDir(), t.TempDir()
	a.join(b)
	c.join(b)
	c.sees("a b* c")
	if err := c.store.TransferLead(c.ctx, "a"); err != nil {
		t.Fatal(err)
	}
	b.sees("a* b c")
}

// TestAddMember: it may be repeated until the member was started, and replaces one that lost its data.
func TestAddMember(t *testing.T) {
	l := newLab(t)
	a, b := l.host("a"), l.host("b")
	a.begin()
	first, err := a.store.AddMember(l.ctx, "b", b.url)
	if err != nil {
		t.Fatal(err)
	}
	again, err := a.store.AddMember(l.ctx, "b", b.url)
	if diff := cmp.Diff(first, again); err != nil || diff != "" {
		t.Errorf("repeated: %v %s", err, diff)
	}
	if first.Peers["a"] != a.url || first.Peers["b"] != b.url || len(first.Peers) != 2 {
		t.Errorf("peers: %v", first.Peers)
	}
	a.sees("a* b?-")
	if err := a.store.PromoteMember(l.ctx, "b"); !errors.Is(err, etcd.ErrNotReady) {
		t.Errorf("promoted before it was started: %v", err)
	}
	moved, err := a.store.AddMember(l.ctx, "b", "https://127.0.0.1:1")
	if err != nil || moved.MemberID == first.MemberID || moved.Peers["b"] != "https://127.0.0.1:1" {
		t.Errorf("with another address: %+v %v", moved, err)
	}
	if _, err := a.store.AddMember(l.ctx, "c", "https://127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "address") {
		t.Errorf("two with one address: %v", err)
	}
	for _, bad := range []string{"", "x", "://"} {
		if _, err := a.store.AddMember(l.ctx, "c", bad); err == nil {
			t.Errorf("%q is taken for an address", bad)
		}
	}
	if err := b.try(func(c *etcd.Config) { c.Join = &first }); err == nil {
		t.Error("starts from what is no more")
	}
	b.join(a)
	a.put("x", "1")
	b.kill()
	short, cancel := context.WithTimeout(l.ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := a.store.AddMember(short, "b", b.url); !errors.Is(err, etcd.ErrQuorum) && !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("one of two decides: %v", err)
	}
	if err := b.try(); err != nil {
		t.Fatalf("%v; a: %+v", err, a.members())
	}
	c := l.host("c")
	c.join(a)
	b.kill()
	b.dir = t.TempDir()
	if b.join(c); b.has("x") != "1" {
		t.Error("b came back without its data, and did not get it")
	}
	b.sees("a* b c")
	for name, call := range map[string]func() error{
		"promote": func() error { return a.store.PromoteMember(l.ctx, "z") }, "transfer": func() error { return a.store.TransferLead(l.ctx, "z") },
	} {
		if err := call(); !errors.Is(err, etcd.ErrNoMember) {
			t.Errorf("%s of nobody: %v", name, err)
		}
	}
	for range 2 {
		if err := a.store.PromoteMember(l.ctx, "b"); err != nil { // is one
			t.Error(err)
		}
	}
	if err := a.store.RemoveMember(l.ctx, "z"); err != nil {
		t.Errorf("remove nobody: %v", err)
	}
}

// TestLearner: who is behind by more than the log holds gets a snapshot, and serves all calls before it votes.
func TestLearner(t *testing.T) {
	l := newLab(t)
	a, b := l.host("a"), l.host("b")
	a.begin(func(c *etcd.Config) { c.SnapshotCount = 100 })
	for i := range 400 {
		a.put(fmt.Sprint(i), strings.Repeat("x", 1000))
	}
	b.learn(a)
	a.sees("a* b?")
	if b.has("0") == "" || b.has("399") == "" {
		t.Error("the learner lacks something")
	}
	if b.put("from-b", "1"); a.has("from-b") != "1" {
		t.Error("a learner's commit is lost")
	}
	if err := a.store.TransferLead(l.ctx, "b"); !errors.Is(err, etcd.ErrNotReady) {
		t.Errorf("a learner leads: %v", err)
	}
	b.kill()
	if a.put("alone", "1"); a.has("alone") != "1" { // a learner is no part of the majority
		t.Error("lost")
	}
	if err := b.try(func(c *etcd.Config) { c.ForceNew = true }); err == nil || !strings.Contains(err.Error(), "catching up") {
		t.Errorf("a learner is forced: %v", err)
	}
	if b.begin(); b.has("alone") != "1" {
		t.Error("lost")
	}
	b.promote(a)
	b.sees("a* b")
	c, d := l.host("c"), l.host("d")
	for _, h := range []*host{c, d, l.host("e"), l.host("f"), l.host("g")} { // several join at once
		if _, err := b.store.AddMember(l.ctx, h.name, h.url); err != nil {
			t.Error(err)
		}
	}
	d.join(b) // and the others are not there yet
	d.sees("a* b c?- d e?- f?- g?-")
}

// TestPowerCut: three that were cut off at once come back in any order, and say what they wait for meanwhile.
func TestPowerCut(t *testing.T) {
	l, a, b, c := three(t)
	a.put("x", "1")
	for _, h := range l.hosts {
		h.kill()
	}
	short, cancel := context.WithTimeout(l.ctx, time.Second)
	defer cancel()
	cfg := c.config()
	if _, err := etcd.Start(short, cfg); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2 of 3 are needed, and 1 can be reached; not there: a at "+a.url+", b at "+b.url) {
		t.Errorf("alone: %v", err)
	}
	started := make(chan error, 3)
	for _, h := range []*host{c, a, b} {
		go func() { started <- h.try() }()
	}
	for range l.hosts {
		if err := <-started; err != nil {
			t.Fatal(err)
		}
	}
	if c.put("y", "2"); b.has("x") != "1" || a.has("y") != "2" {
		t.Error("lost")
	}
}

// TestForceNew: after the loss of the majority the one that is left goes on alone, with all it knows, and the others learn that they
// are no part of it.
func TestForceNew(t *testing.T) {
	l, a, b, c := three(t)
	a.put("x", "1")
	if c.has("x") != "1" {
		t.Fatal("not there")
	}
	a.kill()
	b.kill()
	ctx, cancel := context.WithTimeout(l.ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := c.store.Commit(ctx, store.Commit{Ops: []store.Op{{Kind: v1.KindSecret, ID: "z", Section: v1.SectionSpec}}}); err == nil {
		t.Error("one of three decides")
	}
	c.kill()
	d := l.host("d")
	if err := d.try(func(c *etcd.Config) { c.ForceNew = true }); err == nil || !strings.Contains(err.Error(), "no member") {
		t.Errorf("nothing is forced: %v", err)
	}
	c.begin(func(c *etcd.Config) { c.ForceNew = true })
	c.sees("c*")
	if c.put("y", "2"); c.has("x") != "1" || c.has("y") != "2" {
		t.Error("lost")
	}
	c.kill()
	c.begin(func(c *etcd.Config) { c.ForceNew = true }) // again is fine
	c.kill()
	c.begin()
	if err := a.try(); !errors.Is(err, etcd.ErrRemoved) {
		t.Errorf("one that was left behind: %v", err)
	}
	b.dir = t.TempDir()
	if b.join(c); b.has("y") != "2" {
		t.Error("lost")
	}
}

// TestEarlierDirectory: what an earlier version left, without a name and an address of its own, becomes one of several.
func TestEarlierDirectory(t *testing.T) {
	l := newLab(t)
	a, b := l.host("a"), l.host("b")
	a.begin(func(c *etcd.Config) { c.Name, c.Peer = "", nil })
	a.put("x", "1")
	if list, err := a.store.Members(l.ctx); err != nil || len(list) != 1 || list[0].Name != "swarmd" || list[0].URL != "unix://alone" {
		t.Errorf("alone: %+v %v", list, err)
	}
	if _, err := a.store.AddMember(l.ctx, "b", b.url); err == nil {
		t.Error("others join one that cannot be reached")
	}
	a.kill()
	a.begin()
	list, err := a.store.Members(l.ctx)
	if err != nil || len(list) != 1 || list[0].Name != "a" || list[0].URL != a.url || !list[0].Leader {
		t.Errorf("with an address: %+v %v", list, err)
	}
	if b.join(a); b.has("x") != "1" {
		t.Error("lost")
	}
}

// TestMoved: a member whose address changed tells the others.
func TestMoved(t *testing.T) {
	l, a, b, c := three(t)
	c.kill()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.server.Close()
	c.url = "https://" + listener.Addr().String()
	c.listen(listener)
	c.begin()
	for _, h := range []*host{a, b, c} {
		h.until("the new address is known", func() bool {
			list, err := h.store.Members(l.ctx)
			return err == nil && list[2].URL == c.url && list[2].Reachable
		})
	}
	a.kill()
	c.until("c and b decide", func() bool { _, err := c.tryPut("x", "1"); return err == nil })
}

// TestStrangers: only members come in, and a member that is not known is not told that it was removed.
func TestStrangers(t *testing.T) {
	l := newLab(t)
	a := l.host("a")
	a.begin()
	stranger, worker := l.identity("x", ca.RoleManager), l.identity("a", ca.RoleWorker)
	get := func(tls *tls.Config, path string) int {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: tls, DisableKeepAlives: true}}
		resp, err := client.Get(a.url + path)
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	for _, path := range []string{"/members", "/raft", "/raft/stream/message/1", "/raft/probing", "/leases", "/leases/internal", "/version",
		"/members/promote/1", "/members/hashkv", "/downgrade/enabled", "/raft/snapshot"} {
		if got := get(stranger.ClientTLS(), path); got != http.StatusServiceUnavailable {
			t.Errorf("a stranger gets %d for %s", got, path)
		}
		if got := get(worker.ClientTLS(), path); got != http.StatusUnauthorized {
			t.Errorf("a worker gets %d for %s", got, path)
		}
		own := strings.Replace(path, "message/1", "message/"+memberID(a), 1)
		if got := get(a.identity.ClientTLS(), own); got == 0 || got == http.StatusUnauthorized || got == http.StatusServiceUnavailable {
			t.Errorf("a member gets %d for %s", got, path)
		}
	}
}

// TestSilent: a member that does not answer is unreachable, though its connections stand, and comes back.
func TestSilent(t *testing.T) {
	l := newLab(t)
	a, b := l.host("a"), l.host("b")
	a.begin()
	b.join(a)
	a.sees("a* b")
	b.silent.Store(true)
	a.sees("a* b-")
	if err := a.store.CanRemove(l.ctx, "b"); !errors.Is(err, etcd.ErrQuorum) {
		t.Errorf("of two, the silent one can be removed: %v", err)
	}
	b.silent.Store(false)
	a.sees("a* b")
	if err := a.store.CanRemove(l.ctx, "b"); err != nil {
		t.Error(err)
	}
}

// TestCutOff: when a cut of the network is over, raft does not wait for TCP to try the connections again that stood through it.
func TestCutOff(t *testing.T) {
	l := newLab(t)
	a, b := l.host("a"), l.host("b")
	a.begin()
	b.join(a)
	a.sees("a* b")
	b.sees("a* b")
	a.cutOff()
	b.cutOff()
	a.sees("a b-")
	b.sees("a- b")
	a.silent.Store(false)
	b.silent.Store(false)
	a.put("after", "the cut")
	if got := b.has("after"); got != "the cut" {
		t.Errorf("b has %q", got)
	}
}

// memberID is etcd's ID of a host that is alone.
func memberID(h *host) string {
	h.Helper()
	list, err := h.store.Members(h.ctx)
	if err != nil || len(list) != 1 {
		h.Fatalf("%v %v", list, err)
	}
	return list[0].ID
}
