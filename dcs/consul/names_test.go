package consul_test

import "github.com/pgconvoy/pgconvoy/internal/storetest"

const (
	dir    = storetest.Dir
	within = storetest.Patience
)
