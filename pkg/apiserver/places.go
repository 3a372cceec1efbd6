package apiserver

import (
	"net/http"
	"net/netip"
)

// Limits of callers, so that none takes from the others what all need.
const (
	// maxLargeBodies is how many large bodies of one kind of callers are being read at a time.
	maxLargeBodies = 32
	// maxNobody is how many requests of callers without an identity may be under way, nobodyEach how many of them from one address.
	maxNobody, nobodyEach = 64, 8
	// nodeEach is how many requests one node may have under way. An agent has one report and one renewal at a time.
	nodeEach = 8
	// userShare is the part of the users' places that one of them may take, as a divisor.
	userShare = 2
	// maxOpenings is how many sessions may be at their beginning, openingsEach how many of them of one node.
	maxOpenings, openingsEach = 4096, 4
)

// places are what callers of one kind have to themselves: whatever the others do, these are left.
type places struct {
	requests, watches, logReaders, openings, tunnels *shared
	largeBodies                                      gate
}

// newPlaces are the places of all kinds of callers.
func newPlaces(l Limits) map[callerKind]*places {
	share := func(n int) int { return max(n/userShare, 1) }
	of := func(requests, each, watches, watchesEach, readers, readersEach, tunnels, tunnelsEach int) *places {
		return &places{
			requests: newShared(requests, each, "requests"), watches: newShared(watches, watchesEach, "watches"),
			logReaders: newShared(readers, readersEach, "log requests"), largeBodies: newGate(maxLargeBodies, "large bodies"),
			openings: newShared(maxOpenings, openingsEach, "sessions that begin"), tunnels: newShared(tunnels, tunnelsEach, "tunnels to tasks"),
		}
	}
	return map[callerKind]*places{
		callerRoot:   of(l.Requests, l.Requests, l.Watches, l.Watches, l.LogReaders, l.LogReaders, maxTunnels, maxTunnels),
		callerNode:   of(l.Requests, nodeEach, 0, 0, 0, 0, maxImageTunnels, maxImageTunnelsEach),
		callerUser:   of(l.Requests, share(l.Requests), l.Watches, share(l.Watches), l.LogReaders, share(l.LogReaders), maxTunnels, share(maxTunnels)),
		callerNobody: of(maxNobody, nobodyEach, 0, 0, 0, 0, 0, 0),
	}
}

// placesOf are the places of the kind of caller that makes a request, and what it is counted by there.
func (s *Server) placesOf(r *http.Request) (of *places, who string) {
	c := callerOf(r.Context())
	switch c.kind {
	case callerNode:
		who = c.node
	case callerUser:
		who = c.userID
	case callerNobody:
		who = network(remoteAddr(r))
	}
	return s.places[c.kind], who
}

// network is what an address is counted by: of IPv6 its network, as everybody there has as many addresses as it likes.
func network(addr string) string {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Unmap().Is4() {
		return addr
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return addr
	}
	return p.String()
}
