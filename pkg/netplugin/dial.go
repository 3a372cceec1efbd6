package netplugin

import (
	"context"
	"net"
)

// Dial implements Network. A connection stays in the namespace that it was made in.
func (l *Linux) Dial(ctx context.Context, task, network, address string) (c net.Conn, err error) {
	inside, err := openNamespace("task "+task, l.Namespace(task))
	if err != nil {
		return nil, err
	}
	defer inside.close()
	err = inside.within(func() (err error) {
		var d net.Dialer // which makes the socket of a literal address on the thread that it is called on
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}
