package rundir

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A Sight is the path of a service's run directory for who only looks at it,
// and does not hold it: its supervisor may run meanwhile.
type Sight string

// Note returns what was noted last; see [Dir.Load]. The error is ErrDamaged.
func (s Sight) Note() (supervisor.Note, error) {
	d := &Dir{path: string(s)}
	for try := 0; ; try++ {
		page, err := os.ReadFile(d.file(noteFile))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return supervisor.Note{}, nil
		case err != nil:
			return supervisor.Note{}, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		d.last, d.damaged = decode(page)
		if d.damaged == nil || try == 3 {
			return d.Load()
		}
		time.Sleep(time.Millisecond) // it may have been read in the middle of a write
	}
}

// Until is the end of the lease as kept last; zero where none is held.
func (s Sight) Until() sdk.Instant {
	b, err := os.ReadFile((&Dir{path: string(s)}).file(untilFile))
	if err != nil || len(b) != 8 {
		return 0
	}
	return sdk.Instant(binary.LittleEndian.Uint64(b))
}

// Definition returns the definition that was last in force; see [Dir.Definition].
func (s Sight) Definition() (supervisor.Service, error) {
	return (&Dir{path: string(s)}).Definition()
}

// Holder is the process that held the directory last, whether or not it lives;
// zero where there was none.
func (s Sight) Holder() int {
	b, err := os.ReadFile((&Dir{path: string(s)}).file(lockFile))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 0 {
		return 0
	}
	return pid
}
