package etcd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// maxMessage bounds one message of raft, which holds a few entries of the log at most, or the members.
const maxMessage = 64 << 20

// errTooLong says that somebody sends what no member does.
var errTooLong = errors.New("the message is too long")

// checkSpeaker refuses a member that speaks as another: etcd itself takes every certificate for every member's. What r brings can be
// read as before afterwards.
func (h *peerHandler) checkSpeaker(name string, r *http.Request) error {
	if text := r.Header.Get("X-Server-From"); text != "" {
		if err := h.checkID(name, text); err != nil {
			return err
		}
	}
	switch {
	case strings.HasPrefix(r.URL.Path, "/raft/stream/"): // of what is for the member that it names
		return h.checkID(name, path.Base(r.URL.Path))
	case r.Method != http.MethodPost:
		return nil
	case r.URL.Path == "/raft":
		message, err := io.ReadAll(io.LimitReader(r.Body, maxMessage+1))
		if err == nil && len(message) > maxMessage {
			err = errTooLong
		}
		return h.checkMessage(name, r, message, nil, err)
	case r.URL.Path == "/raft/snapshot":
		head, message, err := readFramed(r.Body)
		return h.checkMessage(name, r, message, head, err)
	}
	return nil
}

// readFramed reads a message that its length stands before.
func readFramed(r io.Reader) (head, message []byte, err error) {
	head = make([]byte, 8)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, nil, err
	}
	size := binary.BigEndian.Uint64(head)
	if size > maxMessage {
		return nil, nil, errTooLong
	}
	var read bytes.Buffer // what is announced may never come
	if _, err := io.CopyN(&read, r, int64(size)); err != nil {
		return nil, nil, err
	}
	return head, read.Bytes(), nil
}

// checkMessage holds whom a message is from against who sent it, and puts back what was read of it.
func (h *peerHandler) checkMessage(name string, r *http.Request, message, head []byte, err error) error {
	var m raftpb.Message
	if err == nil {
		err = proto.Unmarshal(message, &m)
	}
	if err != nil {
		return fmt.Errorf("a message of raft cannot be read: %w", err)
	}
	r.Body = &readAgain{io.MultiReader(bytes.NewReader(head), bytes.NewReader(message), r.Body), r.Body}
	if m.GetType() == raftpb.MsgTransferLeader {
		return nil // it is from whoever is to lead, and anybody passes it on
	}
	return h.checkID(name, types.ID(m.GetFrom()).String())
}

// readAgain is a body of which something was read already.
type readAgain struct {
	io.Reader
	io.Closer
}

// checkID refuses the ID of a member of another name. One of a member that was removed is for etcd, which tells it so.
func (h *peerHandler) checkID(name, text string) error {
	id, err := types.IDFromString(text)
	if err != nil {
		return fmt.Errorf("%q is not the ID of a member", text)
	}
	if h.server.IsIDRemoved(uint64(id)) || h.fellows.nameFor(id) == name {
		return nil
	}
	return fmt.Errorf("%s does not speak for member %s", name, id)
}
