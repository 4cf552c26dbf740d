package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/deputy-ha/deputy/sdk"
)

// An owner is what the owner record tells: in which term which node has last
// published the records. It fences: whoever changes the records has it replaced
// in the same message, under the prerequisite that it still is as it was read.
// So of two that have read the same, one is refused.
type owner struct {
	term    sdk.Term
	node    string
	service string
	left    sdk.Term // the last term whose demotion has come after; zero when none has
}

// texts is the owner as a TXT record has it, a text for each part.
func (o owner) texts() []string {
	all := []string{"term=" + strconv.FormatUint(uint64(o.term), 10), "node=" + o.node, "service=" + o.service}
	if o.left > 0 {
		all = append(all, "left="+strconv.FormatUint(uint64(o.left), 10))
	}
	return all
}

// String is the owner as zone files have it.
func (o owner) String() string { return `"` + strings.Join(o.texts(), `" "`) + `"` }

// ownerOf reads a TXT record.
func ownerOf(texts []string) (owner, error) {
	var o owner
	for _, text := range texts {
		key, value, _ := strings.Cut(text, "=")
		var err error
		switch key {
		case "term":
			err = termOf(&o.term, value)
		case "node":
			o.node = value
		case "service":
			o.service = value
		case "left":
			err = termOf(&o.left, value)
		}
		if err != nil {
			return owner{}, fmt.Errorf("%q: %w", text, err)
		}
	}
	// What is read has to be what is compared with.
	if got := fmt.Sprintf("%q", texts); got != fmt.Sprintf("%q", o.texts()) {
		return owner{}, fmt.Errorf("%s is not deputy's", got)
	}
	return o, nil
}

func termOf(t *sdk.Term, s string) error {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return errors.New("is no term")
	}
	*t = sdk.Term(n)
	return nil
}

// newest is the highest term that the record knows of.
func (o owner) newest() sdk.Term { return max(o.term, o.left) }

// outranks reports whether the holder of term t on a node has to stay away.
func (o owner) outranks(t sdk.Term, node string) bool {
	return o.newest() > t || o.term == t && o.node != node
}
