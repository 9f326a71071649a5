package xds

import (
	"context"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	wire "github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
)

// serveDelta runs a stream of the delta variant until either side ends it.
func (st *stream) serveDelta(g wire.DeltaStream) error {
	defer st.close()
	return delta.NewServer(g.Context(), st, st, delta.DeactivateLegacyWildcard()).DeltaStreamHandler(g, resource.AnyType)
}

func (st *stream) OnDeltaStreamOpen(context.Context, int64, string) error { return nil }

func (st *stream) OnDeltaStreamClosed(int64, *corev3.Node) {}

func (st *stream) OnStreamDeltaRequest(_ int64, r *discoveryv3.DeltaDiscoveryRequest) error {
	if r.GetTypeUrl() == resource.EndpointType {
		st.heard(request{
			node:    r.GetNode().GetId(),
			nonce:   r.GetResponseNonce(),
			refusal: r.GetErrorDetail(),
			has:     r.GetInitialResourceVersions(),
			anew:    r.GetResourceNamesSubscribe(),
		})
	}
	return nil
}

func (st *stream) CreateDeltaWatch(r *cache.DeltaRequest, sub cache.Subscription, responses chan cache.DeltaResponse) (func(), error) {
	if r.GetTypeUrl() != resource.EndpointType {
		return nil, nil // never answered: there is nothing but endpoints here
	}
	st.server.mu.Lock()
	defer st.server.mu.Unlock()
	st.subscribe(sub.SubscribedResources())
	st.offer = func(c content, p published) {
		responses <- &cache.DeltaPassthroughResponse{ // the channel has room for two responses of each type
			DeltaRequest:   r,
			NextVersionMap: map[string]string{}, // what the Envoy has is kept in st
			DeltaDiscoveryResponse: &discoveryv3.DeltaDiscoveryResponse{
				TypeUrl:           resource.EndpointType,
				SystemVersionInfo: c.version,
				Resources:         []*discoveryv3.Resource{{Name: c.service, Version: c.version, Resource: p.resource}},
			},
		}
	}
	st.flush()
	return st.cancel, nil
}

func (st *stream) OnStreamDeltaResponse(_ int64, _ *discoveryv3.DeltaDiscoveryRequest, r *discoveryv3.DeltaDiscoveryResponse) {
	st.server.mu.Lock()
	defer st.server.mu.Unlock()
	for _, x := range r.GetResources() {
		st.sending(r.GetNonce(), content{x.GetName(), x.GetVersion()})
	}
}
