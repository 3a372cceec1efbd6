package dnsplugin

import (
	"fmt"
	"net"

	"github.com/miekg/dns"
)

// Ask asks a resolver for a name's addresses over a connection to it, of TCP or UDP, and tells whether it has any, of either IP version. It is for checks.
func Ask(c net.Conn, name string) (found bool, err error) {
	conn := &dns.Conn{Conn: c}
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		m := new(dns.Msg)
		m.SetQuestion(dns.Fqdn(name), kind)
		if err := conn.WriteMsg(m); err != nil {
			return false, err
		}
		answer, err := conn.ReadMsg()
		switch {
		case err != nil:
			return false, err
		case answer.Id != m.Id:
			return false, fmt.Errorf("the answer is to another question")
		case len(answer.Answer) > 0:
			return true, nil
		case answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError:
			return false, fmt.Errorf("the answer is %s", dns.RcodeToString[answer.Rcode])
		}
	}
	return false, nil
}
