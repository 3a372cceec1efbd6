package daemon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
)

// tendCertificate asks for the next certificate when it is time, and says when to look again.
func (n *node) tendCertificate(ctx context.Context, retry *backoff, not *time.Time) time.Duration {
	now := time.Now()
	why := n.wantsCertificate(now)
	if why == "" {
		retry.reset()
		*not = time.Time{}
		return n.untilRenewal(now)
	}
	if wait := not.Sub(now); wait > 0 {
		return wait
	}
	if !n.link.known() {
		return time.Second // until a manager is known, there is nobody to ask
	}
	err := n.renew(ctx)
	if err == nil {
		n.log.Info("this node has a new certificate", "why", why, "expires", n.certificate().Expires())
		n.poke() // it may be one for another role
		if n.wantsCertificate(now) == "" {
			return 0
		}
		err = errors.New("it is not the one that is wanted yet")
	}
	if ctx.Err() == nil {
		n.log.Warn("no new certificate; trying again", "why", why, "err", err)
	}
	most := retryMost
	if why == whyTime {
		most = time.Hour
	}
	retry.most = most
	wait := retry.pause()
	*not = now.Add(wait)
	return wait
}

// Why a certificate is wanted.
const (
	whyTime   = "the old one has served most of its time"
	whyIssuer = "the swarm moves to another root certificate"
	whyRole   = "the node's role has changed"
)

// wantsCertificate says why the node needs another certificate, "" where it does not.
func (n *node) wantsCertificate(now time.Time) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cert == nil || n.locked {
		return ""
	}
	role := roleOf(n.cert.Subject().Role)
	switch {
	// A manager that is to be a worker stays one until the others have removed it: they may need it for that.
	case n.wish != "" && n.wish != role && (n.manager == nil || n.wish == v1.RoleManager):
		return whyRole
	case n.issuer != "" && n.cert.Issuer() != n.issuer:
		return whyIssuer
	case !now.Before(n.renewAt):
		return whyTime
	}
	return ""
}

func (n *node) untilRenewal(now time.Time) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cert == nil {
		return lookAgain
	}
	return min(lookAgain, max(time.Second, n.renewAt.Sub(now)))
}

// renew gets a certificate with a new key from a manager.
func (n *node) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	managers, err := n.link.managers(ctx)
	if err != nil {
		return fmt.Errorf("no manager is known: %w", err)
	}
	key, err := ca.NewKey()
	if err != nil {
		return err
	}
	csr, err := ca.NewRequest(key)
	if err != nil {
		return err
	}
	got, err := managers.Certificate(ctx, v1.CertificateRequest{CSR: csr})
	if err != nil {
		return err
	}
	return n.adopt(got.Chain, key, got.Roots)
}

// adopt makes a certificate the node's, on disk first.
func (n *node) adopt(chain, key, roots []byte) error {
	next, err := ca.NewIdentity(chain, key, roots)
	if err != nil {
		return err
	}
	cert := n.certificate()
	if had, got := cert.Subject(), next.Subject(); had.ID != got.ID || had.Cluster != got.Cluster {
		return fmt.Errorf("the certificate that came is of node %s in swarm %s", got.ID, got.Cluster)
	}
	n.files.Lock()
	defer n.files.Unlock()
	n.mu.Lock()
	unlock := n.unlock
	n.mu.Unlock()
	if err := n.certs.save(chain, key, roots, unlock); err != nil { // a worker's is opened once it has no member any more
		return err
	}
	if err := cert.Update(chain, key, roots); err != nil {
		return err
	}
	n.mu.Lock()
	n.renewAt = cert.RenewAt(rand.Float64())
	n.mu.Unlock()
	n.link.refresh()
	return n.change(func(id *identity) { id.Role = roleOf(cert.Subject().Role) })
}

func (n *node) certificate() *ca.Identity {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cert
}
