package kernelguard

import (
	"testing"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
)

func TestMain(m *testing.M) { netlab.Main(m) }
