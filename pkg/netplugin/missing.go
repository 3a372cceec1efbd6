package netplugin

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// The kernel does not tell who took a link away, or down, or made a setting. While an Apply runs that may be the Apply itself: so where there was
// news of links meanwhile, those are looked for at its end that it leaves there; and it never has a namespace forward nothing.

// linked are the namespaces that are listened to, each with what says which links it has as far as is known.
func (l *Linux) linked() map[*namespace]func() []string {
	all := map[*namespace]func() []string{l.host: l.hostLinks}
	if l.router != nil {
		all[l.router] = l.routerLinks
	}
	for _, o := range l.overlays {
		if o.space != nil {
			all[o.space] = o.links
		}
	}
	return all
}

func (l *Linux) hostLinks() []string {
	if !l.synced {
		return nil
	}
	return []string{hostLink}
}

func (l *Linux) routerLinks() []string {
	if !l.synced {
		return nil
	}
	here := []string{routerLink}
	if l.vx != 0 {
		here = append(here, meshLink)
	}
	for _, t := range l.have.tasks {
		here = append(here, linkName(t.Address))
	}
	return here
}

func (o *overlay) links() (here []string) {
	if !o.synced {
		return nil
	}
	if o.vx != nil {
		here = append(here, o.vx.Attrs().Name)
	}
	for _, m := range o.members {
		here = append(here, linkName(m.link))
	}
	return here
}

// missLinks adds to what was found the links that are not as they should be.
func (l *Linux) missLinks(found map[string]int) {
	for space, links := range l.linked() {
		o := l.watch.spaces[space]
		if o == nil || !o.relinked {
			continue
		}
		o.relinked = false
		if n := o.missing(links()); n > 0 {
			found[kindLink] += n
		}
	}
}

// missing counts the links that are not there, or carry nothing. One that was made just now may not carry packets yet.
func (s *scene) missing(names []string) (n int) {
	sound := make(map[string]bool, len(s.links))
	for _, f := range s.links {
		sound[f.name] = f.up && f.master == 0 && (f.carrier || !f.carried)
	}
	for _, name := range names {
		if !sound[name] {
			n++
		}
	}
	return n
}

// stopsForwarding tells whether a message says that the namespace forwards nothing any more. The machine itself may forward IPv6 by its links alone.
func (s *scene) stopsForwarding(m *syscall.NetlinkMessage) bool {
	if m.Header.Type != unix.RTM_NEWNETCONF {
		return false
	}
	settings := readSettings(m.Data)
	forwards, told := settings[configForwarding]
	return told && forwards == 0 && settings[configIndex] == configOfAll && (s.inner || m.Data[0] == unix.AF_INET)
}
