package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

const (
	// maxProbeOutput is what is kept of a command's output or of a page, in bytes: it is for people, in a task's status.
	maxProbeOutput = 512
	// maxProbeHeader bounds the header of a page.
	maxProbeHeader = 64 << 10
)

// unaskedError is why a task's health could not be asked for. That is not the task's fault.
type unaskedError struct{ err error }

// Error implements error.
func (e *unaskedError) Error() string { return e.err.Error() }

// Unwrap implements error.
func (e *unaskedError) Unwrap() error { return e.err }

// probeOf is what asks for a task's health once: nil says healthy, an unaskedError nothing, any other error why not.
func (a *Agent) probeOf(id string, h *v1.Healthcheck) func(context.Context) error {
	switch {
	case h.HTTP != nil:
		return func(ctx context.Context) error { return a.probeHTTP(ctx, id, h.HTTP) }
	case h.TCP != nil:
		return func(ctx context.Context) error { return a.probeTCP(ctx, id, h.TCP) }
	}
	return func(ctx context.Context) error { return a.probeCommand(ctx, id, h.Test[1:]) }
}

// probeCommand runs a command in the task's container.
func (a *Agent) probeCommand(ctx context.Context, id string, command []string) error {
	r, err := a.o.Runtime.Exec(ctx, id, command, maxProbeOutput)
	switch {
	case errors.Is(err, engine.ErrInvalid):
		return errors.New(forPeople.Replace(err.Error()))
	case err != nil:
		return &unaskedError{err}
	case r.ExitCode != 0:
		return fmt.Errorf("exit code %d%s", r.ExitCode, quoted(r.Output))
	}
	return nil
}

// quoted is output behind a colon, as one line.
func quoted(output []byte) string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(output), "")), " ")
	if text == "" {
		return ""
	}
	return ": " + text
}

// dial connects to a port as a program in the task would.
func (a *Agent) dial(ctx context.Context, id string, port uint16) (net.Conn, error) {
	if a.o.Network == nil {
		return nil, &unaskedError{errors.New("the tasks of this node have no network")}
	}
	return a.o.Network.Dial(ctx, id, "tcp", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port).String())
}

func (a *Agent) probeTCP(ctx context.Context, id string, p *v1.TCPProbe) error {
	c, err := a.dial(ctx, id, p.Port)
	if err != nil {
		return err
	}
	_ = c.Close()
	return nil
}

func (a *Agent) probeHTTP(ctx context.Context, id string, p *v1.HTTPProbe) error {
	transport := &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return a.dial(ctx, id, p.Port) },
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: true}, // no certificate is for the loopback address of a task
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxProbeHeader,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	scheme := "http"
	if p.Scheme == "https" {
		scheme = p.Scheme
	}
	url := fmt.Sprintf("%s://localhost:%d/%s", scheme, p.Port, strings.TrimPrefix(p.Path, "/"))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "swarmd-healthcheck")
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 200 && answer.StatusCode < 400 {
		return nil
	}
	page, _ := io.ReadAll(io.LimitReader(answer.Body, maxProbeOutput)) // what there is of it is enough
	return fmt.Errorf("%s%s", answer.Status, quoted(page))
}
