package etcd

// Kill closes a store as the death of its process does: without a word to the other members.
func (s *Store) Kill() error {
	s.member.abrupt = true
	return s.Close()
}
