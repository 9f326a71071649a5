package embedded

import "go.uber.org/zap"

// newLogger returns a logger into a file; without a file, one that is silent.
func newLogger(file string) (*zap.Logger, error) {
	if file == "" {
		return zap.NewNop(), nil
	}
	c := zap.NewProductionConfig()
	c.OutputPaths = []string{file}
	c.ErrorOutputPaths = []string{file}
	c.Sampling = nil
	return c.Build()
}
