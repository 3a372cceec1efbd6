package etcd

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/etcdhttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.uber.org/zap"
)

// Peer is how a member and its fellows reach each other.
type Peer struct {
	// URL is https://host:port of this member, as others reach it. It may be another one after a restart.
	URL string
	// Certificate tells what this member shows its fellows, and the roots that it trusts, in PEM. It is asked once a second; a new
	// certificate counts for connections from then on, new roots only after a restart of the store. The certificates of all members
	// need the DNS name "swarm-manager".
	Certificate func() (chain, key, roots []byte)
	// Serve is called once, while Start waits, with the member's PeerHandler: a member needs to be reached by its fellows to become
	// ready. Where it is nil, others reach the member only once Start has returned.
	Serve func(http.Handler)
	// Fellow tells whether a node of that name is believed to be a member. It is asked for as long as this member knows nothing itself, as
	// one that was killed before it had read a word: its log holds no members, and it would refuse the one to learn them from. Nil is nobody.
	Fellow func(name string) bool
}

// PeerPaths are what members ask each other for: where PeerHandler belongs. A path with a slash at its end stands for all below
// it.
//
// The http.Server has PeerContext as its ConnContext. Whoever mounts the handler lets in every certificate of the swarm that its TLS has verified, and refuses others with 401 or 503: to a
// member, 403 and 410 say that it was removed from the cluster, and it stops for good.
var PeerPaths = []string{"/raft", "/raft/", "/members", "/members/", "/leases", "/leases/", "/version", "/downgrade/enabled"}

const (
	// peerName is a name in the certificates of managers only.
	peerName = "swarm-manager"
	// peerPatience is how long a peer's connection may stand still. etcd sets it at its own listeners.
	peerPatience = 10 * time.Second
	// maxMemberList bounds what a member tells of the others.
	maxMemberList = 1 << 20
)

// PeerHandler answers raft and its fellows at PeerPaths: only to managers, by the certificate that they showed, that are members
// of the cluster, as this member or one that it can reach knows, and speak for themselves. The TLS below must have verified the certificate. It is nil where
// the member has no Peer.
func (s *Store) PeerHandler() http.Handler {
	if s.member == nil || s.member.handler == nil {
		return nil
	}
	return s.member.handler
}

// peerHandler lets members in.
type peerHandler struct {
	server  *etcdserver.EtcdServer
	fellows *fellows
	held    *peerConns
	fellow  func(name string) bool // nil is nobody
	next    http.Handler
}

func newPeerHandler(log *zap.Logger, server *etcdserver.EtcdServer, f *fellows, held *peerConns, fellow func(string) bool) *peerHandler {
	return &peerHandler{server, f, held, fellow, etcdhttp.NewPeerHandler(log, server)}
}

// ServeHTTP implements http.Handler.
func (h *peerHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := peerOf(r)
	switch {
	case name == "":
		http.Error(w, "a manager's certificate is needed", http.StatusUnauthorized)
	case h.fellows.knows(name):
		defer h.held.hold(name, r)()
		r = withPatience(w, r)
		if err := h.checkSpeaker(name, r); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		h.next.ServeHTTP(newPeerWriter(w), r)
	case h.fellow != nil && len(h.server.Cluster().Members()) == 0 && h.fellow(name):
		defer h.held.hold(name, r)()
		h.next.ServeHTTP(newPeerWriter(w), withPatience(w, r)) // whose ID is whose is not known yet
	case h.removed(r):
		w.Header().Set("X-Etcd-Cluster-ID", h.server.Cluster().ID().String())
		w.Header().Set("X-Server-Version", version.Version) // else etcd takes it for an answer of long ago
		http.Error(w, "removed member", http.StatusGone)
	default: // not 403, which would tell a member that this one does not know yet that it was removed
		http.Error(w, "this member does not know "+name+" as a member", http.StatusServiceUnavailable)
	}
}

// peerOf is the node of the manager's certificate that came with a request.
func peerOf(r *http.Request) string {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return ""
	}
	subject := r.TLS.PeerCertificates[0].Subject
	if !slices.Contains(subject.OrganizationalUnit, peerName) {
		return ""
	}
	return subject.CommonName
}

// removed tells whether a member that was removed asks.
func (h *peerHandler) removed(r *http.Request) bool {
	id, err := types.IDFromString(r.Header.Get("X-Server-From"))
	return err == nil && h.server.IsIDRemoved(uint64(id))
}

// peerWriter gives each write a time to end by, as etcd's own listeners do: else one to a host that was cut off would hold the
// connection, and with it raft's messages, for as long as TCP tries. What fits into the kernel's buffer is never late: see peerConns.
type peerWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func newPeerWriter(w http.ResponseWriter) *peerWriter {
	return &peerWriter{w, http.NewResponseController(w)}
}

// Write implements io.Writer.
func (w *peerWriter) Write(data []byte) (int, error) {
	_ = w.control.SetWriteDeadline(time.Now().Add(peerPatience)) // where the connection has none, TCP's own counts
	return w.ResponseWriter.Write(data)
}

// Flush implements http.Flusher, which etcd wants, whatever is around the connection's own writer.
func (w *peerWriter) Flush() {
	_ = w.control.Flush() // a connection that is gone tells at the next write
}

// Unwrap is for http.ResponseController.
func (w *peerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// peerBody does for reading what peerWriter does for writing: a snapshot may take long, but must not stand still.
type peerBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func withPatience(w http.ResponseWriter, r *http.Request) *http.Request {
	if r.Body == nil || r.Body == http.NoBody {
		return r
	}
	next := r.WithContext(r.Context())
	next.Body = &peerBody{r.Body, http.NewResponseController(w)}
	return next
}

// Read implements io.Reader.
func (b *peerBody) Read(data []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(peerPatience)) // where the connection has none, TCP's own counts
	n, err := b.ReadCloser.Read(data)
	if err != nil {
		_ = b.control.SetReadDeadline(time.Time{}) // for the next request
	}
	return n, err
}

// unstarted begins what stands as the client URL of a member that was added and has not been started yet. etcd knows the name of a
// member only once it runs, and takes one that has a name for one that runs.
const unstarted = "swarm-node:"

// nameOf is the name of a member, and whether it was ever started.
func nameOf(m *membership.Member) (name string, started bool) {
	if m.Name != "" {
		return m.Name, true
	}
	for _, u := range m.ClientURLs {
		if name, ok := strings.CutPrefix(u, unstarted); ok {
			return name, false
		}
	}
	return m.ID.String(), false
}

// readMembers reads what a member answers at /members.
func readMembers(r io.Reader) ([]*membership.Member, error) {
	var list []*membership.Member
	err := json.NewDecoder(io.LimitReader(r, maxMemberList)).Decode(&list)
	list = slices.DeleteFunc(list, func(m *membership.Member) bool { return m == nil })
	return list, err
}
