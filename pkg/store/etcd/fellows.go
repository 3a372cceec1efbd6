package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
)

const (
	// Each other member is asked for the members it knows, which tells that it is there and who else may knock.
	askEvery   = 500 * time.Millisecond
	askTimeout = 1500 * time.Millisecond
	// missedAfter is how long after its last answer a member that does not answer is unreachable. One that refuses is at once.
	missedAfter = 2 * time.Second
	// heardFor is how long a member is known by hearsay: some rounds of asking. One that this member removed is not, at once.
	heardFor = 3 * time.Second
)

// fellows knows the other members: who can be reached, and who is one though this member has not caught up so far.
//
// etcd's own transport tells nobody of a silent member.
type fellows struct {
	server *etcdserver.EtcdServer
	client *http.Client
	back   func(name string) // a member answers again that had been missed
	stop   context.CancelFunc
	wait   sync.WaitGroup

	mu       sync.Mutex
	asking   map[types.ID]bool
	answered map[types.ID]time.Time // zero where it refused since
	spoke    map[types.ID]time.Time // the same, whatever was since
	heard    map[types.ID]hearsay
}

// hearsay is what others know of a member.
type hearsay struct {
	name string
	at   time.Time
}

// newFellows begins to ask, until close.
func newFellows(server *etcdserver.EtcdServer, p *Peer, back func(name string)) (*fellows, error) {
	config, err := p.clientTLS()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &fellows{
		server: server, stop: cancel, back: back,
		client: &http.Client{
			Timeout:       askTimeout,
			Transport:     &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: 1, IdleConnTimeout: 10 * askEvery},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		asking: make(map[types.ID]bool), answered: make(map[types.ID]time.Time), spoke: make(map[types.ID]time.Time),
		heard: make(map[types.ID]hearsay),
	}
	f.wait.Go(func() { f.run(ctx) })
	return f, nil
}

// clientTLS is for this member's own questions. etcd has its own, the same.
func (p *Peer) clientTLS() (*tls.Config, error) {
	_, _, roots := p.Certificate()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return nil, errors.New("store: etcd: no root certificates to know other members by")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: peerName,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			chain, key, _ := p.Certificate()
			pair, err := tls.X509KeyPair(chain, key)
			return &pair, err
		},
	}, nil
}

func (f *fellows) close() {
	f.stop()
	f.wait.Wait()
	f.client.CloseIdleConnections()
}

func (f *fellows) run(ctx context.Context) {
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for {
		f.askAll(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (f *fellows) askAll(ctx context.Context) {
	for _, m := range f.others() {
		f.mu.Lock()
		busy := f.asking[m.ID]
		f.asking[m.ID] = true
		f.mu.Unlock()
		if !busy {
			f.wait.Go(func() { f.ask(ctx, m) })
		}
	}
}

// others are the other members that this one knows itself.
func (f *fellows) others() []*membership.Member {
	var others []*membership.Member
	for _, m := range f.server.Cluster().Members() {
		if m.ID != f.server.MemberID() && len(m.PeerURLs) > 0 {
			others = append(others, m)
		}
	}
	return others
}

// answerNow asks members, and tells which of them answered.
func (f *fellows) answerNow(ctx context.Context, members []*membership.Member) map[types.ID]bool {
	answers := make([]bool, len(members))
	var wait sync.WaitGroup
	for i, m := range members {
		wait.Go(func() { answers[i] = f != nil && f.ask(ctx, m) })
	}
	wait.Wait()
	answered := make(map[types.ID]bool)
	for i, m := range members {
		answered[m.ID] = answers[i]
	}
	return answered
}

// ask asks a member once, and tells whether it answered.
func (f *fellows) ask(ctx context.Context, m *membership.Member) bool {
	list, err := f.membersOf(ctx, m)
	now := time.Now()
	if err == nil && f.missed(m.ID, now) {
		name, _ := nameOf(m)
		f.back(name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asking[m.ID] = false
	switch {
	case err == nil:
		f.answered[m.ID] = now
		for _, known := range list {
			name, _ := nameOf(known)
			f.heard[known.ID] = hearsay{name, now}
		}
	case !timedOut(err):
		f.answered[m.ID] = time.Time{}
	}
	for id, h := range f.heard {
		if now.Sub(h.at) > heardFor {
			delete(f.heard, id)
		}
	}
	return err == nil
}

// missed tells whether a member that answers now was missed before that, and notes the answer.
func (f *fellows) missed(id types.ID, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, ever := f.spoke[id]
	f.spoke[id] = now
	return ever && now.Sub(before) > missedAfter
}

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// membersOf asks a member for the members that it knows.
func (f *fellows) membersOf(ctx context.Context, m *membership.Member) ([]*membership.Member, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.PeerURLs[0]+"/members", http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("X-Etcd-Cluster-ID") != f.server.Cluster().ID().String() {
		return nil, fmt.Errorf("%s", resp.Status)
	}
	return readMembers(resp.Body)
}

// knows tells whether there is a member of that name, as far as this one or those it can reach know.
func (f *fellows) knows(name string) bool {
	for _, m := range f.server.Cluster().Members() {
		if known, _ := nameOf(m); known == name {
			return true
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, h := range f.heard {
		if h.name == name && f.believes(id, h) {
			return true
		}
	}
	return false
}

// believes tells whether hearsay still counts. It is called with mu held.
func (f *fellows) believes(id types.ID, h hearsay) bool {
	return time.Since(h.at) <= heardFor && !f.server.IsIDRemoved(uint64(id))
}

// nameFor is the name of the member with an ID, or empty.
func (f *fellows) nameFor(id types.ID) string {
	if m := f.server.Cluster().Member(id); m != nil {
		name, _ := nameOf(m)
		return name
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if h, ok := f.heard[id]; ok && f.believes(id, h) {
		return h.name
	}
	return ""
}

// reachable tells whether a member answered lately. A nil fellows reaches nobody but the member itself.
func (f *fellows) reachable(id types.ID) bool {
	if f == nil {
		return false
	}
	if id == f.server.MemberID() {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Since(f.answered[id]) <= missedAfter
}

// sayRemoved asks the other members for certain whether this one was removed: one that knows answers 410 to its stream.
func (f *fellows) sayRemoved(ctx context.Context) bool {
	self := f.server.MemberID().String()
	for _, m := range f.others() {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.PeerURLs[0]+"/raft/stream/message/"+self, http.NoBody)
		if err != nil {
			continue
		}
		cluster := f.server.Cluster().ID().String()
		for key, value := range map[string]string{"X-Server-From": self, "X-Raft-To": "0", "X-Etcd-Cluster-ID": cluster} {
			req.Header.Set(key, value)
		}
		setVersions(req.Header)
		resp, err := f.client.Do(req)
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusGone && resp.Header.Get("X-Etcd-Cluster-ID") == cluster {
			return true
		}
	}
	return false
}
