package xds

import (
	"context"
	"maps"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	wire "github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// serve runs a stream of the state-of-the-world variant until either side ends it.
func (st *stream) serve(g wire.Stream) error {
	defer st.close()
	return sotw.NewServer(g.Context(), st, st, sotw.DeactivateLegacyWildcard()).StreamHandler(g, resource.AnyType)
}

func (st *stream) OnStreamOpen(context.Context, int64, string) error { return nil }

func (st *stream) OnStreamClosed(int64, *corev3.Node) {}

func (st *stream) OnStreamRequest(_ int64, r *discoveryv3.DiscoveryRequest) error {
	if r.GetTypeUrl() == resource.EndpointType {
		st.heard(request{
			node:    r.GetNode().GetId(),
			nonce:   r.GetResponseNonce(),
			refusal: r.GetErrorDetail(),
			has:     parseVersions(r.GetVersionInfo()),
		})
	}
	return nil
}

func (st *stream) CreateWatch(r *cache.Request, sub cache.Subscription, responses chan cache.Response) (func(), error) {
	if r.GetTypeUrl() != resource.EndpointType {
		return nil, nil // never answered: there is nothing but endpoints here
	}
	st.server.mu.Lock()
	defer st.server.mu.Unlock()
	st.offered = content{} // the protocol server drops what a replaced watch offered and it had not sent
	st.subscribe(sub.SubscribedResources())
	st.offer = func(c content, p published) {
		has := maps.Clone(st.has)
		has[c.service] = c.version
		responses <- &cache.PassthroughResponse{ // the channel is this watch's own, with room for its one response
			Request:           r,
			ReturnedResources: map[string]string{}, // what the Envoy has is kept in st
			DiscoveryResponse: &discoveryv3.DiscoveryResponse{
				TypeUrl:     resource.EndpointType,
				VersionInfo: formatVersions(has),
				// Endpoints need not be complete: a service that a response leaves out stays as it is.
				Resources: []*anypb.Any{p.resource},
			},
		}
	}
	st.flush()
	return st.cancel, nil
}

func (st *stream) OnStreamResponse(_ context.Context, _ int64, _ *discoveryv3.DiscoveryRequest, r *discoveryv3.DiscoveryResponse) {
	st.server.mu.Lock()
	defer st.server.mu.Unlock()
	st.sending(r.GetNonce(), st.offered)
}

// formatVersions makes the one version of this variant of the versions of the services: read=1f..,write=9c.. It says
// what an Envoy has once it acknowledged the response, and comes back when the Envoy connects again.
func formatVersions(has map[string]string) string {
	var b strings.Builder
	for i, service := range slices.Sorted(maps.Keys(has)) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(service + "=" + has[service])
	}
	return b.String()
}

// parseVersions is the inverse. A version that some other control plane made names nothing that is known here.
func parseVersions(info string) map[string]string {
	has := map[string]string{}
	for part := range strings.SplitSeq(info, ",") {
		if service, version, ok := strings.Cut(part, "="); ok {
			has[service] = version
		}
	}
	return has
}
