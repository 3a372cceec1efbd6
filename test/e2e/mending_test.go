package e2e

import (
	"errors"
	"slices"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// mending is what undoes the faults of a round.
type mending struct{ undo []func() error }

// do notes what undoes a fault that was begun with the error.
func (m *mending) do(err error, undo func() error) error {
	m.undo = append(m.undo, undo)
	return err
}

// down ends a host's daemon in some way; mending starts it again.
func (m *mending) down(h *lab.Host, how func() error) error {
	if h.Namespace == nil || !h.Alive() {
		return errNobody // by an earlier fault of this round
	}
	if err := how(); err != nil {
		return err
	}
	return m.do(nil, func() error { return h.Launch() })
}

// mend undoes all faults, the latest first.
func (m *mending) mend() (err error) {
	for _, undo := range slices.Backward(m.undo) {
		err = errors.Join(err, undo())
	}
	m.undo = nil
	return err
}

// sure is for what ends a daemon and cannot fail.
func sure(how func()) func() error {
	return func() error {
		how()
		return nil
	}
}
