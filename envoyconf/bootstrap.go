package envoyconf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	socketv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/socket_interface/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// L4 makes the bootstrap of an Envoy that passes PostgreSQL connections through, byte for byte. The zero value is
// ready to use.
type L4 struct {
	// Adjust, if set, may change the finished bootstrap before it is encoded: TLS towards the control plane, access
	// logs, an overload manager. Its error is returned by Bootstrap.
	Adjust func(*bootstrapv3.Bootstrap) error
}

// Bootstrap returns the JSON that Envoy takes as its configuration file (envoy -c envoy.json), the same bytes for the
// same fleet. A fleet that Envoy would refuse, or take and serve wrongly, is an error that names the field.
func (l L4) Bootstrap(f Fleet) ([]byte, error) {
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("envoyconf: %w", err)
	}
	b, err := f.withDefaults().bootstrap()
	if err != nil {
		return nil, fmt.Errorf("envoyconf: %w", err)
	}
	if l.Adjust != nil {
		if err := l.Adjust(b); err != nil {
			return nil, fmt.Errorf("envoyconf: Adjust: %w", err)
		}
	}
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("envoyconf: %w", err)
	}
	var out bytes.Buffer // protojson's white space differs from build to build on purpose; this does not
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, fmt.Errorf("envoyconf: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

func (f Fleet) bootstrap() (*bootstrapv3.Bootstrap, error) {
	b := &bootstrapv3.Bootstrap{
		Node:            &corev3.Node{Id: f.Node, Cluster: f.Cluster},
		Admin:           &bootstrapv3.Admin{Address: address(f.Admin)},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{},
	}
	if len(f.ControlPlanes) > 0 {
		b.DynamicResources = &bootstrapv3.Bootstrap_DynamicResources{AdsConfig: adsConfig()}
		c, err := f.controlPlaneCluster()
		if err != nil {
			return nil, err
		}
		b.StaticResources.Clusters = append(b.StaticResources.Clusters, c)
	}
	for _, service := range f.services() {
		c, err := f.serviceCluster(service)
		if err != nil {
			return nil, err
		}
		b.StaticResources.Clusters = append(b.StaticResources.Clusters, c)
	}
	for _, l := range f.Listeners {
		p, err := proxyListener(l)
		if err != nil {
			return nil, err
		}
		b.StaticResources.Listeners = append(b.StaticResources.Listeners, p)
	}
	if f.IOUring {
		const name = "envoy.extensions.network.socket_interface.default_socket_interface"
		x, err := extension(name, &socketv3.DefaultSocketInterface{IoUringOptions: &socketv3.IoUringOptions{}})
		if err != nil {
			return nil, err
		}
		b.BootstrapExtensions = append(b.BootstrapExtensions, x)
		b.DefaultSocketInterface = name
	}
	return b, nil
}

// extension packs a typed configuration under the name by which Envoy knows it.
func extension(name string, m proto.Message) (*corev3.TypedExtensionConfig, error) {
	a, err := pack(m)
	if err != nil {
		return nil, err
	}
	return &corev3.TypedExtensionConfig{Name: name, TypedConfig: a}, nil
}

func pack(m proto.Message) (*anypb.Any, error) {
	a := &anypb.Any{}
	err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true})
	return a, err
}

func duration(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

func number(n uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(n) }
