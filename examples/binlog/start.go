package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The lock is what proves that no parser runs. It belongs to the open file,
// which start hands on to the parser: so it is held without a gap from before
// the parser's process exists until that has gone, and a start that is killed
// half-way leaves nothing that a stop after it would not see.

// A holder is what the lock's file says about the process that holds it.
type holder struct {
	PID  int    `json:"pid"`
	Term uint64 `json:"term"`
	Own  string `json:"own"` // the address of the node's own that it answers on
}

// look is how often a hook looks again for what it waits for.
const look = time.Millisecond

var errHeld = errors.New("the lock is held")

// lock takes the node's lock. With errHeld, the file tells who has it.
func (p parser) lock() (*os.File, error) {
	if p.stateDir == "" {
		return nil, errors.New("no state directory given")
	}
	if err := os.MkdirAll(p.stateDir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(p.lockFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return f, errHeld
	case err != nil:
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, nil
}

func writeHolder(f *os.File, h holder) error {
	data, err := json.Marshal(h)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	return err
}

// readHolder returns the zero holder while the parser has not written itself
// down yet.
func readHolder(f *os.File) holder {
	var h holder
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 512))
	if err != nil || json.Unmarshal(data, &h) != nil {
		return holder{}
	}
	return h
}

// start starts this node's parser and returns when it answers.
func (p parser) start(a act) (int, error) {
	lock, err := p.lock()
	if errors.Is(err, errHeld) {
		defer lock.Close()
		switch h := readHolder(lock); {
		case h.Term > a.term:
			return exitStale, fmt.Errorf("a parser of term %d runs here", h.Term)
		case h.Term == a.term:
			answer, err := p.ask(p.own, time.Until(a.deadline))
			if err == nil && answer.PID != h.PID {
				err = fmt.Errorf("process %d answers in its place", answer.PID)
			}
			if err != nil {
				return exitUnknown, fmt.Errorf("process %d runs and does not answer: %w", h.PID, err)
			}
			return exitAlready, nil
		}
		if code, err := p.stop(a); err != nil {
			return code, fmt.Errorf("stop the parser of an older term: %w", err)
		}
		lock, err = p.lock()
	}
	if err != nil {
		return exitUnchanged, err
	}
	defer lock.Close()
	if err := a.mayServe(); err != nil {
		return exitUnchanged, err
	}
	if err := lock.Truncate(0); err != nil {
		return exitUnchanged, err
	}
	self, err := os.Executable()
	if err != nil {
		return exitUnchanged, err
	}
	log, err := os.OpenFile(filepath.Join(p.stateDir, "parser.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return exitUnchanged, err
	}
	defer log.Close()
	cmd := exec.Command(self, "parse", "-positions", p.positions, "-port", p.port, "-own", p.own, "-service", p.service, "-state", p.stateDir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives this hook's process group
	if err := cmd.Start(); err != nil {
		return exitUnchanged, err
	}
	for time.Now().Before(a.deadline) {
		if answer, err := p.ask(p.own, 20*time.Millisecond); err == nil && answer.PID == cmd.Process.Pid && answer.Term == a.term {
			return exitDone, nil
		}
		var status unix.WaitStatus
		if pid, err := unix.Wait4(cmd.Process.Pid, &status, unix.WNOHANG, nil); err != nil || pid != 0 {
			return exitUnchanged, fmt.Errorf("the parser ended with %d, see %s", status.ExitStatus(), log.Name())
		}
		time.Sleep(look)
	}
	if err := unix.Kill(cmd.Process.Pid, unix.SIGKILL); err != nil {
		return exitUnknown, err
	}
	if _, err := unix.Wait4(cmd.Process.Pid, nil, 0, nil); err != nil {
		return exitUnknown, err
	}
	return exitUnchanged, errors.New("the parser did not answer in time")
}

// grace is what a planned stop gives the parser to end by itself.
const grace = 300 * time.Millisecond

// stop ends this node's parser and returns when none can run.
func (p parser) stop(a act) (int, error) {
	code := exitAlready
	hard := time.Now()
	if !a.forced {
		hard = hard.Add(grace)
	}
	told := false
	for {
		lock, err := p.lock()
		if err == nil { // nobody else holds it: this is the proof
			return code, errors.Join(lock.Truncate(0), lock.Close())
		}
		if !errors.Is(err, errHeld) {
			return exitUnknown, err
		}
		code = exitDone
		kill := !time.Now().Before(hard)
		if kill || !told {
			told = true
			err = p.signal(lock, kill)
		} else {
			err = nil
		}
		lock.Close()
		if err != nil {
			return exitUnknown, err
		}
		if !time.Now().Before(a.deadline) {
			return exitUnknown, errors.New("the parser did not end in time")
		}
		time.Sleep(look)
	}
}

// signal tells the lock's holder to end. The process is pinned before the file
// is read again, so that a number used anew is never hit.
func (p parser) signal(lock *os.File, kill bool) error {
	h := readHolder(lock)
	if h.PID == 0 {
		return nil // about to write itself down: look again
	}
	fd, err := unix.PidfdOpen(h.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", h.PID, err)
	}
	defer unix.Close(fd)
	again, err := p.lock()
	if again != nil {
		defer again.Close()
	}
	if !errors.Is(err, errHeld) || readHolder(lock) != h {
		return nil // it has gone: look again
	}
	sig := unix.SIGTERM
	if kill {
		sig = unix.SIGKILL
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", h.PID, err)
	}
	return nil
}
