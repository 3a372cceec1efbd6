package containerd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
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

// asker speaks to one registry, with a login or as nobody.
type asker struct {
	r     *Runtime
	login v1.RegistryLogin
	hosts docker.RegistryHosts
}

// asker is who asks an image's registry: the login, or where that is none whoever the machine's configuration says.
func (r *Runtime) asker(named reference.Named, login v1.RegistryLogin) (*asker, error) {
	host := reference.Domain(named)
	if login.Server == "" && r.config.Credentials != nil {
		user, password, err := r.config.Credentials(host)
		if err != nil {
			return nil, err
		}
		if user != "" || password != "" {
			login = v1.RegistryLogin{Server: host, Username: user, Password: password}
		}
	}
	return r.newAsker(login), nil
}

func (r *Runtime) newAsker(login v1.RegistryLogin) *asker {
	// Dialling is bounded here, not the whole exchange: a layer may take its time.
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	c := &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: 10 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second,
	}}
	a := &asker{r: r, login: login}
	auth := docker.NewDockerAuthorizer(docker.WithAuthClient(c), docker.WithAuthCreds(a.credentials))
	a.hosts = docker.ConfigureDefaultRegistries(docker.WithClient(c), docker.WithPlainHTTP(r.insecure), docker.WithAuthorizer(auth))
	return a
}

func (a *asker) resolver() remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{Hosts: a.hosts})
}

// server is the host of the login's registry.
func (a *asker) server() string {
	host, _, _ := strings.Cut(a.login.Server, "/")
	return host
}

// credentials are the user and password for a host, and for an identity token no user: none for a host that the login is not for.
func (a *asker) credentials(host string) (user, secret string, err error) {
	if known, err := docker.DefaultHost(a.server()); a.login.Server == "" || err != nil || !strings.EqualFold(known, host) {
		return "", "", nil
	}
	if a.login.IdentityToken != "" {
		return "", a.login.IdentityToken, nil
	}
	return a.login.Username, a.login.Password, nil
}

// TryLogin implements runtime.Images. It asks what every registry answers to whoever may use it at all.
func (r *Runtime) TryLogin(ctx context.Context, login v1.RegistryLogin) (bool, error) {
	a := r.newAsker(login)
	hosts, err := a.hosts(a.server())
	if err != nil {
		return false, fmt.Errorf("containerd: registry %s: %w", a.server(), err)
	}
	var answers []*http.Response
	for range 2 { // as nobody, and as what the first answer asks for
		resp, err := ping(ctx, hosts[0])
		switch {
		case err == nil && resp.StatusCode == http.StatusOK:
			return true, nil
		case err == nil && resp.StatusCode == http.StatusUnauthorized:
			answers = append(answers, resp)
			err = hosts[0].Authorizer.AddResponses(ctx, answers)
		case err == nil:
			err = remoteerrors.ErrUnexpectedStatus{Status: resp.Status, StatusCode: resp.StatusCode}
		}
		if denied(err) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("the registry %s cannot be asked: %w", a.server(), err)
		}
	}
	return false, nil
}

// ping asks a registry's front door. The answer's body is closed.
func ping(ctx context.Context, h docker.RegistryHost) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.Scheme+"://"+h.Host+h.Path+"/", nil)
	if err != nil {
		return nil, err
	}
	if err := h.Authorizer.Authorize(ctx, req); err != nil {
		return nil, err
	}
	resp, err := h.Client.Do(req)
	if err != nil {
		return nil, err
	}
	return resp, resp.Body.Close()
}

// denied tells whether an error is that of a registry that does not let somebody in.
func denied(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	hasStatus := errors.As(err, &status)
	return hasStatus && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden) ||
		errors.Is(err, docker.ErrInvalidAuthorization) || errdefs.IsUnauthorized(err) || errdefs.IsPermissionDenied(err)
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
func (a *asker) explainPull(ref string, err error) (unreachable bool, explained error) {
	var status remoteerrors.ErrUnexpectedStatus
	hasStatus := errors.As(err, &status)
	switch {
	case errors.Is(err, runtime.ErrInvalid), errors.Is(err, context.Canceled):
		return false, fmt.Errorf("containerd: pull %s: %w", ref, err)
	case denied(err):
		return false, a.explainDenied(ref)
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

// explainDenied begins with Docker's words. What the registry answered is left out: it may repeat what it was sent.
func (a *asker) explainDenied(ref string) error {
	const words = "pull access denied for %s, repository does not exist or may require authorization"
	if a.login.Server == "" {
		host, _, _ := strings.Cut(ref, "/")
		return fmt.Errorf(words+`: this swarm has no login to %s; give it one with "swarmctl registry login %[2]s": %w`, ref, host, runtime.ErrInvalid)
	}
	who := strconv.Quote(a.login.Username)
	if a.login.IdentityToken != "" {
		who = "the owner of the identity token"
	}
	return fmt.Errorf(words+`: the registry %s refuses %s; if the password or token is wrong or has ended, renew it with "swarmctl registry login %s": %w`,
		ref, a.server(), who, a.login.Server, runtime.ErrInvalid)
}
