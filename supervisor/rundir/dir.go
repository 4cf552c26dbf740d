package rundir

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// The files of a run directory.
const (
	lockFile  = "lock"
	noteFile  = "note"
	untilFile = "until" // 8 bytes: an instant in nanoseconds, little endian
)

// A Dir is the run directory of one service on this node, held for the one
// supervisor there may be. It is the member's Memory; its methods may be
// called at the same time.
type Dir struct {
	path string
	lock *os.File

	mu      sync.Mutex
	note    *os.File // nil where there is no room
	until   *os.File
	last    supervisor.Note // as loaded, then as saved
	damaged error
	eight   [8]byte
}

// Open makes the directory where it is missing, with mode 0751 and the group
// deputy if there is one, and holds it until Close or the end of the process.
// The error is ErrHeld, and names the process, when another one holds it. A
// full disk or a damaged note is none: Save and Load tell.
func Open(path string) (*Dir, error) {
	if err := makeDir(path); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	lock, err := hold(filepath.Join(path, lockFile))
	if err != nil {
		return nil, fmt.Errorf("hold run directory: %w", err)
	}
	d := &Dir{path: path, lock: lock}
	switch page, err := os.ReadFile(d.file(noteFile)); {
	case errors.Is(err, fs.ErrNotExist): // nothing was noted
	case err != nil:
		d.damaged = fmt.Errorf("%w: %w", ErrDamaged, err)
	default:
		d.last, d.damaged = decode(page)
	}
	// Without room Save says so, and tries again.
	_ = d.makeRoom()
	return d, nil
}

// Close lets go of the directory. What is noted stays.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	errs := []error{d.lock.Close()}
	for _, f := range []*os.File{d.note, d.until} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Path is the directory's own.
func (d *Dir) Path() string { return d.path }

func (d *Dir) file(name string) string { return filepath.Join(d.path, name) }

// Load returns what the process before noted, or this one; the zero Note when
// nothing was. Its Tenure's Until is the last one given to SaveUntil, where
// that is later. The error is ErrDamaged: then nothing is known, and whatever
// this node should not hold has to be taken down.
func (d *Dir) Load() (supervisor.Note, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.damaged != nil {
		return supervisor.Note{}, fmt.Errorf("read %s, so this node must not rely on what it was: %w", d.file(noteFile), d.damaged)
	}
	n := d.last
	if n.Tenure == nil {
		return n, nil
	}
	t := *n.Tenure
	n.Tenure = &t
	b, err := os.ReadFile(d.file(untilFile))
	if err == nil && len(b) == len(d.eight) {
		t.Until = max(t.Until, sdk.Instant(binary.LittleEndian.Uint64(b)))
	}
	return n, nil
}

// Save notes n in place of the note before. The error is ErrTooLarge, or that
// there is no room; the note before is then still there.
func (d *Dir) Save(n supervisor.Note) error {
	page, err := encode(n)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.makeRoom(); err != nil {
		return fmt.Errorf("save note: %w", err)
	}
	// The end of another tenure's lease must not be taken for this one's.
	if !same(n.Tenure, d.last.Tenure) || d.damaged != nil {
		var until sdk.Instant
		if n.Tenure != nil {
			until = n.Tenure.Until
		}
		if err := d.putUntil(until); err != nil {
			return err
		}
	}
	if _, err := d.note.WriteAt(page, 0); err != nil {
		return fmt.Errorf("save note: %w", err)
	}
	d.last, d.damaged = decode(page)
	return nil
}

// same reports whether both are the same tenure, or none.
func same(a, b *supervisor.Tenure) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Pulse == b.Pulse && a.Term == b.Term && a.Boot == b.Boot
}

// SaveUntil keeps the end of the lease where the gate reads it.
func (d *Dir) SaveUntil(until sdk.Instant) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.makeRoom(); err != nil {
		return fmt.Errorf("save the end of the lease: %w", err)
	}
	return d.putUntil(until)
}

func (d *Dir) putUntil(until sdk.Instant) error {
	binary.LittleEndian.PutUint64(d.eight[:], uint64(until))
	if _, err := d.until.WriteAt(d.eight[:], 0); err != nil {
		return fmt.Errorf("save the end of the lease: %w", err)
	}
	return nil
}

// makeRoom takes all the room that will ever be written to, once.
func (d *Dir) makeRoom() error {
	var err error
	if d.until == nil {
		if d.until, err = takeRoom(d.file(untilFile), make([]byte, len(d.eight))); err != nil {
			return err
		}
	}
	if d.note == nil {
		empty, encodeErr := encode(supervisor.Note{})
		if encodeErr != nil {
			return encodeErr
		}
		if d.note, err = takeRoom(d.file(noteFile), empty); err != nil {
			return err
		}
	}
	return nil
}
