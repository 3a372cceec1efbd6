package netplugin

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The maps of ports that do not answer everywhere. Such a port is in none of the others, so where these are lost it answers nowhere.
const (
	mapPlaces = "places" // protocol . port . range of the machine's addresses → chain of its number of backends
	mapLinks  = "links"  // protocol . port . link that packets come by → the same
)

// Place is where a published port answers: on this machine's addresses within the prefix or, where that is not valid, for packets that
// come by the link of the name.
type Place struct {
	Prefix netip.Prefix
	Link   string
}

// String is such as "10.0.0.0/8" or "eth1".
func (p Place) String() string {
	if p.Prefix.IsValid() {
		return p.Prefix.String()
	}
	return p.Link
}

func comparePlaces(a, b Place) int { return strings.Compare(a.String(), b.String()) }

// publication is ports with their backends and, of those that do not answer everywhere, the places where they do.
type publication struct {
	ports
	places map[portKey][]Place
}

func newPublication() publication { return publication{ports{}, map[portKey][]Place{}} }

// add has a port lead to backends, at some places or everywhere; without backends it is left out.
func (p publication) add(key portKey, backends []netip.AddrPort, at []Place) {
	if len(backends) == 0 {
		return
	}
	p.ports[key] = backends
	if at != nil {
		p.places[key] = at
	}
}

// placesOf reads where a port answers, in order; nil is everywhere. All addresses of one version are a range like others.
func placesOf(list []Place) ([]Place, error) {
	if len(list) == 0 {
		return nil, nil
	}
	var found []Place
	for _, p := range list {
		switch {
		case p.Prefix.IsValid():
			found = append(found, Place{Prefix: p.Prefix.Masked()})
		case p.Link == "" || len(p.Link) >= unix.IFNAMSIZ || p.Link == hostLink:
			return nil, fmt.Errorf("it cannot answer at a link of the name %q", p.Link)
		default:
			found = append(found, Place{Link: p.Link})
		}
	}
	slices.SortFunc(found, comparePlaces)
	found = slices.Compact(found)
	return slices.DeleteFunc(slices.Clone(found), func(p Place) bool { // of ranges that overlap, one has the other in it
		return slices.ContainsFunc(found, func(q Place) bool {
			return p.Prefix.IsValid() && q.Prefix.IsValid() && q.Prefix.Bits() < p.Prefix.Bits() && q.Prefix.Overlaps(p.Prefix)
		})
	}), nil
}

// placesBy are those of an IP version, and whether there are any; nil is everywhere. Links are of both.
func placesBy(v int, all []Place) (some []Place, there bool) {
	if all == nil {
		return nil, true
	}
	for _, p := range all {
		switch {
		case !p.Prefix.IsValid():
			some = append(some, p)
		case version(p.Prefix.Addr()) != v:
		case p.Prefix.Bits() == 0:
			return nil, true
		default:
			some = append(some, p)
		}
	}
	return some, len(some) > 0
}

// placeElements are those by which a port leads to its chain.
func placeElements(service []byte, places []Place, chain string) (all []element) {
	if places == nil {
		return []element{{in: mapPorts, key: string(service), val: chain}}
	}
	for _, p := range places {
		if p.Prefix.IsValid() {
			all = append(all, element{in: mapPlaces, key: string(service) + string(p.Prefix.Addr().AsSlice()),
				end: string(service) + string(last(p.Prefix).AsSlice()), val: chain})
		} else {
			all = append(all, element{in: mapLinks, key: string(service) + string(padded(p.Link)), val: chain})
		}
	}
	return all
}

// placeOf is the place of an element of these maps. One that we would not have made is not ok.
func (s side) placeOf(in string, e nftables.SetElement) (p Place, ok bool) {
	if in == mapLinks {
		name, _, _ := strings.Cut(string(e.Key[8:]), "\x00")
		return Place{Link: name}, name != ""
	}
	if len(e.KeyEnd) != len(e.Key) {
		return p, false
	}
	first, _ := netip.AddrFromSlice(e.Key[8:])
	end, _ := netip.AddrFromSlice(e.KeyEnd[8:])
	for bits := int(s.size) * 8; bits > 0; bits-- {
		if p := netip.PrefixFrom(first, bits); last(p) == end && p.Masked().Addr() == first {
			return Place{Prefix: p}, true
		}
	}
	return p, false
}

// placeMaps are their maps in the machine's own table.
func (s side) placeMaps(t *nftables.Table) []*nftables.Set {
	return []*nftables.Set{
		{Table: t, Name: mapPlaces, IsMap: true, Interval: true, Concatenation: true, DataType: nftables.TypeVerdict,
			KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService, s.address)},
		{Table: t, Name: mapLinks, IsMap: true, Concatenation: true, DataType: nftables.TypeVerdict,
			KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeIFName)},
	}
}

// dispatchPlace goes to the pick chain of a packet to a port that answers at its address.
func dispatchPlace(s side) []expr.Any {
	return join(toPort(), []expr.Any{
		&expr.Payload{DestRegister: register + 2, Base: expr.PayloadBaseNetworkHeader, Offset: s.dest, Len: s.size},
		&expr.Lookup{SourceRegister: register, DestRegister: verdictRegister, IsDestRegSet: true, SetName: mapPlaces},
	})
}

// dispatchLink goes to the pick chain of a packet to a port that answers where it came in.
func dispatchLink() []expr.Any {
	return join(toPort(), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: register + 2},
		&expr.Lookup{SourceRegister: register, DestRegister: verdictRegister, IsDestRegSet: true, SetName: mapLinks},
	})
}

// toPort is true for a packet to any of this machine's addresses, and has its protocol and port in the first registers.
func toPort() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: register, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Payload{DestRegister: register + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}
