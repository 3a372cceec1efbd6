package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// identity is what a node remembers of its place in a swarm. That the file is there says that the node is in one: it is written
// last when a node comes, and taken away first when it goes.
type identity struct {
	// Version is identityVersion; 0 of the time before there were certificates, when a node was its swarm's only one.
	Version int    `json:"version"`
	NodeID  string `json:"nodeID"`
	// Role is that of the node's certificate.
	Role v1.NodeRole `json:"role"`
	// Addr is host:port at which other machines reach this one, ListenAddr where it listens as a manager, and DataAddr the address
	// of tasks' traffic where it is another.
	Addr       string `json:"addr"`
	ListenAddr string `json:"listenAddr,omitempty"`
	DataAddr   string `json:"dataAddr,omitempty"`
	// Member tells what is in the folder etcd.
	Member membership `json:"member,omitempty"`
	// Raft are the settings that the member starts with next.
	Raft *v1.RaftSettings `json:"raft,omitempty"`
	// Step is what is being made of the state in the folder etcd, and Init the request for it. They are gone once that is done: from
	// then on the state is opened, and never made anew.
	Step step            `json:"step,omitempty"`
	Init *v1.InitRequest `json:"init,omitempty"`
}

// membership says how far a manager's member of etcd is.
type membership string

const (
	memberNone    membership = ""        // what is in the folder is of no use
	memberJoining membership = "joining" // it was asked for, and may have started
	memberStarted membership = "member"  // it has started, and its state must be there
)

// step is a change of the whole state that is begun anew when a crash cuts it off.
type step string

const (
	stepNone    step = ""
	stepFound   step = "found"   // a new swarm
	stepRestore step = "restore" // a swarm from a backup
	stepForce   step = "force"   // the swarm that there is, with this manager alone
	stepUpgrade step = "upgrade" // the swarm of an earlier version
)

const identityVersion = 2

const (
	identityName = "node.json"
	managersName = "managers.json"
	storeName    = "etcd"
)

// loadIdentity is nil where the node is in no swarm.
func loadIdentity(d disk) (*identity, error) {
	data, err := d.read(identityName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	id := new(identity)
	if err := json.Unmarshal(data, id); err != nil || id.NodeID == "" {
		if err == nil {
			err = errors.New("it names no node")
		}
		return nil, fmt.Errorf("%s is damaged (%w): put it back from a backup, or remove %s to start anew without the swarm",
			d.path(identityName), err, d.root)
	}
	return id.modern(), nil
}

// modern reads a file that an earlier version wrote. Until the state is upgraded, the file stays as it is. A manager that knows its
// place among members is of a version that had them, and goes on as it is.
func (id *identity) modern() *identity {
	if id.Version == 0 && id.Role == v1.RoleManager && id.Member == memberNone {
		id.Step = stepUpgrade
		if id.Init != nil {
			id.Step = stepFound
		}
	}
	if id.ListenAddr == "" {
		id.ListenAddr = net.JoinHostPort("0.0.0.0", DefaultPort)
	}
	return id
}

// save writes the identity.
func (id *identity) save(d disk) error {
	id.Version = identityVersion
	data, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	return d.write(identityName, append(data, '\n'))
}

// loadManagers are the managers that the node was told of last. Where that cannot be read there are none, and a session will
// tell them anew.
func loadManagers(d disk) []v1.Peer {
	data, err := d.read(managersName)
	if err != nil {
		return nil
	}
	var managers []v1.Peer
	if json.Unmarshal(data, &managers) != nil {
		return nil
	}
	return managers
}

func saveManagers(d disk, managers []v1.Peer) error {
	data, err := json.Marshal(managers)
	if err != nil {
		return err
	}
	return d.write(managersName, append(data, '\n'))
}
