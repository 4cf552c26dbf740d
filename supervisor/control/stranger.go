package control

import (
	"context"
	"net"
	"sync/atomic"
)

// maxStrangers is how many connections all those together may hold that have
// no right at all: enough to be told so, too few to use up the descriptors
// that renewals need.
const maxStrangers = 8

// A door accepts connections, and knows of each who is at its other end.
type door struct {
	*net.UnixListener
	rightOf   func(peer) right
	strangers atomic.Int32
}

// A guest is a connection together with who is at its other end.
type guest struct {
	net.Conn
	peer
	right right
	leave func()
}

// Accept returns the next connection that may be talked to.
func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.AcceptUnix()
		if err != nil {
			return nil, err
		}
		p, err := peerOf(c)
		if err != nil {
			c.Close() // who hung up before being asked wants no answer
			continue
		}
		g := &guest{Conn: c, peer: p, right: d.rightOf(p), leave: func() {}}
		if g.right == none {
			if d.strangers.Add(1) > maxStrangers {
				d.strangers.Add(-1)
				c.Close()
				continue
			}
			var left atomic.Bool
			g.leave = func() {
				if !left.Swap(true) {
					d.strangers.Add(-1)
				}
			}
		}
		return g, nil
	}
}

func (g *guest) Close() error {
	defer g.leave()
	return g.Conn.Close()
}

// The server's contexts carry the guest.
type guestKey struct{}

func withGuest(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, guestKey{}, c)
}

func guestOf(ctx context.Context) *guest { return ctx.Value(guestKey{}).(*guest) }
