package apiserver_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/store"
)

// open opens a stream over TLS and reads its first line.
func (s *someone) open(path string) *bufio.Scanner {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), patience)
	req, err := http.NewRequestWithContext(ctx, "GET", s.base+path, nil)
	if err != nil {
		s.Fatal(err)
	}
	if s.token != "" {
		req.Header.Set("Authorization", "Bearer "+s.token)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { cancel(); resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		s.Fatalf("%s: %s", path, resp.Status)
	}
	return bufio.NewScanner(resp.Body)
}

// farewell reads a stream to its end, which has to come, and to say why.
func farewell(t *testing.T, what string, lines *bufio.Scanner, want string) {
	t.Helper()
	last := ""
	for lines.Scan() {
		if line := lines.Text(); line != "" && !strings.Contains(line, `"bookmark"`) {
			last = line
		}
	}
	if err := lines.Err(); err != nil || !strings.Contains(last, want) {
		t.Errorf("%s ends with %q, %v; want %q", what, last, err, want)
	}
}

// TestStreamsEndWithTheRight: whatever takes the right to a stream away ends it, also where nothing else happens on it.
func TestStreamsEndWithTheRight(t *testing.T) {
	streams := []string{"/v1/services?watch=true", "/v1/events", "/v1/services/web/logs?stdout=true&follow=true"}
	for _, test := range []struct {
		name, want string
		take       func(c *cluster, first v1.NewUserToken)
		token      bool
	}{
		{"the user is removed, by token", "the token is wrong, or was removed", func(c *cluster, _ v1.NewUserToken) {
			c.local().expect(http.StatusNoContent, "DELETE", "/v1/users/vera", "")
		}, true},
		{"the user is removed, by certificate", "was removed from the swarm", func(c *cluster, _ v1.NewUserToken) {
			c.local().expect(http.StatusNoContent, "DELETE", "/v1/users/vera", "")
		}, false},
		{"the token is removed", "the token is wrong, or was removed", func(c *cluster, first v1.NewUserToken) {
			if err := c.client.RemoveUserToken(c.ctx, "vera", first.ID); err != nil {
				c.Fatal(err)
			}
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := form(t, quick)
			c.create(web("web"))
			if _, _, err := c.user("vera", v1.UserView); err != nil {
				t.Fatal(err)
			}
			token, err := c.client.CreateUserToken(c.ctx, "vera", v1.UserTokenRequest{})
			if err != nil {
				t.Fatal(err)
			}
			vera := c.as(nil, nil, token.Token)
			if !test.token {
				chain, key := c.certify("vera", ca.RoleUser)
				vera = c.as(chain, key, "")
			}
			var open []*bufio.Scanner
			for _, path := range streams {
				open = append(open, vera.open(path))
			}
			test.take(c, token)
			for i, path := range streams {
				farewell(t, path, open[i], test.want)
			}
		})
	}
}

// TestStreamsEndWithTheRole: only those that the new role does not have.
func TestStreamsEndWithTheRole(t *testing.T) {
	c := form(t, quick)
	if _, _, err := c.user("ada", v1.UserAdmin); err != nil {
		t.Fatal(err)
	}
	token, err := c.token("ada")
	if err != nil {
		t.Fatal(err)
	}
	ada := c.as(nil, nil, token)
	users, services := ada.open("/v1/users?watch=true"), ada.open("/v1/services?watch=true")
	c.role("ada", v1.UserView)
	farewell(t, "the watch of users", users, "user ada has the role view")
	c.create(web("later"))
	for services.Scan() {
		if strings.Contains(services.Text(), `"later"`) {
			return
		}
	}
	t.Errorf("the watch of services ended: %v", services.Err())
}

// TestStreamsEndWithTheToken: its time is over while nothing happens.
func TestStreamsEndWithTheToken(t *testing.T) {
	now := new(clock)
	c := form(t, now.option, quick)
	if _, _, err := c.user("vera", v1.UserView); err != nil {
		t.Fatal(err)
	}
	ends := now.now().Add(time.Hour)
	token, err := c.client.CreateUserToken(c.ctx, "vera", v1.UserTokenRequest{Expires: ends})
	if err != nil {
		t.Fatal(err)
	}
	now.advance(time.Hour - 500*time.Millisecond)
	farewell(t, "a watch", c.as(nil, nil, token.Token).open("/v1/services?watch=true"), "the token ended at")
}

// TestRelayEndsWithTheManager: a manager that was demoted reads no more of what it asked for as one.
func TestRelayEndsWithTheManager(t *testing.T) {
	c := form(t, quick, func(o *apiserver.Options) { o.Limits.StreamWait = patience })
	c.commit(taskOp("a", "s", "w1", "r1", 1))
	c.connect("w1")
	logs := c.node("m2", ca.RoleManager).open("/v1/nodes/w1/tasks/a/logs?stdout=true&follow=true")
	spec := *c.get("m2").Spec
	spec.Role = v1.RoleWorker
	c.commit(store.Op{Kind: v1.KindNode, ID: "m2", Value: &spec, Meta: &v1.Meta{Generation: 2}, If: store.Exists()})
	farewell(t, "the relayed log", logs, "is a worker, and may not do this")
}

// TestLogFarewellIsARecord: clients of logs read the reason as what they read anyway.
func TestLogFarewellIsARecord(t *testing.T) {
	c := form(t, quick)
	c.create(web("web"))
	if _, _, err := c.user("vera", v1.UserView); err != nil {
		t.Fatal(err)
	}
	token, err := c.token("vera")
	if err != nil {
		t.Fatal(err)
	}
	logs := c.as(nil, nil, token).open("/v1/services/web/logs?stdout=true&follow=true")
	c.local().expect(http.StatusNoContent, "DELETE", "/v1/users/vera", "")
	var last v1.TaskLogRecord
	for logs.Scan() {
		if len(logs.Bytes()) == 0 {
			continue
		}
		if err := json.Unmarshal(logs.Bytes(), &last); err != nil {
			t.Fatalf("%q: %v", logs.Text(), err)
		}
	}
	if last.Error == "" {
		t.Errorf("%+v", last)
	}
}
