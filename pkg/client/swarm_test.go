package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// TestCalls: each call goes to its door with what was given, and returns what is answered.
func TestCalls(t *testing.T) {
	ctx := t.Context()
	since := time.Date(2026, 5, 1, 10, 0, 0, 500, time.FixedZone("", 3600))
	for _, c := range []struct {
		call   func(c *Client) (any, error)
		want   string // the request
		answer string
		got    any
	}{
		{func(c *Client) (any, error) { return c.Init(ctx, v1.InitRequest{AdvertiseAddr: "a"}) },
			`POST /v1/swarm/init {"advertiseAddr":"a"}`, `{"nodeID":"n"}`, "n"},
		{func(c *Client) (any, error) {
			return c.Join(ctx, v1.JoinRequest{RemoteAddrs: []string{"a"}, Token: "t"})
		},
			`POST /v1/swarm/join {"remoteAddrs":["a"],"token":"t"}`, `{"nodeID":"n","role":"worker"}`, v1.JoinResult{NodeID: "n", Role: v1.RoleWorker}},
		{func(c *Client) (any, error) { return nil, c.Leave(ctx, true) }, `POST /v1/swarm/leave?force=true `, ``, nil},
		{func(c *Client) (any, error) { return nil, c.Unlock(ctx, "k") }, `POST /v1/swarm/unlock {"unlockKey":"k"}`, ``, nil},
		{func(c *Client) (any, error) { return c.UnlockKey(ctx) }, `GET /v1/swarm/unlock-key `, `{"unlockKey":"k"}`, "k"},
		{func(c *Client) (any, error) { return c.RotateUnlockKey(ctx) }, `POST /v1/swarm/unlock-key/rotate `, `{"unlockKey":"k"}`, "k"},
		{func(c *Client) (any, error) { return c.JoinTokens(ctx) }, `GET /v1/swarm/join-tokens `, `{"worker":"w","manager":"m"}`, v1.JoinTokens{Worker: "w", Manager: "m"}},
		{func(c *Client) (any, error) { return c.RotateJoinToken(ctx, v1.RoleManager) },
			`POST /v1/swarm/join-tokens/rotate?role=manager `, `{"worker":"w","manager":"m"}`, v1.JoinTokens{Worker: "w", Manager: "m"}},
		{func(c *Client) (any, error) { return c.CA(ctx) }, `GET /v1/swarm/ca `, `{"issuer":"i","nodes":3}`, v1.CAInfo{Issuer: "i", Nodes: 3}},
		{func(c *Client) (any, error) { return c.RotateCA(ctx, v1.RotateCARequest{CACert: []byte("c")}) },
			`POST /v1/swarm/ca/rotate {"caCert":"Yw=="}`, `{"issuer":"i"}`, v1.CAInfo{Issuer: "i"}},
		{func(c *Client) (any, error) { return c.CreateUserToken(ctx, "a/b", v1.UserTokenRequest{}) },
			`POST /v1/users/a%2Fb/tokens {}`, `{"id":"i","token":"t"}`, v1.NewUserToken{ID: "i", Token: "t"}},
		{func(c *Client) (any, error) { return nil, c.RemoveUserToken(ctx, "ann", "i") }, `DELETE /v1/users/ann/tokens/i `, ``, nil},
		{func(c *Client) (any, error) { return c.UserCertificate(ctx, "ann", []byte("c")) },
			`POST /v1/users/ann/certificate {"csr":"Yw=="}`, `{"chain":"Yw=="}`, v1.Certificate{Chain: []byte("c")}},
		{func(c *Client) (any, error) { return c.Audit(ctx, since, 7) },
			`GET /v1/audit?limit=7&since=2026-05-01T09%3A00%3A00.0000005Z `, `{"items":[{"path":"p"}]}`, v1.AuditLog{Items: []v1.AuditRecord{{Path: "p"}}}},
		{func(c *Client) (any, error) { return c.Audit(ctx, time.Time{}, 7) }, `GET /v1/audit?limit=7 `, `{}`, v1.AuditLog{}},
		{func(c *Client) (any, error) { return List(ctx, c, v1.Members, nil) },
			`GET /v1/members?limit=1000 `, `{"items":[{"metadata":{"id":"n"}}]}`, []*v1.Member{{Meta: v1.Meta{ID: "n"}}}},
		{func(c *Client) (any, error) {
			return c.Node("n").Certificate(ctx, v1.CertificateRequest{CSR: []byte("c")})
		},
			`POST /v1/nodes/n/certificate {"csr":"Yw=="}`, `{"chain":"Yw=="}`, v1.Certificate{Chain: []byte("c")}},
		{func(c *Client) (any, error) { return c.Node("n").Membership(ctx, v1.MembershipRequest{Addr: "a"}) },
			`POST /v1/nodes/n/membership {"addr":"a"}`, `{"memberID":"m"}`, v1.Membership{MemberID: "m"}},
		{func(c *Client) (any, error) { return nil, c.Node("n").Leave(ctx) }, `POST /v1/nodes/n/leave `, ``, nil},
		{func(c *Client) (any, error) {
			return c.Restore(ctx, v1.InitRequest{ListenAddr: "l:1", AdvertiseAddr: "a", DataPathAddr: "d", Availability: v1.AvailabilityPause}, strings.NewReader("tar"))
		}, `POST /v1/swarm/restore?advertiseAddr=a&availability=pause&dataPathAddr=d&listenAddr=l%3A1 tar`, `{"nodeID":"n"}`, "n"},
		{func(c *Client) (any, error) { return c.Restore(ctx, v1.InitRequest{}, strings.NewReader("tar")) },
			`POST /v1/swarm/restore? tar`, `{"nodeID":"n"}`, "n"},
		{func(c *Client) (any, error) {
			var w bytes.Buffer
			err := c.Backup(ctx, &w)
			return w.String(), err
		}, `GET /v1/swarm/backup `, `tar`, "tar"},
	} {
		var request string
		client := serve(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			request = r.Method + " " + r.URL.RequestURI() + " " + string(body)
			if c.answer == "" {
				w.WriteHeader(http.StatusNoContent)
			}
			fmt.Fprint(w, c.answer)
		})
		got, err := c.call(client)
		if err != nil || !reflect.DeepEqual(got, c.got) || request != c.want {
			t.Errorf("%s: %v %+v, want %s %+v", request, err, got, c.want, c.got)
		}
		refuses := serve(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusForbidden)
			json.NewEncoder(w).Encode(v1.Problem{Title: "Forbidden", Detail: "not you"})
		})
		if _, err := c.call(refuses); Status(err) != http.StatusForbidden {
			t.Errorf("%s: %v, want what was refused", c.want, err)
		}
	}
}

// TestBackupsThatBreakOff: half a backup is an error, and it tells on which side.
func TestBackupsThatBreakOff(t *testing.T) {
	cut := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "half")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	var got bytes.Buffer
	refused(t, cut.Backup(t.Context(), &got), "was lost")
	if got.String() != "half" {
		t.Errorf("%q", &got)
	}
	whole := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "whole") })
	full := errors.New("no space left on device")
	if err := whole.Backup(t.Context(), failingWriter{full}); !errors.Is(err, full) || !strings.Contains(err.Error(), "write the backup") {
		t.Error(err)
	}
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

// TestUploadsAreNotSentTwice: an archive of which some was read goes to no second host; one of which nothing was read does.
func TestUploadsAreNotSentTwice(t *testing.T) {
	s := newSwarm(t)
	asked := 0
	_, good := s.manager(func(w http.ResponseWriter, r *http.Request) {
		asked++
		io.Copy(w, r.Body)
	})
	_, bad := s.manager(func(w http.ResponseWriter, r *http.Request) {
		r.Body.Read(make([]byte, 1))
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, `{"type":%q,"title":"no","detail":"not me"}`, v1.ProblemNotManager)
	})
	archive := `{"nodeID":"n"}`
	if id, err := s.client(nobody(t), good).Restore(t.Context(), v1.InitRequest{}, strings.NewReader(archive)); err != nil || id != "n" {
		t.Errorf("%v %s", err, id)
	}
	_, err := s.client(bad, good).Restore(t.Context(), v1.InitRequest{}, strings.NewReader(archive))
	if refused(t, err, "not me"); asked != 1 {
		t.Errorf("%d hosts were sent the archive", asked)
	}
}
