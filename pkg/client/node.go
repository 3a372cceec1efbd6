package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// NodeClient is an agent's side of its connection to a manager.
type NodeClient struct {
	client *Client
	path   string
}

// Node is the agent's side for the node with the ID.
func (c *Client) Node(id string) *NodeClient {
	return &NodeClient{c, "/v1/nodes/" + url.PathEscape(id)}
}

// Session opens the node's session and yields what the manager assigns to it, the first of them Complete. The node is ready
// while the session is open. It ends with an error when the connection is lost, when a newer session of the same node takes
// its place (409), or with ctx; the caller opens the next one.
func (n *NodeClient) Session(ctx context.Context, describe func() v1.NodeDescription) iter.Seq2[v1.Assignment, error] {
	return func(yield func(v1.Assignment, error) bool) {
		body, err := json.Marshal(describe())
		if err != nil {
			yield(v1.Assignment{}, fmt.Errorf("client: node description: %w", err))
			return
		}
		for line, err := range stream[sessionLine](ctx, n.client, http.MethodPost, n.path+"/session", bytes.NewReader(body)) {
			if err == nil && line.Problem != nil {
				err = line.Problem
			}
			if !yield(line.Assignment, err) || err != nil {
				return
			}
		}
		yield(v1.Assignment{}, errStopped)
	}
}

// sessionLine is one line of a session: an Assignment, or why the session ends.
type sessionLine struct {
	v1.Assignment
	Problem *v1.Problem `json:"problem"`
}

// Report tells the manager what was observed. Tasks that the result calls unknown are not, or no longer, the node's.
// Reporting the same again does nothing.
func (n *NodeClient) Report(ctx context.Context, r v1.StatusReport) (v1.StatusResult, error) {
	var result v1.StatusResult
	err := n.client.Do(ctx, http.MethodPost, n.path+"/status", r, &result)
	return result, err
}

// Stream sends the records of a stream that the manager asked for. An error among the records ends the stream and is told to
// whoever reads it. It returns when the records end, or at once when nobody reads them any more (a *v1.Problem, 404 or 410):
// the caller then ends the context that the records come from.
func (n *NodeClient) Stream(ctx context.Context, id string, records iter.Seq2[v1.LogRecord, error]) error {
	r, w := io.Pipe()
	defer r.CloseWithError(io.ErrClosedPipe)
	go func() { w.CloseWithError(writeRecords(w, records)) }()
	resp, err := n.client.send(ctx, http.MethodPost, n.path+"/streams/"+url.PathEscape(id), r)
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
