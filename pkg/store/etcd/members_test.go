package etcd_test

import (
	"errors"
	"strings"
	"testing"

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
