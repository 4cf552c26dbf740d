package plugin

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A lifeline has the kernel kill a process group when this process dies. It is
// a pipe: the group holds the end that reads, this process the end that
// writes, and the death of the only writer is an event of which the kernel
// notifies the owner of the other end by the signal set for it (fcntl(2),
// F_SETOWN, F_SETSIG, O_ASYNC). Other than a parent-death signal it is about
// the process, not about the thread that happened to fork.
type lifeline struct {
	read  *os.File // also open in the group
	write *os.File
}

func newLifeline() (*lifeline, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("open lifeline: %w", err)
	}
	return &lifeline{read: r, write: w}, nil
}

// arm ties the group to this process.
func (l *lifeline) arm(group int) error {
	return l.control(func(fd uintptr) error {
		if _, err := unix.FcntlInt(fd, unix.F_SETOWN, -group); err != nil {
			return err
		}
		if _, err := unix.FcntlInt(fd, fSetSig, int(unix.SIGKILL)); err != nil {
			return err
		}
		return setAsync(fd, unix.O_ASYNC)
	})
}

// fSetSig is F_SETSIG of asm-generic/fcntl.h, which x/sys leaves out.
const fSetSig = 10

// disarm lets the group outlive this process, and closes the line.
func (l *lifeline) disarm() error {
	err := l.control(func(fd uintptr) error { return setAsync(fd, 0) })
	l.close()
	return err
}

// close closes the line; a group that it is armed for is killed.
func (l *lifeline) close() {
	l.write.Close()
	l.read.Close()
}

func (l *lifeline) control(f func(fd uintptr) error) error {
	conn, err := l.read.SyscallConn()
	if err != nil {
		return err
	}
	var did error
	if err := conn.Control(func(fd uintptr) { did = f(fd) }); err != nil {
		return err
	}
	return did
}

func setAsync(fd uintptr, to int) error {
	flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(fd, unix.F_SETFL, flags&^unix.O_ASYNC|to)
	}
	return err
}
