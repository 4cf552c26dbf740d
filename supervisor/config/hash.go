package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// hash is the same for two definitions that mean the same: defaults are filled
// in, and neither order of keys, spelling nor comments count. Nodes compare
// it, so what may differ between them is left out: Priority, which is
// published beside it, and Description.
func hash(s supervisor.Service) string {
	s.File, s.Hash, s.Description, s.Priority = "", "", "", 0
	parts := make([]supervisor.Part, len(s.Parts))
	for i, p := range s.Parts {
		if len(p.Config) == 0 {
			p.Config = nil
		} else {
			p.Config, _ = canonical(p.Config).(map[string]any)
		}
		parts[i] = p
	}
	s.Parts = parts
	text, err := json.Marshal(s) // sorts the keys of maps
	if err != nil {
		panic(fmt.Sprintf("hash a valid definition: %v", err))
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// canonical copies settings and writes as text what JSON lacks (inf and nan,
// years outside its range) or takes for something else.
func canonical(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, below := range v {
			m[k] = canonical(below)
		}
		return m
	case []any:
		a := make([]any, len(v))
		for i, below := range v {
			a[i] = canonical(below)
		}
		return a
	case float64:
		if math.IsNaN(v) {
			return "float nan"
		}
		return "float " + strconv.FormatFloat(v, 'g', -1, 64)
	case time.Time:
		return "time " + v.Format(time.RFC3339Nano)
	default:
		return v
	}
}
