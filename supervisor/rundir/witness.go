package rundir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/deputy-ha/deputy/supervisor"
)

// seenFile is in each service's state directory.
const seenFile = "seen.json"

// A Witness is the directory of lasting state, /var/lib/deputy, with one below
// it for each service. It is for one process per service at a time.
type Witness string

// LoadSeen returns what was seen of a service's election before this process,
// the zero Seen when nothing was. A file that cannot be read is an error:
// then it is not known whether the records have gone back in time.
func (w Witness) LoadSeen(service string) (supervisor.Seen, error) {
	var s supervisor.Seen
	file := w.File(service)
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, nil
	case err != nil:
		return s, fmt.Errorf("read what was seen of %s: %w", service, err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return supervisor.Seen{}, fmt.Errorf("read what was seen of %s: %s is damaged, remove it if the records of the election have not been restored: %w", service, file, err)
	}
	return s, nil
}

// SaveSeen keeps what was seen of a service's election. It returns once that
// would survive power loss; until then the one before does. Nothing is written
// when nothing has changed.
func (w Witness) SaveSeen(service string, s supervisor.Seen) error {
	if before, err := w.LoadSeen(service); err == nil && before == s && before != (supervisor.Seen{}) {
		return nil
	}
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("keep what was seen of %s: %w", service, err)
	}
	if err := replace(w.File(service), append(text, '\n')); err != nil {
		return fmt.Errorf("keep what was seen of %s: %w", service, err)
	}
	return nil
}

// File is where it is kept what was seen of a service's election.
func (w Witness) File(service string) string {
	return filepath.Join(string(w), service, seenFile)
}

// replace puts a new file in an old one's place, for good: its content is on
// the disk before its name is, and its name before replace returns.
func replace(file string, content []byte) error {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	f, err := os.OpenFile(file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		os.Remove(file + ".new")
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
