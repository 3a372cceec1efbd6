package daemon

import (
	"context"
	"errors"
	"net/http"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
)

// errNodeLocked is Docker's answer to almost everything while the node is locked.
var errNodeLocked = unavailable("Locked",
	`Swarm is encrypted and needs to be unlocked before it can be used. Please use "swarmctl swarm unlock" to unlock it.`)

// errWrongUnlockKey is Docker's answer to a key that does not open.
var errWrongUnlockKey = &v1.Problem{Title: "Wrong unlock key", Status: http.StatusUnauthorized,
	Detail: "swarm could not be unlocked: invalid key provided"}

// lock remembers that the node waits for the unlock key.
func (n *node) lock() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.locked {
		return
	}
	n.locked, n.unlock = true, nil
	n.log.Warn("this manager is locked: its containers go on, and it waits for \"swarmctl swarm unlock\"")
	n.tellChange()
}

func (n *node) isLocked() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.locked
}

// Unlock implements apiserver.Joiner.
func (d *Daemon) Unlock(ctx context.Context, text string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.inside.Load()
	switch {
	case n == nil:
		return unavailable("Not in a swarm", "This node is not part of a swarm")
	case !n.isLocked():
		return &v1.Problem{Title: "Not locked", Status: http.StatusConflict, Detail: "swarm is not locked"}
	}
	key, err := ca.ParseUnlockKey(text)
	if err != nil {
		return errWrongUnlockKey
	}
	if err := n.open(key); err != nil {
		return err
	}
	// Whether the key opens the state too shows when that is opened; a member that waits for others does so unlocked.
	ctx, cancel := context.WithTimeout(ctx, enterWithin)
	defer cancel()
	err = n.await(ctx, func() bool {
		return n.locked || n.manager != nil && (n.manager.up() || n.manager.trouble() != nil) || n.trouble != ""
	})
	if n.isLocked() {
		return errWrongUnlockKey
	}
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// open opens the node's key, and has the node go on.
func (n *node) open(key []byte) error {
	n.files.Lock()
	defer n.files.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cert == nil && n.certs.there() {
		cert, err := n.certs.load(key)
		if errors.Is(err, ca.ErrWrongKey) {
			return errWrongUnlockKey
		}
		if err != nil {
			return err
		}
		n.setCertificate(cert)
	}
	n.unlock, n.locked, n.trouble = key, false, ""
	n.tellChange()
	n.poke()
	return nil
}
