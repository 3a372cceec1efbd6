package cli

import (
	"net"
	"strings"
	"testing"
)

// led is a listener at whose address somebody else is reached.
type led struct {
	*net.TCPListener
	at net.Addr
}

func (l led) Addr() net.Addr { return l.at }

// TestForwardedPortIsReached: a port that leads to somebody else is not said to be forwarded.
func TestForwardedPortIsReached(t *testing.T) {
	listen := func() *net.TCPListener {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l.(*net.TCPListener)
	}
	l, other := listen(), listen()
	if err := reached(t.Context(), l, forwarding{port: 80}); err != nil {
		t.Error(err)
	}
	if err := reached(t.Context(), led{l, other.Addr()}, forwarding{port: 80}); err == nil || !strings.Contains(err.Error(), "such as 0:80") {
		t.Errorf("of a port that leads elsewhere: %v", err)
	}
}
