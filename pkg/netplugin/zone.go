package netplugin

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	mdlayher "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// One client's port may come to one backend by way of two nodes, as two connections that look the same at the backend's machine. A
// zone for each ingress keeps them apart. Only the way there is in the zone: a reply comes by no ingress.
//
// The rule is in a table of its own, which changes with no other: a connection that changes its zone breaks.

const zoneTableName = tableName + "_zones"

// zoneTable is that table of an IP version.
func (s side) zoneTable() *nftables.Table {
	return &nftables.Table{Name: zoneTableName, Family: s.table}
}

// zoneChain is its one chain. What the rule ends in is said by addZoneRule.
func zoneChain() chain {
	return chain{name: "prerouting", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookPrerouting, prio: nftables.ChainPriorityRaw, rules: []rule{
		{"a zone for each ingress", join(inLink(meshLink, true), []expr.Any{
			&expr.Payload{DestRegister: register, Base: expr.PayloadBaseLLHeader, Offset: 6 + 4, Len: 2},
			&expr.Byteorder{SourceRegister: register, DestRegister: register, Op: expr.ByteorderNtoh, Len: 2, Size: 2},
		})},
	}}
}

// ensureZones makes the table, or removes it where there are no other nodes.
func (l *Linux) ensureZones(s side, wanted bool) error {
	c, err := l.router.firewall()
	if err != nil {
		return err
	}
	table, want := s.zoneTable(), zoneChain()
	found, err := chainsOf(c, table)
	if err != nil {
		return fmt.Errorf("read table %s of %s: %w", table.Name, l.router.name, err)
	}
	t := &transaction{Conn: c, table: table}
	if !wanted {
		if len(found) == 0 {
			return nil
		}
		t.removeTable()
		return t.commit()
	}
	if ok, err := l.router.sameZones(found, want); ok || err != nil {
		return err
	}
	bare := want
	bare.rules = nil
	t.replaceTable(nil, []chain{bare})
	if err = t.commit(); err == nil {
		err = l.router.addZoneRule(table, want)
	}
	if err != nil {
		return fmt.Errorf("make table %s in %s: %w", table.Name, l.router.name, err)
	}
	return nil
}

// addZoneRule adds the chain's one rule, which goes on to set the zone of the original direction. The nftables package cannot say
// which direction a zone is for.
func (n *namespace) addZoneRule(table *nftables.Table, in chain) error {
	family := byte(table.Family)
	var list []mdlayher.Attribute
	for _, e := range in.rules[0].exprs {
		b, err := expr.Marshal(family, e)
		if err != nil {
			return err
		}
		list = append(list, mdlayher.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: b})
	}
	zone, err := setOriginalZone(register)
	if err != nil {
		return err
	}
	list = append(list, mdlayher.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: zone})
	exprs, err := mdlayher.MarshalAttributes(list)
	if err != nil {
		return err
	}
	rule, err := mdlayher.MarshalAttributes([]mdlayher.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(table.Name + "\x00")},
		{Type: unix.NFTA_RULE_CHAIN, Data: []byte(in.name + "\x00")},
		{Type: unix.NLA_F_NESTED | unix.NFTA_RULE_EXPRESSIONS, Data: exprs},
		{Type: unix.NFTA_RULE_USERDATA, Data: in.rules[0].tag()},
	})
	if err != nil {
		return err
	}
	return n.batch(mdlayher.Message{
		Header: mdlayher.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE, Flags: mdlayher.Request | mdlayher.Acknowledge | mdlayher.Create | mdlayher.Append},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, rule...),
	})
}

// setOriginalZone is the expression "ct original zone set" of a register's number.
func setOriginalZone(from uint32) ([]byte, error) {
	data, err := mdlayher.MarshalAttributes([]mdlayher.Attribute{
		{Type: unix.NFTA_CT_KEY, Data: binaryutil.BigEndian.PutUint32(unix.NFT_CT_ZONE)},
		{Type: unix.NFTA_CT_DIRECTION, Data: []byte{0}}, // IP_CT_DIR_ORIGINAL
		{Type: unix.NFTA_CT_SREG, Data: binaryutil.BigEndian.PutUint32(from)},
	})
	if err != nil {
		return nil, err
	}
	return mdlayher.MarshalAttributes([]mdlayher.Attribute{
		{Type: unix.NFTA_EXPR_NAME, Data: []byte("ct\x00")},
		{Type: unix.NLA_F_NESTED | unix.NFTA_EXPR_DATA, Data: data},
	})
}

// sameZones tells whether the table is as it should be. The nftables package cannot read a rule that it cannot say.
func (n *namespace) sameZones(have map[string]*nftables.Chain, want chain) (bool, error) {
	if len(have) != 1 || !sameHook(have[want.name], want) {
		return false, nil
	}
	tags, err := n.tags(have[want.name].Table, want.name)
	return len(tags) == 1 && bytes.Equal(tags[0], want.rules[0].tag()), err
}

// tags are those of a chain's rules.
func (n *namespace) tags(table *nftables.Table, in string) (tags [][]byte, err error) {
	c, err := mdlayher.Dial(unix.NETLINK_NETFILTER, &mdlayher.Config{NetNS: int(n.fd)})
	if err != nil {
		return nil, fmt.Errorf("open nftables of %s: %w", n.name, err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	which, err := mdlayher.MarshalAttributes([]mdlayher.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(table.Name + "\x00")},
		{Type: unix.NFTA_RULE_CHAIN, Data: []byte(in + "\x00")},
	})
	if err != nil {
		return nil, err
	}
	list, err := c.Execute(mdlayher.Message{
		Header: mdlayher.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: mdlayher.Request | mdlayher.Dump},
		Data:   append([]byte{byte(table.Family), unix.NFNETLINK_V0, 0, 0}, which...),
	})
	if err != nil {
		return nil, fmt.Errorf("list rules of chain %s: %w", in, err)
	}
	for _, m := range list {
		attributes, err := mdlayher.UnmarshalAttributes(m.Data[4:])
		if err != nil {
			return nil, err
		}
		tag := []byte{}
		for _, a := range attributes {
			if a.Type == unix.NFTA_RULE_USERDATA {
				tag = a.Data
			}
		}
		tags = append(tags, tag)
	}
	return tags, nil
}

// batch sends a message to the namespace's nftables as a transaction.
func (n *namespace) batch(m mdlayher.Message) (err error) {
	c, err := mdlayher.Dial(unix.NETLINK_NETFILTER, &mdlayher.Config{NetNS: int(n.fd)})
	if err != nil {
		return fmt.Errorf("open nftables of %s: %w", n.name, err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	edge := func(kind mdlayher.HeaderType) mdlayher.Message {
		return mdlayher.Message{Header: mdlayher.Header{Type: kind, Flags: mdlayher.Request}, Data: []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}}
	}
	sent, err := c.SendMessages([]mdlayher.Message{edge(unix.NFNL_MSG_BATCH_BEGIN), m, edge(unix.NFNL_MSG_BATCH_END)})
	if err != nil {
		return err
	}
	n.passing = append(n.passing[max(0, len(n.passing)-15):], port{unix.NETLINK_NETFILTER, sent[0].Header.PID})
	_, err = c.Receive()
	return err
}
