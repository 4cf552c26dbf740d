package rundir

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strings"
	"unicode/utf8"

	"github.com/deputy-ha/deputy/supervisor"
)

// A note is kept in one page of memory: the kernel copies a page as a whole,
// so that a write ends or has not begun when the process is killed. It has a
// magic, the length and the CRC-32C of what follows, and JSON; zeros fill the
// rest.
const (
	pageSize = 4096
	magic    = "deputy1\n"
	header   = len(magic) + 8
)

// encode fills a page with a note. The cause is for people and is cut short
// where it does not fit; nothing else is.
func encode(n supervisor.Note) ([]byte, error) {
	for {
		text, err := json.Marshal(n)
		if err != nil {
			return nil, fmt.Errorf("encode note: %w", err)
		}
		over := len(text) - (pageSize - header)
		if over <= 0 {
			page := make([]byte, pageSize)
			copy(page, magic)
			binary.LittleEndian.PutUint32(page[len(magic):], uint32(len(text)))
			binary.LittleEndian.PutUint32(page[len(magic)+4:], checksum(text))
			copy(page[header:], text)
			return page, nil
		}
		if n.Cause == "" {
			return nil, fmt.Errorf("encode note: %w: %d bytes more than %d", ErrTooLarge, over, pageSize-header)
		}
		n.Cause = shorten(n.Cause, over)
	}
}

// shorten takes something from the end of a text, and not more than brings an
// excess of so many bytes down in JSON, which writes one byte as six at most.
func shorten(s string, over int) string {
	const mark = "…"
	s = strings.TrimSuffix(s, mark)
	keep := max(0, len(s)-max(1, over/6))
	for keep > 0 && !utf8.RuneStart(s[keep]) {
		keep--
	}
	if keep == 0 {
		return ""
	}
	return s[:keep] + mark
}

// decode reads a page; any error is ErrDamaged.
func decode(page []byte) (supervisor.Note, error) {
	damaged := func(how string) (supervisor.Note, error) {
		return supervisor.Note{}, fmt.Errorf("%w: %s", ErrDamaged, how)
	}
	if len(page) != pageSize {
		return damaged(fmt.Sprintf("it has %d bytes instead of %d", len(page), pageSize))
	}
	if string(page[:len(magic)]) != magic {
		return damaged("it does not begin as a note of this version")
	}
	n := int(binary.LittleEndian.Uint32(page[len(magic):]))
	if n > pageSize-header {
		return damaged("its length is impossible")
	}
	text := page[header : header+n]
	if binary.LittleEndian.Uint32(page[len(magic)+4:]) != checksum(text) {
		return damaged("its checksum is wrong")
	}
	var note supervisor.Note
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&note); err != nil {
		return damaged("its text is not what a note says: " + err.Error())
	}
	return note, nil
}

func checksum(text []byte) uint32 {
	return crc32.Checksum(text, crc32.MakeTable(crc32.Castagnoli))
}
