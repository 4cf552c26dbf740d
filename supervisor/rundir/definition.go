package rundir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/deputy-ha/deputy/supervisor"
)

// definitionFile has the definition that is in force, as JSON. The
// administrator's own file may be changed, broken or gone when somebody has to
// demote by what was promoted.
const definitionFile = "definition"

// SaveDefinition keeps the definition that is in force, for this process's user
// alone. With an error none is kept: one of before would demote something else.
func (d *Dir) SaveDefinition(s supervisor.Service) error {
	text, err := json.Marshal(s)
	next := d.file(definitionFile + ".new")
	if err == nil {
		err = os.WriteFile(next, text, 0o600)
	}
	if err == nil {
		err = os.Rename(next, d.file(definitionFile))
	}
	if err != nil {
		_ = os.Remove(next)
		return errors.Join(fmt.Errorf("keep definition: %w", err), d.ForgetDefinition())
	}
	return nil
}

// Definition returns the definition that was last in force; the error is
// fs.ErrNotExist when none is kept. Its File is the one in this directory; numbers
// in the settings of its parts are json.Number.
func (d *Dir) Definition() (supervisor.Service, error) {
	text, err := os.ReadFile(d.file(definitionFile))
	if err != nil {
		return supervisor.Service{}, fmt.Errorf("read definition: %w", err)
	}
	var s supervisor.Service
	in := json.NewDecoder(bytes.NewReader(text))
	in.UseNumber() // integers stay exact
	if err := in.Decode(&s); err != nil {
		return supervisor.Service{}, fmt.Errorf("read definition in %s: %w", d.file(definitionFile), err)
	}
	s.File = d.file(definitionFile) // which is what any mistake in it is about
	return s, nil
}

// ForgetDefinition keeps none any more.
func (d *Dir) ForgetDefinition() error {
	if err := os.Remove(d.file(definitionFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget definition: %w", err)
	}
	return nil
}

// Defined reports whether the directory of a service has a definition that was
// in force, without making or holding the directory.
func Defined(path string) bool {
	_, err := os.Lstat((&Dir{path: path}).file(definitionFile))
	return err == nil
}
