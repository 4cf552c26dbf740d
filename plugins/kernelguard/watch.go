package kernelguard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Of linux/netfilter/nf_tables.h: what Watch hears of.
const (
	tableRemoved netlink.HeaderType = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELTABLE
	changed      netlink.HeaderType = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN // ends each transaction

	tableName           = 1 // attributes
	authorPID, authorIs = 2, 3

	sizeofNfgenmsg = 4
)

// Watch calls gone each time that somebody may have removed the guard's tables,
// with the program that did, where the kernel tells, until ctx ends. It also
// does so when this process has built them anew, and when more has happened
// than the kernel could tell of a guard that was there: State knows. An error says why it ended before.
func (g *Guard) Watch(ctx context.Context, gone func(by string)) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	if err != nil {
		return fmt.Errorf("hear of nftables: %w", explain(err))
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	removed := false
	for {
		told, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, unix.ENOBUFS):
			if removed = false; g.wasKnown() {
				gone("")
			}
			continue
		case err != nil:
			return fmt.Errorf("hear of nftables: %w", explain(err))
		}
		for _, m := range told {
			if len(m.Data) < sizeofNfgenmsg {
				continue
			}
			switch m.Header.Type {
			case tableRemoved:
				removed = removed || g.isNamed(m.Data[sizeofNfgenmsg:])
			case changed:
				if removed {
					removed = false
					gone(author(m.Data[sizeofNfgenmsg:]))
				}
			}
		}
	}
}

// wasKnown tells whether the tables are installed, as far as this process knows.
func (g *Guard) wasKnown() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.known
}

// isNamed tells whether the attributes of a table are those of a guard's.
func (g *Guard) isNamed(attributes []byte) bool {
	ad, err := netlink.NewAttributeDecoder(attributes)
	if err != nil {
		return false
	}
	for ad.Next() {
		if ad.Type() == tableName {
			return ad.String() == g.name
		}
	}
	return false
}

// author is who has made a transaction, as "nft (4711)".
func author(attributes []byte) string {
	ad, err := netlink.NewAttributeDecoder(attributes)
	if err != nil {
		return ""
	}
	ad.ByteOrder = binary.BigEndian
	var pid uint32
	var name string
	for ad.Next() {
		switch ad.Type() {
		case authorPID:
			pid = ad.Uint32()
		case authorIs:
			name = ad.String()
		}
	}
	if name == "" {
		return ""
	}
	return fmt.Sprintf("%s (%d)", name, pid)
}
