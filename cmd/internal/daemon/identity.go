package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// identity is what a node remembers of its place in a swarm. That the file is there says that the node is in one.
type identity struct {
	NodeID string      `json:"nodeID"`
	Role   v1.NodeRole `json:"role"`
	// Addr is how other machines reach this one.
	Addr string `json:"addr"`
	// Init is the request that is making the swarm. It is gone once the swarm's objects are there: from then on the store
	// is opened, and never made anew.
	Init *v1.InitRequest `json:"init,omitempty"`
}

func identityFile(root string) string { return filepath.Join(root, "node.json") }

// loadIdentity is nil where the node is in no swarm.
func loadIdentity(root string) (*identity, error) {
	data, err := os.ReadFile(identityFile(root))
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
		return nil, fmt.Errorf("%s is damaged (%w): put it back from a backup, or remove %s to start anew without the swarm", identityFile(root), err, root)
	}
	return id, nil
}

// save writes the identity so that a crash leaves the old one or the new one.
func (id *identity) save(root string) error {
	data, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(root, "node.json.*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(data)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), identityFile(root))
}
