package containerd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"

	"github.com/swarmd/swarmd/pkg/runtime"
)

// normalize makes the full name of an image: docker.io/library/nginx:latest for nginx. A digest makes a tag superfluous, so
// that of nginx:1@sha256:… is dropped.
func normalize(ref string) (reference.Named, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return nil, fmt.Errorf("containerd: image %q: %w: %w", ref, err, runtime.ErrInvalid)
	}
	return named, nil
}

// resolver speaks to registries.
func (r *Runtime) resolver() remotes.Resolver {
	// Dialling is bounded here, not the whole exchange: a layer may take its time.
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	c := &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: 10 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second,
	}}
	auth := []docker.AuthorizerOpt{docker.WithAuthClient(c)}
	if r.config.Credentials != nil {
		auth = append(auth, docker.WithAuthCreds(r.config.Credentials))
	}
	return docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(
		docker.WithClient(c), docker.WithPlainHTTP(r.insecure), docker.WithAuthorizer(docker.NewDockerAuthorizer(auth...)),
	)})
}

// insecure tells whether a registry is spoken to without TLS.
func (r *Runtime) insecure(host string) (bool, error) {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	address, err := netip.ParseAddr(name)
	isAddress := err == nil
	if name == "localhost" || isAddress && address.IsLoopback() {
		return true, nil
	}
	for _, entry := range r.config.InsecureRegistries {
		if strings.EqualFold(entry, host) || strings.EqualFold(entry, name) {
			return true, nil
		}
		if block, err := netip.ParsePrefix(entry); err == nil && isAddress && block.Contains(address) {
			return true, nil
		}
	}
	return false, nil
}

// explainPull says what a user should know about why an image cannot be had. What no later attempt can change is
// runtime.ErrInvalid; what it refers to is unreachable otherwise.
func explainPull(ref string, err error) (unreachable bool, explained error) {
	var status remoteerrors.ErrUnexpectedStatus
	hasStatus := errors.As(err, &status)
	switch {
	case errors.Is(err, runtime.ErrInvalid), errors.Is(err, context.Canceled):
		return false, fmt.Errorf("containerd: pull %s: %w", ref, err)
	case hasStatus && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden),
		errors.Is(err, docker.ErrInvalidAuthorization), errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return false, fmt.Errorf("pull access denied for %s, repository does not exist or may require authorization: %w", ref, runtime.ErrInvalid)
	case hasStatus && status.StatusCode >= 500, hasStatus && status.StatusCode == http.StatusTooManyRequests:
		return true, fmt.Errorf("the registry of %s fails: %s", ref, status.Status)
	case errdefs.IsNotFound(err):
		return false, fmt.Errorf("no such image: %s: %w: %w", ref, runtime.ErrNotFound, runtime.ErrInvalid)
	}
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) {
		return true, fmt.Errorf("the registry of %s cannot be reached: %w", ref, err)
	}
	return false, fmt.Errorf("containerd: pull %s: %w", ref, err)
}
