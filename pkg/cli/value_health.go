package cli

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// parseHTTPProbe reads the page to ask for, such as http://:8080/healthz, https://:8443, or :8080/healthz. It is asked for within the
// container, so that the host can only be left out, or localhost.
func parseHTTPProbe(text string) (*v1.HTTPProbe, error) {
	whole := text
	if !strings.Contains(text, "://") {
		whole = "http://" + text
	}
	u, err := url.Parse(whole)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("%q is not a page: want one such as http://:8080/healthz", text)
	}
	if host := u.Hostname(); host != "" && host != "localhost" && host != "127.0.0.1" {
		return nil, fmt.Errorf("%q is of host %q: it is asked within the container, want one such as http://:8080/healthz", text, host)
	}
	port := uint64(80)
	if u.Scheme == "https" {
		port = 443
	}
	if u.Port() != "" {
		if port, err = strconv.ParseUint(u.Port(), 10, 16); err != nil || port == 0 {
			return nil, fmt.Errorf("%q has no port from 1 to 65535", text)
		}
	}
	return &v1.HTTPProbe{Port: uint16(port), Path: u.RequestURI(), Scheme: u.Scheme}, nil
}

// parseTCPProbe reads the port to connect to.
func parseTCPProbe(text string) (*v1.TCPProbe, error) {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("%q is not a port from 1 to 65535", text)
	}
	return &v1.TCPProbe{Port: uint16(port)}, nil
}
