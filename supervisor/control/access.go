package control

import (
	"errors"
	"fmt"
	"net"
	"os/user"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The groups whose members may use the socket of a supervisor that is not
// theirs.
const (
	Readers  = "deputy"
	Steerers = "deputy-admin"
)

// ErrDenied is the error of somebody who may not ask for what was asked for.
var ErrDenied = errors.New("not permitted")

// A right is what somebody may do. A higher one includes those below.
type right int

const (
	none right = iota
	read
	steer
)

// A peer is the process at the other end of a connection, as the kernel saw
// it when it connected.
type peer struct {
	uid    uint32
	groups []uint32 // the effective one and the supplementary ones
}

// peerOf asks the kernel who is at the other end of c.
func peerOf(c *net.UnixConn) (peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return peer{}, fmt.Errorf("ask who connected: %w", err)
	}
	var p peer
	var asked error
	err = raw.Control(func(fd uintptr) { p, asked = credentials(int(fd)) })
	if err = errors.Join(err, asked); err != nil {
		return peer{}, fmt.Errorf("ask who connected: %w", err)
	}
	return p, nil
}

func credentials(fd int) (peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return peer{}, err
	}
	supplementary, err := peerGroups(fd)
	if err != nil {
		return peer{}, err
	}
	return peer{uid: cred.Uid, groups: append(supplementary, cred.Gid)}, nil
}

// peerGroups returns the supplementary groups of the peer (SO_PEERGROUPS,
// socket(7), since Linux 4.13). SO_PEERCRED names one group only, and the
// groups under /proc may be those of the next process with that number.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && int(size/4) > len(groups):
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}

// name returns the peer's user name, or its number where it has none.
func (p peer) name() string {
	id := strconv.FormatUint(uint64(p.uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "uid " + id
}

// rightOf tells what p may do. Groups are looked up each time, so that one
// that is created later counts from then on; lookup returns false for a group
// that does not exist.
func rightOf(p peer, own uint32, lookup func(group string) (gid uint32, ok bool)) right {
	in := func(group string) bool {
		gid, ok := lookup(group)
		return ok && slices.Contains(p.groups, gid)
	}
	switch {
	case p.uid == 0, p.uid == own, in(Steerers):
		return steer
	case in(Readers):
		return read
	}
	return none
}

func lookupGroup(name string) (uint32, bool) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, false
	}
	gid, err := strconv.ParseUint(g.Gid, 10, 32)
	return uint32(gid), err == nil
}

// denied says who may do what, so that somebody refused knows whom to ask for
// which group.
func denied(need right, who string) error {
	if need == steer {
		return fmt.Errorf("%w: only root and members of the group %s may steer this service; this is %s", ErrDenied, Steerers, who)
	}
	return fmt.Errorf("%w: only root and members of the groups %s and %s may see this service; this is %s", ErrDenied, Readers, Steerers, who)
}
