package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// Info is what the daemon says of its node and of the swarm. It answers also before there is a swarm.
func (c *Client) Info(ctx context.Context) (v1.Info, error) {
	var info v1.Info
	err := c.Do(ctx, http.MethodGet, "/v1/info", nil, &info)
	return info, err
}

// Version is that of the daemon.
func (c *Client) Version(ctx context.Context) (v1.VersionInfo, error) {
	var version v1.VersionInfo
	err := c.Do(ctx, http.MethodGet, "/v1/version", nil, &version)
	return version, err
}

// Images lists the images on the daemon's machine.
func (c *Client) Images(ctx context.Context) ([]v1.Image, error) {
	var list struct {
		Items []v1.Image `json:"items"`
	}
	err := c.Do(ctx, http.MethodGet, "/v1/images", nil, &list)
	return list.Items, err
}

// typeTar is the content type of archives.
const typeTar = "application/x-tar"

// LoadImages gives the daemon the images of an OCI or docker archive, compressed or not, and returns those that it found.
func (c *Client) LoadImages(ctx context.Context, archive io.Reader) ([]v1.Image, error) {
	resp, _, err := c.send(ctx, request{method: http.MethodPost, path: "/v1/images/load", body: once(archive), kind: typeTar})
	if err != nil {
		return nil, err
	}
	defer drain(resp.Body)
	var list struct {
		Items []v1.Image `json:"items"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&list); err != nil {
		return nil, fmt.Errorf("client: load images: read the answer: %w", err)
	}
	return list.Items, nil
}

// ServiceStatuses counts the tasks of services, by the services' IDs; of all services where none is named. IDs that there
// are not are left out.
func (c *Client) ServiceStatuses(ctx context.Context, ids ...string) (map[string]v1.ServiceStatus, error) {
	var statuses map[string]v1.ServiceStatus
	path := "/v1/services:status?" + url.Values{"id": ids}.Encode()
	err := c.Do(ctx, http.MethodGet, path, nil, &statuses)
	return statuses, err
}

// Logs yields the output of a task, or of all tasks of a service: kind is "tasks" or "services". A record with an Error says
// why there is no more of one task's output. With o.Follow it ends only with ctx.
func (c *Client) Logs(ctx context.Context, kind, ref string, o v1.LogOptions) iter.Seq2[v1.TaskLogRecord, error] {
	query := url.Values{
		"stdout": {strconv.FormatBool(o.Stdout)}, "stderr": {strconv.FormatBool(o.Stderr)},
		"follow": {strconv.FormatBool(o.Follow)}, "tail": {strconv.Itoa(o.Tail)},
	}
	if o.Tail < 0 {
		query.Set("tail", "all")
	}
	if !o.Since.IsZero() {
		query.Set("since", o.Since.UTC().Format("2006-01-02T15:04:05.999999999Z07:00"))
	}
	path := "/v1/" + url.PathEscape(kind) + "/" + url.PathEscape(ref) + "/logs?" + query.Encode()
	return stream[v1.TaskLogRecord](ctx, c, request{method: http.MethodGet, path: path})
}

// Events yields what happens in the swarm after the revision; -1 is from now on. It goes on over lost connections as Watch
// does.
func (c *Client) Events(ctx context.Context, f v1.Filter, after int64) iter.Seq2[v1.Event, error] {
	query := url.Values{"filter": f.Strings()}
	return func(yield func(v1.Event, error) bool) {
		for line, err := range c.follow(ctx, "/v1/events", query, after) {
			var event v1.Event
			if err == nil {
				err = json.Unmarshal(line.Object, &event)
			}
			if !yield(event, err) || err != nil {
				return
			}
		}
	}
}
