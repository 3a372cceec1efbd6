package netplugin

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Reach is an address of another node's task, as it is reached from here.
type Reach struct {
	// Overlay is the ID of the network; without one it is a gateway address.
	Overlay string
	Address netip.Addr
}

// voice is from where some are asked for echoes.
type voice struct {
	path, name string // of the namespace
	from       netip.Addr
}

// Echo implements Network.
func (l *Linux) Echo(ctx context.Context, of []Reach) (answered map[Reach]bool, err error) {
	groups, err := l.voices(of)
	if err != nil {
		return nil, err
	}
	type result struct {
		answered map[Reach]bool
		err      error
	}
	results := make(chan result, len(groups))
	room := make(chan struct{}, mostAskers)
	for v, group := range groups {
		go func() {
			room <- struct{}{}
			defer func() { <-room }()
			some, err := v.ask(ctx, group)
			results <- result{some, err}
		}()
	}
	answered = make(map[Reach]bool, len(of))
	for range groups {
		r := <-results
		maps.Copy(answered, r.answered)
		err = errors.Join(err, r.err)
	}
	return answered, err
}

// ask is for those that are reached from one place. Where that has just gone, none is asked.
func (v voice) ask(ctx context.Context, of []Reach) (map[Reach]bool, error) {
	space, err := openNamespace(v.name, v.path)
	if err != nil {
		return nil, nil
	}
	defer space.close()
	var to []netip.Addr
	for _, r := range of {
		to = append(to, r.Address)
	}
	echoes, _, err := space.ping(ctx, v.from, to, pingSmall)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	answered := make(map[Reach]bool, len(of))
	for _, r := range of {
		answered[r] = echoes[r.Address]
	}
	return answered, nil
}

// voices are those by which addresses are reached. Who is on a network that no task of this machine is on is left out.
func (l *Linux) voices(of []Reach) (map[voice][]Reach, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	want, err := l.latest()
	if want == nil || err != nil {
		return nil, err
	}
	type side struct {
		overlay string
		version int
	}
	known, groups := map[side]voice{}, map[voice][]Reach{}
	for _, r := range of {
		s := side{r.Overlay, version(r.Address)}
		v, was := known[s]
		if !was {
			v = l.voice(want, s.overlay, s.version)
			known[s] = v
		}
		if v.path != "" {
			groups[v] = append(groups[v], r)
		}
	}
	return groups, nil
}

// voice is the gateway router, or the first task that is on the network.
func (l *Linux) voice(want *desired, overlay string, v int) voice {
	if overlay == "" {
		if !want.wire.up() || v != 0 {
			return voice{}
		}
		return voice{l.routerPath(), "router", want.gateway()}
	}
	w := want.overlays[overlay]
	if w == nil {
		return voice{}
	}
	for _, task := range slices.Sorted(maps.Keys(w.members)) {
		for _, a := range w.members[task].addresses {
			if version(a) == v {
				return voice{l.Namespace(task), "task " + task, a}
			}
		}
	}
	return voice{}
}
