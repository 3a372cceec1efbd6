package netplugin

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	mdlayher "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// recorder is an nftables connection to no kernel: it keeps what is sent, and acknowledges it.
type recorder struct{ sent []mdlayher.Message }

func (r *recorder) conn(t *testing.T) *nftables.Conn {
	t.Helper()
	c, err := nftables.New(nftables.WithTestDial(func(req []mdlayher.Message) (acks []mdlayher.Message, err error) {
		r.sent = append(r.sent, req...)
		for _, m := range req {
			if m.Header.Flags&mdlayher.Acknowledge != 0 {
				acks = append(acks, mdlayher.Message{Header: mdlayher.Header{Length: 4, Type: mdlayher.Error, Sequence: m.Header.Sequence, PID: m.Header.PID}, Data: make([]byte, 4)})
			}
		}
		return acks, nil
	}))
	must(t, err)
	return c
}

// names are those of the messages in linux/netfilter/nf_tables.h.
var names = map[mdlayher.HeaderType]string{
	unix.NFNL_MSG_BATCH_BEGIN: "begin", unix.NFNL_MSG_BATCH_END: "end",
	nftMessage(unix.NFT_MSG_NEWTABLE): "add table", nftMessage(unix.NFT_MSG_DELTABLE): "delete table",
	nftMessage(unix.NFT_MSG_NEWCHAIN): "add chain", nftMessage(unix.NFT_MSG_DELCHAIN): "delete chain",
	nftMessage(unix.NFT_MSG_NEWRULE): "add rule", nftMessage(unix.NFT_MSG_DELRULE): "delete rules",
	nftMessage(unix.NFT_MSG_NEWSET): "add map", nftMessage(unix.NFT_MSG_NEWSETELEM): "add elements", nftMessage(unix.NFT_MSG_DELSETELEM): "delete elements",
}

func nftMessage(kind int) mdlayher.HeaderType {
	return mdlayher.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind)
}

// transcript is what was sent since the last call.
func (r *recorder) transcript() string {
	var lines []string
	for _, m := range r.sent {
		line := names[m.Header.Type]
		for _, name := range []string{mapPorts, mapBackends, mapPlaces, mapLinks, setAskers, setCallers, "pick1", "pick2", "pick16", "pick17", "pick18"} {
			if bytes.Contains(m.Data, []byte(name+"\x00")) && !strings.HasSuffix(line, "rule") && !strings.HasSuffix(line, "rules") {
				line += " " + name
			}
		}
		lines = append(lines, line)
	}
	r.sent = nil
	return strings.Join(lines, ", ")
}

func backends(n ...int) []netip.AddrPort { return published("tcp", 1, n...).Backends }

// some are the first n backends.
func some(n int) (all []netip.AddrPort) {
	for i := range n {
		all = append(all, backends(i)...)
	}
	return all
}

func TestPortsChangeInOneTransactionAfterTheirChains(t *testing.T) {
	a, b := portKey{unix.IPPROTO_TCP, 80}, portKey{unix.IPPROTO_UDP, 53}
	tests := []struct {
		name       string
		have, want ports
		sent       string
	}{
		{"nothing", ports{a: backends(1)}, ports{a: backends(1)}, ""},
		{"the first", nil, ports{a: backends(1)}, "begin, add elements ports pick1, add elements backends, end"},
		{"another backend", ports{a: backends(1), b: backends(3)}, ports{a: backends(2), b: backends(3)}, "begin, delete elements backends, add elements backends, end"},
		{"one more, as others have", ports{a: backends(1), b: backends(3, 4)}, ports{a: backends(1, 2), b: backends(3, 4)},
			"begin, delete elements ports pick1, add elements ports pick2, add elements backends, end"},
		{"one more than have a chain", ports{a: some(16)}, ports{a: some(17)},
			"begin, add chain pick17, add rule, add rule, end, begin, delete elements ports pick16, add elements ports pick17, add elements backends, end"},
		{"one more, as others have", ports{a: some(17), b: some(18)}, ports{a: some(18), b: some(18)},
			"begin, delete elements ports pick17, add elements ports pick18, add elements backends, delete rules, delete chain pick17, end"},
		{"one less, as others have", ports{a: some(18), b: some(18)}, ports{a: some(17), b: some(18)},
			"begin, add chain pick17, add rule, add rule, end, begin, delete elements ports pick18, delete elements backends, add elements ports pick17, end"},
		{"the last", ports{b: backends(1, 2)}, nil, "begin, delete elements ports pick2, delete elements backends, end"},
		{"the last of many", ports{b: some(17)}, nil, "begin, delete elements ports pick17, delete elements backends, delete rules, delete chain pick17, end"},
	}
	for _, tt := range tests {
		var r recorder
		tx := four.newTransaction(r.conn(t))
		if tx.addPicks(tt.have, tt.want) {
			must(t, tx.commit())
		}
		tx.change(publication{ports: tt.have}, publication{ports: tt.want})
		must(t, tx.commit())
		if got := r.transcript(); got != tt.sent {
			t.Errorf("%s: sent %s\nwant %s", tt.name, got, tt.sent)
		}
	}
}

func TestTableIsReplacedInOneTransaction(t *testing.T) {
	var r recorder
	tx := four.newTransaction(r.conn(t))
	tx.replaceTable(append(tx.maps, four.askerSets(tx.table)...), hostChains(base{block: testBlock, pool: testPool}.side(0)))
	must(t, tx.commit())
	got := r.transcript()
	if !strings.HasPrefix(got, "begin, add table, delete table, add table, add map ports, add map backends, add map places, add map links, add map askers, add map callers, add chain") ||
		!strings.HasSuffix(got, ", end") || strings.Count(got, "begin") != 1 {
		t.Errorf("sent %s", got)
	}
}

func TestManyElementsAreSentInParts(t *testing.T) {
	var r recorder
	want := ports{}
	for i := range uint16(3000) {
		want[portKey{unix.IPPROTO_TCP, 1000 + i}] = backends(1)
	}
	tx := four.newTransaction(r.conn(t))
	tx.change(publication{}, publication{ports: want})
	must(t, tx.commit())
	if n := strings.Count(r.transcript(), "add elements ports"); n != 6 {
		t.Errorf("3000 elements in %d messages, want 6 of at most %d", n, elementsPerMessage)
	}
}

func TestPortElements(t *testing.T) {
	var got []string
	k := portKey{unix.IPPROTO_UDP, 0x1234}
	p := publication{ports{k: {netip.MustParseAddrPort("100.64.1.2:80"), netip.MustParseAddrPort("100.64.1.3:256")}}, map[portKey][]Place{}}
	for _, e := range p.portElements(four, k) {
		got = append(got, fmt.Sprintf("%s %x:%x", e.in, e.key, e.val))
	}
	p.places[k] = []Place{{Prefix: netip.MustParsePrefix("10.0.0.0/8")}, {Link: "eth1"}}
	for _, e := range p.portElements(four, k)[:2] {
		got = append(got, fmt.Sprintf("%s %x-%x:%x", e.in, e.key, e.end, e.val))
	}
	want := []string{
		"ports 1100000012340000:" + hex.EncodeToString([]byte("pick2")),
		"backends 110000001234000000000000:6440010200500000",
		"backends 110000001234000001000000:6440010301000000",
		"places 11000000123400000a000000-11000000123400000affffff:" + hex.EncodeToString([]byte("pick2")),
		"links 110000001234000065746831000000000000000000000000-:" + hex.EncodeToString([]byte("pick2")),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRulesAreTold(t *testing.T) {
	type told struct {
		where string
		exprs []expr.Any
	}
	tags := map[string]told{}
	for _, chains := range [][]chain{hostChains(base{block: testBlock, pool: testPool}.side(0)), routerChains(base{block: testBlock, pool: testPool}.side(0))} {
		for _, c := range chains {
			for i, r := range c.rules {
				tag, where := string(r.tag()), fmt.Sprintf("%s %d", c.name, i)
				if !bytes.Equal(r.tag(), []byte(tag)) {
					t.Errorf("the tag of rule %s is another each time", where)
				}
				if other, twice := tags[tag]; twice && !reflect.DeepEqual(other.exprs, r.exprs) {
					t.Errorf("rules %s and %s are not the same and have one tag %q", where, other.where, tag)
				}
				tags[tag] = told{where, r.exprs}
				if len(tag) > 128 {
					t.Errorf("the comment of rule %s has %d bytes; nft shows 128", where, len(tag))
				}
			}
		}
	}
	other := hostChains(base{block: netip.MustParsePrefix("100.64.2.0/24"), pool: testPool}.side(0))
	same := slices.EqualFunc(hostChains(base{block: testBlock, pool: testPool}.side(0)), other, func(a, b chain) bool {
		return slices.EqualFunc(a.rules, b.rules, func(a, b rule) bool { return bytes.Equal(a.tag(), b.tag()) })
	})
	if same {
		t.Error("rules for another block have the same tags")
	}
}
