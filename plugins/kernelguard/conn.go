package kernelguard

import (
	"errors"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// answerTime is how long the kernel may take for an answer, which it has ready
// when the request returns.
const answerTime = 2 * time.Second

// A conn is one lasting connection to nftables. Opening is cheap, but closing
// waits for the kernel to free what was deleted before, some 10 ms.
type conn struct {
	nft    *nftables.Conn
	socket *netlink.Conn
}

// do runs f on the connection, which is opened anew after any error: replies to
// what has failed may still be waiting in the old one.
func (c *conn) do(f func(*nftables.Conn) error) error {
	if c.nft == nil {
		nft, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(s *netlink.Conn) error {
			c.socket = s
			return nil
		}))
		if err != nil {
			return explain(err)
		}
		c.nft = nft
	}
	err := c.socket.SetDeadline(time.Now().Add(answerTime))
	if err == nil {
		err = f(c.nft)
	}
	if err != nil {
		return errors.Join(explain(err), c.close())
	}
	return nil
}

func (c *conn) close() error {
	if c.nft == nil {
		return nil
	}
	err := c.nft.CloseLasting()
	c.nft, c.socket = nil, nil
	return err
}
