package client

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// tunnel is one end of a tunnel between a user and a task's node: the body of a request, and that of its answer.
type tunnel struct {
	down   io.ReadCloser
	mu     sync.Mutex
	up     *io.PipeWriter
	cancel context.CancelFunc
}

// Tunnel opens a tunnel to a task, by its ID or name. It returns once the task's node is there. The caller closes it.
func (c *Client) Tunnel(ctx context.Context, task string, start v1.TunnelStart) (v1.Tunnel, error) {
	var first bytes.Buffer
	if err := v1.WriteFrameJSON(&first, v1.FrameStart, start); err != nil {
		return nil, err
	}
	return c.tunnel(ctx, "/v1/tasks/"+url.PathEscape(task)+"/tunnel", &first, nil)
}

// Examine opens a tunnel to a node itself, which examines its part of the network. The caller closes it.
func (c *Client) Examine(ctx context.Context, node string, start v1.DoctorStart) (v1.Tunnel, error) {
	return c.nodeTunnel(ctx, node, nil, v1.TunnelStart{Doctor: &start})
}

// CheckVolume opens a tunnel to a node itself, which says whether a container has a volume, and removes nothing. One that a service mounts
// is refused as for RemoveVolume. The caller closes it.
func (c *Client) CheckVolume(ctx context.Context, node, volume string) (v1.Tunnel, error) {
	return c.nodeTunnel(ctx, node, url.Values{"volume": {volume}}, v1.TunnelStart{CheckVolume: &v1.CheckVolumeStart{Name: volume}})
}

// RemoveVolume opens a tunnel to a node itself, which removes a volume. The caller closes it.
func (c *Client) RemoveVolume(ctx context.Context, node, volume string) (v1.Tunnel, error) {
	return c.nodeTunnel(ctx, node, url.Values{"volume": {volume}}, v1.TunnelStart{RemoveVolume: &v1.RemoveVolumeStart{Name: volume}})
}

// InspectVolume opens a tunnel to a node itself, which tells what a volume of its is like. The caller closes it.
func (c *Client) InspectVolume(ctx context.Context, node, volume string) (v1.Tunnel, error) {
	return c.nodeTunnel(ctx, node, nil, v1.TunnelStart{InspectVolume: &v1.InspectVolumeStart{Name: volume}})
}

func (c *Client) nodeTunnel(ctx context.Context, node string, query url.Values, start v1.TunnelStart) (v1.Tunnel, error) {
	var first bytes.Buffer
	if err := v1.WriteFrameJSON(&first, v1.FrameStart, start); err != nil {
		return nil, err
	}
	return c.tunnel(ctx, "/v1/nodes/"+url.PathEscape(node)+"/tunnel?"+query.Encode(), &first, nil)
}

// Tunnel opens the node's end of a tunnel that the manager which the latest session is with asked for. The caller closes it.
func (n *NodeClient) Tunnel(ctx context.Context, id string) (v1.Tunnel, error) {
	var hosts []*host
	if h := n.session.Load(); h != nil {
		hosts = []*host{h}
	}
	return n.client.tunnel(ctx, n.path+"/tunnels/"+url.PathEscape(id), new(bytes.Buffer), hosts)
}

// Image opens a tunnel to another node that runs the image of a task of this one, or ran it, for a part of it. Who got nothing there asks
// again, up to v1.MaxImageAgain times, for another. The caller closes it.
func (n *NodeClient) Image(ctx context.Context, image, digest string, again int) (v1.Tunnel, error) {
	var first bytes.Buffer
	if err := v1.WriteFrameJSON(&first, v1.FrameStart, v1.TunnelStart{Blob: &v1.BlobStart{Digest: digest}}); err != nil {
		return nil, err
	}
	query := url.Values{"image": {image}}
	if again > 0 { // which a manager of an earlier version does not know
		query.Set("again", strconv.Itoa(again))
	}
	return n.client.tunnel(ctx, n.path+"/image?"+query.Encode(), &first, nil)
}

func (c *Client) tunnel(ctx context.Context, path string, first io.Reader, hosts []*host) (v1.Tunnel, error) {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	body := &onceBody{from: &upBody{io.MultiReader(first, r), r}}
	resp, _, err := c.send(ctx, request{method: http.MethodPost, path: path, body: body.next, kind: v1.TunnelType, hosts: hosts})
	if err != nil {
		cancel()
		_ = w.Close()
		return nil, err
	}
	body.answered()
	return &tunnel{down: resp.Body, up: w, cancel: cancel}, nil
}

// Read implements io.Reader.
func (t *tunnel) Read(p []byte) (int, error) { return t.down.Read(p) }

// Write implements io.Writer.
func (t *tunnel) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.up.Write(p)
}

// Close implements io.Closer. What was written and not read at the other end may be lost.
func (t *tunnel) Close() error {
	_ = t.up.Close() // it never fails
	t.cancel()
	return t.down.Close()
}

// CloseWrite implements v1.Tunnel.
func (t *tunnel) CloseWrite() error { return t.up.Close() }
