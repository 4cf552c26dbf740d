package notify

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// Input is what a script gets on its standard input: the message as a line of
// JSON, as a webhook is sent it.
func (m Message) Input() ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode the message: %w", err)
	}
	return append(b, '\n'), nil
}

// Env is what a script gets of the message as variables whose names begin
// with DEPUTY_.
func (m Message) Env() map[string]string {
	return map[string]string{
		"EVENT":         string(m.Kind),
		"EVENT_ID":      m.ID,
		"EVENT_NODE":    m.Event.Node,
		"RESOLVED":      strconv.FormatBool(m.Resolved),
		"SEVERITY":      string(m.Severity),
		"SERVICE":       m.Service,
		"NODE":          m.Sender,
		"TERM":          strconv.FormatUint(uint64(m.Term), 10),
		"PREVIOUS_NODE": m.From,
		"TEXT":          m.Text,
	}
}
