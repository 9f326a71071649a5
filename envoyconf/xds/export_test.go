package xds

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// SetUnchecked publishes anything as the resource of a service.
func (s *Server) SetUnchecked(service, version string, m proto.Message) string {
	a, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	s.publish(service, published{version: version, resource: a})
	return version
}
