package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	// externalTimeout is how long one server may take.
	externalTimeout = 10 * time.Second
	// maxExternalAnswer bounds what is read of one, in bytes.
	maxExternalAnswer = 256 << 10
)

type external struct {
	urls        []string
	root, cross []byte
	http        *http.Client
}

// NewExternal has certificates signed by servers that speak cfssl's protocol, at https URLs such as
// https://ca.example.com:8888/api/v1/cfssl/sign: the first that answers as it should. What they sign must be below the root, and
// exactly what was asked for. How long it is good is theirs to say. Without client, the system's roots are trusted.
func NewExternal(urls []string, rootPEM, cross []byte, client *tls.Config) Signer {
	if client == nil {
		client = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return &external{urls: urls, root: rootPEM, cross: cross, http: &http.Client{
		Transport:     &http.Transport{TLSClientConfig: client.Clone(), DisableKeepAlives: true, TLSHandshakeTimeout: externalTimeout},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       externalTimeout,
	}}
}

// signRequest and what it holds are cfssl's.
type signRequest struct {
	Request string      `json:"certificate_request"`
	Subject signSubject `json:"subject"`
	Hosts   []string    `json:"hosts"`
}

type signSubject struct {
	CN    string     `json:"CN"`
	Names []signName `json:"names"`
}

type signName struct {
	OU string `json:"OU"`
	O  string `json:"O"`
}

type signAnswer struct {
	Success bool `json:"success"`
	Result  struct {
		Certificate string `json:"certificate"`
	} `json:"result"`
	Errors []struct {
		Message string `json:"message"`
	} `json:"errors"`
}

// Sign implements Signer.
func (e *external) Sign(ctx context.Context, csrPEM []byte, s Subject, _ time.Duration) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	public, csr, err := parseRequest(csrPEM)
	if err != nil {
		return nil, err
	}
	root, err := parseOne(e.root)
	if err != nil {
		return nil, fmt.Errorf("ca: the root certificate %w", err)
	}
	cross, err := checkCross(e.cross, root)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(signRequest{string(csr), signSubject{s.ID, []signName{{string(s.Role), s.Cluster}}}, []string{s.ID, string(s.Role)}})
	if err != nil {
		return nil, fmt.Errorf("ca: external CA: %w", err)
	}
	if len(e.urls) == 0 {
		return nil, errors.New("ca: there is no external CA to sign with")
	}
	var failed []error
	for _, at := range e.urls {
		chain, err := e.ask(ctx, at, body)
		if err == nil {
			err = checkSigned(chain, root, public, s)
		}
		switch {
		case err == nil:
			return append(chain.encode(), cross...), nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		failed = append(failed, fmt.Errorf("ca: external CA %s: %w", shown(at), err))
	}
	return nil, errors.Join(failed...)
}

type certificates []*x509.Certificate

func (c certificates) encode() []byte {
	var out []byte
	for _, cert := range c {
		out = append(out, encode(typeCertificate, cert.Raw)...)
	}
	return out
}

// ask has one server sign.
func (e *external) ask(ctx context.Context, at string, body []byte) (certificates, error) {
	if u, err := url.Parse(at); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("want an https:// URL")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.http.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // the URL may have a password
		}
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxExternalAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxExternalAnswer:
		return nil, fmt.Errorf("the answer is larger than %d bytes", maxExternalAnswer)
	}
	var answer signAnswer
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, fmt.Errorf("it answers %s, with no JSON of cfssl's", resp.Status)
	}
	if !answer.Success || resp.StatusCode != http.StatusOK {
		why := resp.Status
		if len(answer.Errors) > 0 {
			why = fmt.Sprintf("%.500q", answer.Errors[0].Message)
		}
		return nil, fmt.Errorf("it refuses to sign: %s", why)
	}
	chain, err := parseCertificates([]byte(answer.Result.Certificate))
	if err != nil {
		return nil, fmt.Errorf("the certificate in its answer %w", err)
	}
	return chain, nil
}

// checkSigned tells whether what came back is what was asked for.
func checkSigned(chain certificates, root *x509.Certificate, public crypto.PublicKey, want Subject) error {
	if !samePublic(chain[0].PublicKey, public) {
		return errors.New("it signed another key than the one it was given")
	}
	got, err := subjectOf(chain[0])
	if err != nil {
		return fmt.Errorf("the certificate that it signed %w", err)
	}
	if got != want {
		return fmt.Errorf("it signed a certificate for %+v, want %+v", got, want)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := verify(chain, newPool([]*x509.Certificate{root}), time.Now(), usage); err != nil {
			return fmt.Errorf("the certificate that it signed %w", err)
		}
	}
	return nil
}

// shown is a URL without a password.
func shown(at string) string {
	u, err := url.Parse(at)
	if err != nil {
		return "whose URL cannot be read"
	}
	return u.Redacted()
}
