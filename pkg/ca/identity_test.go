package ca

import (
	"bytes"
	"crypto/tls"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestIdentity(t *testing.T) {
	a, b := newRoot(t), newRoot(t)
	chain, key := a.sign(t, manager("n1"), time.Now(), 2*time.Hour)
	i := identity(t, chain, key, join(a.cert, b.cert))
	gotChain, gotKey, gotRoots := i.PEM()
	if !bytes.Equal(gotChain, chain) || !bytes.Equal(gotKey, key) || !bytes.Equal(gotRoots, join(a.cert, b.cert)) {
		t.Error("the PEM is not what went in")
	}
	gotKey[0] = 'x' // whoever gets a copy may do with it what it wants
	if _, again, _ := i.PEM(); !bytes.Equal(again, key) {
		t.Error("the identity's key can be changed from outside")
	}
	if i.Subject() != manager("n1") || i.Issuer() != Digest(a.cert) || !slices.Equal(i.RootDigests(), []string{Digest(a.cert), Digest(b.cert)}) ||
		!i.Expires().Equal(parse(t, chain).NotAfter) {
		t.Errorf("%+v of %s, trusting %v until %s", i.Subject(), i.Issuer(), i.RootDigests(), i.Expires())
	}
}

// TestIssuer: a certificate of the new root is so by its signature, also where the old root is trusted first, or alone.
func TestIssuer(t *testing.T) {
	a, b := newRoot(t), newRoot(t)
	cross := crossSign(t, a, b)
	for name, c := range map[string]struct {
		i    *Identity
		want root
	}{
		"old":                   {a.identity(t, worker("n1"), a.cert), a},
		"old, both":             {a.identity(t, worker("n1"), join(b.cert, a.cert)), a},
		"new, both":             {b.identity(t, worker("n1"), join(a.cert, b.cert), cross...), b},
		"new":                   {b.identity(t, worker("n1"), b.cert), b},
		"new by the old, alone": {b.identity(t, worker("n1"), a.cert, cross...), a},
	} {
		if got := c.i.Issuer(); got != Digest(c.want.cert) {
			t.Errorf("%s: %s, want %s", name, got, Digest(c.want.cert))
		}
	}
}

func TestWhatDoesNotFitTogether(t *testing.T) {
	a, b := newRoot(t), newRoot(t)
	chain, key := a.sign(t, manager("n1"), time.Now(), 2*time.Hour)
	i := identity(t, chain, key, a.cert)
	otherChain, otherKey := a.sign(t, manager("n2"), time.Now(), 2*time.Hour)
	elsewhere, elsewhereKey := a.sign(t, Subject{"n1", RoleManager, "c2"}, time.Now(), 2*time.Hour)
	newer, newerKey := b.sign(t, manager("n1"), time.Now(), 2*time.Hour)
	for want, c := range map[string][3][]byte{
		"not the key of the certificate": {chain, otherKey, a.cert}, "signed by no root": {newer, newerKey, a.cert},
		"roots holds no": {chain, key, nil}, "certificate holds no": {nil, key, a.cert}, "key holds no": {chain, nil, a.cert},
		"is no CA's certificate": {chain, key, chain}, "is of n2": {otherChain, otherKey, a.cert}, "in the swarm c2": {elsewhere, elsewhereKey, a.cert},
		"is a CA's, not one of": {a.cert, a.key, a.cert}, "holds no certificate": {[]byte("x"), key, a.cert},
		"more than 8": {chain, key, bytes.Repeat(a.cert, 9)}, "bytes, at most": {bytes.Repeat([]byte("\n"), maxPEM+1), key, a.cert},
	} {
		if want == "is a CA's, not one of" { // it names no role either, which is found first
			want = "does not name one role"
		}
		refused(t, i.Update(c[0], c[1], c[2]), want)
		if gotChain, gotKey, gotRoots := i.PEM(); !bytes.Equal(join(gotChain, gotKey, gotRoots), join(chain, key, a.cert)) {
			t.Fatalf("%s: a refused update changed something", want)
		}
	}
	promoted, promotedKey := a.sign(t, worker("n1"), time.Now(), 3*time.Hour)
	if err := i.Update(promoted, promotedKey, join(b.cert, a.cert)); err != nil || i.Subject().Role != RoleWorker || len(i.RootDigests()) != 2 {
		t.Errorf("another role: %v %+v", err, i.Subject())
	}
}

// TestTimesOfAnIdentity: one whose time is not now is taken, and says so when asked.
func TestTimesOfAnIdentity(t *testing.T) {
	r, now := newRoot(t), time.Now()
	long := custom(t, ecKey(t, curve), from(now.Add(-minRootLife)))
	for name, c := range map[string]struct {
		root root
		then time.Time
		want string
	}{
		"good": {r, now, ""}, "expired": {long, now.Add(-4 * time.Hour), "was valid until"}, "early": {r, now.Add(3 * time.Hour), "is not valid until"},
	} {
		chain, key := c.root.sign(t, worker("n1"), c.then, 2*time.Hour)
		err := identity(t, chain, key, c.root.cert).CheckTime(time.Now())
		if c.want == "" && err != nil {
			t.Errorf("%s: %v", name, err)
		} else if c.want != "" {
			refused(t, err, "the certificate of this node "+c.want)
			refused(t, err, "is this machine's clock right?")
			if !errors.As(err, new(*TimeError)) {
				t.Errorf("%s: %T", name, err)
			}
		}
	}
}

func TestRenewAt(t *testing.T) {
	r, now := newRoot(t), time.Now().Truncate(time.Second)
	rapid.Check(t, func(rt *rapid.T) {
		life := time.Duration(rapid.Int64Range(int64(time.Minute), int64(400*24*time.Hour)).Draw(rt, "life")).Truncate(time.Second)
		chain, key := r.sign(t, worker("n1"), now, life)
		at := identity(t, chain, key, r.cert).RenewAt(rapid.Float64Range(-1, 2).Draw(rt, "random"))
		if at.Before(now.Add(life/2)) || at.After(now.Add(life*8/10+time.Second)) {
			rt.Fatalf("renews after %s of %s", at.Sub(now), life)
		}
	})
}

// TestUpdatesAreWhole: whoever looks meanwhile sees one state or another, never a mixture.
func TestUpdatesAreWhole(t *testing.T) {
	a, b := newRoot(t), newRoot(t)
	var states [2][3][]byte
	for n, r := range []root{a, b} {
		chain, key := r.sign(t, manager("n1"), time.Now(), 2*time.Hour)
		states[n] = [3][]byte{chain, key, r.cert}
	}
	i := identity(t, states[0][0], states[0][1], states[0][2])
	var all sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				chain, key, roots := i.PEM()
				if _, err := tls.X509KeyPair(chain, key); err != nil {
					t.Error(err)
				}
				if _, err := NewIdentity(chain, key, roots); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for n := range 200 {
		s := states[n%2]
		if err := i.Update(s[0], s[1], s[2]); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	all.Wait()
}
