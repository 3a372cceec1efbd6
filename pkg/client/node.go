package client

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// NodeClient is an agent's side of its connection to a manager.
type NodeClient struct {
	client  *Client
	path    string
	session atomic.Pointer[host] // where the latest session was opened: whoever holds it asks for streams

	following sync.Mutex
	followed  chan uint64 // holds the newest number that is still to be sent
}

// Node is the agent's side for the node with the ID: the same for the same client and ID.
func (c *Client) Node(id string) *NodeClient {
	n, _ := c.nodes.LoadOrStore(id, &NodeClient{client: c, path: "/v1/nodes/" + url.PathEscape(id), followed: make(chan uint64, 1)})
	return n.(*NodeClient)
}

// OnThisMachine tells whether the latest session was opened over a socket of this machine.
func (n *NodeClient) OnThisMachine() bool {
	h := n.session.Load()
	return h != nil && h.socket()
}

// Followed tells the manager of the session that the node's network and names follow its message of Peers with that number, and all before
// it. It does not block: the session sends the newest number as soon as it can.
func (n *NodeClient) Followed(number uint64) {
	n.following.Lock()
	defer n.following.Unlock()
	select {
	case <-n.followed: // an older one, which the newer one says too
	default:
	}
	n.followed <- number
}

// Report tells the manager what was observed. Tasks that the result calls unknown are not, or no longer, the node's.
// Reporting the same again does nothing.
func (n *NodeClient) Report(ctx context.Context, r v1.StatusReport) (v1.StatusResult, error) {
	var result v1.StatusResult
	err := n.client.Do(ctx, http.MethodPost, n.path+"/status", r, &result)
	return result, err
}

// Certificate asks for the node's next certificate, in the role that its spec says.
func (n *NodeClient) Certificate(ctx context.Context, r v1.CertificateRequest) (v1.Certificate, error) {
	var cert v1.Certificate
	err := n.client.Do(ctx, http.MethodPost, n.path+"/certificate", r, &cert)
	return cert, err
}

// Membership asks for a manager's place among the members of etcd. Asking again gives the same.
func (n *NodeClient) Membership(ctx context.Context, r v1.MembershipRequest) (v1.Membership, error) {
	var m v1.Membership
	err := n.client.Do(ctx, http.MethodPost, n.path+"/membership", r, &m)
	return m, err
}

// Leave tells the swarm that the node goes on purpose, and need not be waited for.
func (n *NodeClient) Leave(ctx context.Context) error {
	return n.client.Do(ctx, http.MethodPost, n.path+"/leave", nil, nil)
}

// Stream sends the records of a stream that the manager asked for, to the manager that the latest session is with. An error among the records ends the stream and is told to
// whoever reads it. It returns when the records end, or at once when nobody reads them any more (a *v1.Problem, 404 or 410):
// the caller then ends the context that the records come from.
func (n *NodeClient) Stream(ctx context.Context, id string, records iter.Seq2[v1.LogRecord, error]) error {
	var hosts []*host
	if h := n.session.Load(); h != nil {
		hosts = []*host{h}
	}
	r, w := io.Pipe()
	defer r.CloseWithError(io.ErrClosedPipe)
	go func() { w.CloseWithError(writeRecords(w, records)) }()
	resp, _, err := n.client.send(ctx, request{
		method: http.MethodPost, path: n.path + "/streams/" + url.PathEscape(id), body: once(r), hosts: hosts,
	})
	if err != nil {
		return err
	}
	drain(resp.Body)
	return nil
}

// streamLine is one line of a stream: a record, or why there are no more.
type streamLine struct {
	*v1.LogRecord
	Error string `json:"error,omitempty"`
}

func writeRecords(w io.Writer, records iter.Seq2[v1.LogRecord, error]) error {
	encoder := json.NewEncoder(w)
	for record, err := range records {
		line := streamLine{LogRecord: &record}
		if err != nil {
			line = streamLine{Error: err.Error()}
		}
		if failed := encoder.Encode(line); failed != nil {
			return failed
		}
		if err != nil {
			return nil
		}
	}
	return nil
}
