package topology

import "fmt"

// Service says what a pooler is for.
type Service int

// The services.
const (
	Write Service = iota // routed to the primary
	Read                 // routed to fresh replicas; to the primary while there are none
)

// String is the service's name in records and in Envoy: "write" or "read".
func (s Service) String() string {
	switch s {
	case Write:
		return "write"
	case Read:
		return "read"
	}
	return fmt.Sprintf("service %d", int(s))
}
