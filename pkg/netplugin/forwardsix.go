package netplugin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A machine that forwards IPv6 is a router to the kernel, and does not heed the routers of its own links any more: it would lose its
// addresses and its way out, where it has them from router advertisements. Since version 6.17 the kernel can be told to forward all
// the same, by links: then nothing else changes, and a rule sees to it that only what is ours is forwarded. Before that, the links that
// heed advertisements are told to go on doing so, and then the machine forwards.

// confDir has a directory of settings for each link, and for "all" and "default".
const confDir = "/proc/sys/net/ipv6/conf"

const (
	settingForward = "forwarding"
	settingForce   = "force_forwarding"
	settingAdvert  = "accept_ra"
)

// conf is a setting of IPv6 by its link. A link's name may have dots, which in the names of sysctls are slashes.
type conf struct{ link, name, value string }

func (c conf) path() string { return filepath.Join(confDir, c.link, c.name) }

// now is the value that there is; empty where there is none.
func (c conf) now() string {
	b, err := os.ReadFile(c.path())
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func confNow(link, name string) string { return conf{link, name, ""}.now() }

// set writes the value, unless it is there or the link is gone.
func (c conf) set() error {
	if now := c.now(); now == c.value || now == "" {
		return nil
	}
	err := os.WriteFile(c.path(), []byte(c.value), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("set IPv6's %s of %s to %s: %w", c.name, c.link, c.value, err)
	}
	return nil
}

// forwardSixFile remembers how the settings were that we changed to have the machine forward IPv6.
func (l *Linux) forwardSixFile() string { return filepath.Join(l.dir, "ip6_forward") }

// weighForward finds whether the machine is to forward nothing but what is ours. The calling thread must be in its namespace.
func (l *Linux) weighForward() {
	l.force = !l.old && confNow("all", settingForce) != ""
	l.kept = l.force && confNow("all", settingForward) == "0"
}

// enableForwardSix makes the machine forward IPv6, and remembers how it was before. A machine that does so already stays as it is.
func (l *Linux) enableForwardSix() error {
	if !l.hostSix {
		return nil
	}
	return l.host.within(func() error {
		known, ours, err := l.notedSix()
		if err != nil || confNow("all", settingForward) == "1" && (!ours || l.force) {
			return err
		}
		links, err := confLinks()
		if err != nil {
			return err
		}
		before, change := forceAll(links, !ours)
		if !l.force {
			before, change = routeAll(links, !ours)
		}
		if len(change) == 0 {
			return nil
		}
		if !ours {
			l.log.Info("making this machine forward IPv6 packets", "only", "the swarm's", "by links", l.force)
		}
		if err := l.noteSix(known, before); err != nil {
			return err
		}
		for _, c := range change {
			if err := c.set(); err != nil {
				return err
			}
		}
		return nil
	})
}

// confLinks are the machine's links that have IPv6, but for the loopback.
func confLinks() (links []string, err error) {
	entries, err := os.ReadDir(confDir)
	for _, e := range entries {
		if name := e.Name(); name != "all" && name != "default" && name != "lo" {
			links = append(links, name)
		}
	}
	return links, err
}

// forceAll has packets that come by any link forwarded, of those to come too. Before is how it was, in the order of putting it back: what
// is written to "all" is every link's.
func forceAll(links []string, first bool) (before, change []conf) {
	for _, link := range append([]string{"all", "default"}, links...) {
		c := conf{link, settingForce, "1"}
		now := c.now()
		if now != "1" {
			change = append(change, c)
		}
		if now == "1" == first && link != hostLink {
			before = append(before, conf{link, settingForce, now})
		}
	}
	if first {
		before = append([]conf{{"all", settingForce, "0"}, {"default", settingForce, confNow("default", settingForce)}}, before...)
	}
	return before, change
}

// routeAll makes the machine a router that heeds other routers as before.
func routeAll(links []string, first bool) (before, change []conf) {
	if first {
		before = append(before, conf{"all", settingForward, "0"})
		for _, link := range append([]string{"default"}, links...) {
			if c := (conf{link, settingForward, "1"}); c.now() == "1" && link != hostLink {
				before = append(before, c)
			}
		}
	}
	for _, link := range append([]string{"default"}, links...) {
		if was := (conf{link, settingAdvert, "1"}); was.now() == "1" && link != hostLink {
			before, change = append(before, was), append(change, conf{link, settingAdvert, "2"})
		}
	}
	if c := (conf{"all", settingForward, "1"}); c.now() != "1" {
		change = append(change, c)
	}
	return before, change
}

// notedSix is what was remembered. ours is false where that is nothing of this boot.
func (l *Linux) notedSix() (known []conf, ours bool, err error) {
	note, err := os.ReadFile(l.forwardSixFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	mark, markErr := l.bootMark()
	if err := errors.Join(err, markErr); err != nil {
		return nil, false, err
	}
	lines, ours := strings.CutPrefix(string(note), mark)
	if !ours {
		return nil, false, nil
	}
	for line := range strings.Lines(lines) {
		if f := strings.Fields(line); len(f) == 3 {
			known = append(known, conf{f[0], f[1], f[2]})
		}
	}
	return known, true, nil
}

// noteSix remembers how settings were, those too that are known already.
func (l *Linux) noteSix(known, before []conf) error {
	mark, err := l.bootMark()
	if err != nil {
		return err
	}
	for _, c := range before {
		if !slices.ContainsFunc(known, func(k conf) bool { return k.link == c.link && k.name == c.name }) {
			known = append(known, c)
		}
	}
	note := []byte(mark)
	for _, c := range known {
		note = fmt.Appendf(note, "%s %s %s\n", c.link, c.name, c.value)
	}
	return os.WriteFile(l.forwardSixFile(), note, 0o600)
}

// restoreForwardSix undoes enableForwardSix.
func (l *Linux) restoreForwardSix() error {
	known, _, err := l.notedSix()
	if err != nil {
		return err
	}
	err = l.host.within(func() error {
		var errs []error
		for _, c := range known {
			errs = append(errs, c.set())
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return err
	}
	if err := os.Remove(l.forwardSixFile()); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
