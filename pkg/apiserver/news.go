package apiserver

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/json"
	"math/bits"
	"net"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/store"
)

// defaultPort is where managers listen unless their members say otherwise.
const defaultPort = "2377"

// news is what all nodes are told of the swarm, and what follows from it here. It is made once, for all sessions.
type news struct {
	swarm v1.SwarmNews
	body  []byte         // the JSON of swarm
	ttl   time.Duration  // of a session's lease
	nodes int            // that the heartbeat is for
	roots *x509.CertPool // those that are trusted; nil where the swarm has no authority
}

// newsOf is what a snapshot says, and the old news where that is the same.
func newsOf(s *store.Snapshot, old *news) *news {
	n := &news{nodes: roundUp(s.Count(v1.KindNode))}
	if old != nil && n.nodes < old.nodes && roundUp(n.nodes+n.nodes/8) >= old.nodes {
		n.nodes = old.nodes // a node that comes and goes does not change everybody's heartbeat each time
	}
	var spec *v1.ClusterSpec
	if c, ok := store.Get(s, v1.Clusters, v1.ClusterName); ok {
		spec = c.Spec
	}
	if spec != nil && spec.Images != nil {
		n.swarm.Images = new(spec.Images.OrDefault())
	}
	n.swarm.Heartbeat = v1.Duration(v1.HeartbeatPeriod(spec, n.nodes))
	n.ttl = v1.HeartbeatGrace * time.Duration(n.swarm.Heartbeat)
	n.swarm.Managers = managersOf(s)
	if a, ok := store.Get(s, v1.Authorities, v1.AuthorityName); ok && a.Spec != nil {
		n.swarm.Roots, n.swarm.Issuer = v1.TrustedRoots(a), ca.Digest(a.Spec.CA.Cert)
		n.roots = x509.NewCertPool()
		n.roots.AppendCertsFromPEM(n.swarm.Roots)
	}
	n.body, _ = json.Marshal(&n.swarm) // of strings, bytes and a number: it cannot fail
	if old != nil && bytes.Equal(old.body, n.body) {
		return old
	}
	return n
}

// roundUp rounds a number of nodes up to three significant bits, so that what follows from it changes rarely.
func roundUp(n int) int {
	if n <= 8 {
		return 8
	}
	shift := bits.Len(uint(n-1)) - 3
	return ((n-1)>>shift + 1) << shift
}

// managersOf are the managers and where they are reached. Before the first leader has written down the members, and with
// somebody's own etcd, they are the nodes with that role.
func managersOf(s *store.Snapshot) []v1.Peer {
	peers := []v1.Peer{}
	for m := range store.All(s, v1.Members) {
		if addr := managerAddr(s, m.Meta.ID); addr != "" && m.Status.Voter {
			peers = append(peers, v1.Peer{NodeID: m.Meta.ID, Addr: addr})
		}
	}
	if len(peers) > 0 {
		return peers
	}
	for n := range store.All(s, v1.Nodes) {
		if n.Spec == nil || n.Spec.Role != v1.RoleManager {
			continue
		}
		if addr := managerAddr(s, n.Meta.ID); addr != "" {
			peers = append(peers, v1.Peer{NodeID: n.Meta.ID, Addr: addr})
		}
	}
	slices.SortFunc(peers, func(a, b v1.Peer) int { return cmp.Compare(a.NodeID, b.NodeID) })
	return peers
}

// managerAddr is host:port of a manager, or "" where it is not known.
func managerAddr(s *store.Snapshot, id string) string {
	if m, ok := store.Get(s, v1.Members, id); ok && m.Status.Addr != "" {
		return m.Status.Addr
	}
	n, ok := store.Get(s, v1.Nodes, id)
	if !ok || n.Status == nil {
		return ""
	}
	if host := cmp.Or(n.Status.Description.Addr, n.Status.Addr); host != "" {
		return net.JoinHostPort(host, defaultPort)
	}
	return ""
}

// concernsAll tells whether a change may change what all nodes are told.
func concernsAll(c *store.Change) bool {
	switch c.Kind {
	case v1.KindMember, v1.KindCluster, v1.KindAuthority:
		return true
	case v1.KindNode:
		return c.Old == nil || c.New == nil || isManager(c.Old) || isManager(c.New)
	}
	return false
}

func isManager(o v1.Object) bool {
	n, ok := o.(*v1.Node)
	return ok && n.Spec != nil && n.Spec.Role == v1.RoleManager
}

// trusts tells whether the certificate that a session was opened with still counts. It may be of a root that was rotated away:
// the node has another certificate by then, and opens a session with that.
func (n *news) trusts(certificate []*x509.Certificate, now time.Time) bool {
	if n.roots == nil || len(certificate) == 0 {
		return true
	}
	between := x509.NewCertPool()
	for _, c := range certificate[1:] {
		between.AddCert(c)
	}
	_, err := certificate[0].Verify(x509.VerifyOptions{Roots: n.roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

// tell is what the node is to be told of the swarm; nil where it knows. Its lease has to be as long as the heartbeats ask before
// it is told to beat at another pace.
func (b *backend) tell(se *session) (*news, error) {
	n := b.sessions.latest()
	if n == nil || n == se.news {
		return nil, nil
	}
	if !n.trusts(se.certificate, b.server.now()) {
		return nil, errUntrusted
	}
	if !se.fits(n.ttl) {
		return nil, nil
	}
	se.news = n
	return n, nil
}
