package etcd

import "context"

// Kill closes a store as the death of its process does: without a word to the other members.
func (s *Store) Kill() error {
	s.member.abrupt = true
	return s.Close()
}

// CanRemove tells whether RemoveMember would refuse: nil, or ErrQuorum.
func (s *Store) CanRemove(ctx context.Context, name string) error {
	if s.member == nil {
		return errAlone
	}
	if m := s.find(name); m != nil {
		return s.mayRemove(ctx, m)
	}
	return nil
}
