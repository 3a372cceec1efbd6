package etcd_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// TestSpeakers: a member speaks for itself only, whatever it puts where.
func TestSpeakers(t *testing.T) {
	l := newLab(t)
	a, b := l.host("a"), l.host("b")
	a.begin()
	b.join(a)
	members, err := a.store.Members(t.Context())
	if err != nil || len(members) != 2 {
		t.Fatalf("%v %v", members, err)
	}
	ida, idb := members[0].ID, members[1].ID
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: b.identity.ClientTLS(), DisableKeepAlives: true}}
	ask := func(method, path, from string, body []byte) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, a.url+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if from != "" {
			req.Header.Set("X-Server-From", from)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return resp.StatusCode, string(text)
	}
	message := func(kind raftpb.MessageType, id string) []byte {
		from, err := types.IDFromString(id)
		if err != nil {
			t.Fatal(err)
		}
		data, err := proto.Marshal(&raftpb.Message{Type: kind.Enum(), From: new(uint64(from)), Term: new(uint64(1))})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	framed := func(data []byte) []byte {
		return append(binary.BigEndian.AppendUint64(nil, uint64(len(data))), data...)
	}
	twice := append(message(raftpb.MsgHeartbeat, idb), message(raftpb.MsgHeartbeat, ida)...) // the last From counts
	for name, c := range map[string]struct {
		method, path, from string
		body               []byte
		refused            bool
	}{
		"own message":              {http.MethodPost, "/raft", idb, message(raftpb.MsgHeartbeatResp, idb), false},
		"another's message":        {http.MethodPost, "/raft", idb, message(raftpb.MsgApp, ida), true},
		"both":                     {http.MethodPost, "/raft", "", twice, true},
		"nobody's message":         {http.MethodPost, "/raft", "", message(raftpb.MsgHeartbeat, "7"), true},
		"another's header":         {http.MethodPost, "/raft", ida, message(raftpb.MsgHeartbeat, idb), true},
		"no ID in the header":      {http.MethodGet, "/members", "x", nil, true},
		"no message":               {http.MethodPost, "/raft", idb, []byte("\xff\xff"), true},
		"the lead handed on":       {http.MethodPost, "/raft", idb, message(raftpb.MsgTransferLeader, ida), false},
		"own stream":               {http.MethodGet, "/raft/stream/message/" + idb, idb, nil, false},
		"another's stream":         {http.MethodGet, "/raft/stream/message/" + ida, idb, nil, true},
		"another's other stream":   {http.MethodGet, "/raft/stream/msgapp/" + ida, "", nil, true},
		"another's snapshot":       {http.MethodPost, "/raft/snapshot", idb, framed(message(raftpb.MsgSnap, ida)), true},
		"own, and no snapshot":     {http.MethodPost, "/raft/snapshot", idb, framed(message(raftpb.MsgApp, idb)), false},
		"a snapshot without end":   {http.MethodPost, "/raft/snapshot", idb, binary.BigEndian.AppendUint64(nil, 1<<60), true},
		"a snapshot that is short": {http.MethodPost, "/raft/snapshot", idb, framed(message(raftpb.MsgSnap, idb))[:9], true},
		"members":                  {http.MethodGet, "/members", "", nil, false},
	} {
		status, text := ask(c.method, c.path, c.from, c.body)
		if (status == http.StatusUnauthorized) != c.refused {
			t.Errorf("%s: %d %s", name, status, strings.TrimSpace(text))
		}
	}
	a.put("after", "1")
	b.put("all", "2")
}
