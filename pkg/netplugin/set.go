package netplugin

import (
	"errors"
	"slices"

	"github.com/google/nftables"
)

// members queues what makes the elements of a set those of want.
func (t *transaction) members(s *nftables.Set, have, want map[string]bool) {
	t.err = errors.Join(t.err, inParts(t.SetDeleteElements, s, missing(have, want, s.Interval)), inParts(t.SetAddElements, s, missing(want, have, s.Interval)))
}

// missing are those of a set that another one has not.
func missing(of, in map[string]bool, ranges bool) []nftables.SetElement {
	var list []nftables.SetElement
	for k := range of {
		if !in[k] {
			list = append(list, memberMessage(k, ranges))
		}
	}
	return list
}

// memberMessage is an element as the kernel is told it. In a set of ranges, the second half of it is the last of the range.
func memberMessage(member string, ranges bool) nftables.SetElement {
	if !ranges {
		return nftables.SetElement{Key: []byte(member)}
	}
	half := len(member) / 2
	return nftables.SetElement{Key: []byte(member[:half]), KeyEnd: []byte(member[half:])}
}

func inParts(queue func(*nftables.Set, []nftables.SetElement) error, s *nftables.Set, list []nftables.SetElement) error {
	for part := range slices.Chunk(list, elementsPerMessage) {
		if err := queue(s, part); err != nil {
			return err
		}
	}
	return nil
}

// readSet reads a set. ok is false where there is none of that kind.
func readSet(c *nftables.Conn, want *nftables.Set) (members map[string]bool, ok bool) {
	s, err := c.GetSetByName(want.Table, want.Name)
	if err != nil || s.IsMap || s.Interval != want.Interval || s.KeyType.GetNFTMagic() != want.KeyType.GetNFTMagic() {
		return nil, false
	}
	elements, err := c.GetSetElements(s)
	if err != nil {
		return nil, false
	}
	members = map[string]bool{}
	for _, e := range elements {
		members[string(e.Key)+string(e.KeyEnd)] = true
	}
	return members, true
}
