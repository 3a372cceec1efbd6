package apiserver

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// maxBody bounds bodies that have no other limit, in bytes.
const maxBody = 4 << 20

// smallBody is the size up to which bodies are read at once, in bytes. Of larger ones only maxLargeBodies are being read at a
// time, so that many clients together cannot fill the memory.
const smallBody = 128 << 10

// limitBody gives a request's body a time to arrive, whether or not somebody reads it: before it answers, net/http itself reads
// some of what was left. Whoever has read the body takes the limit away again.
func limitBody(w http.ResponseWriter, r *http.Request, within time.Duration) {
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(within)) // not possible in a test without a connection
	}
}

// readBody reads a whole body, of at most limit bytes, within the time that bodies have.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, problemf(http.StatusUnsupportedMediaType, "the body must not be encoded, found Content-Encoding %q", clip(e))
	}
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close")
		return nil, &http.MaxBytesError{Limit: limit}
	}
	body := make([]byte, 0, min(max(r.ContentLength, 511), smallBody)+1)
	large := false
	for from := http.MaxBytesReader(w, r.Body, limit); ; {
		if len(body) == cap(body) {
			if !large && len(body) >= smallBody {
				of, _ := s.placesOf(r)
				leave, err := of.largeBodies.wait(r.Context())
				if err != nil {
					return nil, err
				}
				defer leave()
				large = true
			}
			body = append(body, 0)[:len(body)]
		}
		n, err := from.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case err == io.EOF:
			_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // it would end the request (see limitBody)
			return body, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			w.Header().Set("Connection", "close")
			return nil, err
		case err == io.ErrUnexpectedEOF:
			return nil, problemf(http.StatusBadRequest, "the request's body ends too early")
		case err != nil:
			return nil, brokenBody(err)
		}
	}
}

// brokenBody is what is told of a body that cannot be read on. It is the client's doing, and no error of this side.
func brokenBody(err error) error {
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return err
	}
	return problemf(http.StatusBadRequest, "the request's body broke off: %s", err)
}

// readInto reads a small body, which may be empty, into v.
func (s *Server) readInto(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := s.readBody(w, r, maxRequestBody)
	if err != nil || len(body) == 0 {
		return err
	}
	return v1.DecodeStrict(body, v)
}

// boolQuery reads a parameter that is true or false, and false where it is absent.
func boolQuery(r *http.Request, name string) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		return false, problemf(http.StatusBadRequest, "query parameter %s: want true or false, found %q", name, clip(text))
	}
	return v, nil
}

// intQuery reads a parameter that is a whole number from least to most, with a value for where it is absent.
func intQuery(r *http.Request, name string, absent, least, most int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return absent, nil
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < least || v > most {
		return 0, problemf(http.StatusBadRequest, "query parameter %s: want a whole number from %d to %d, found %q", name, least, most, clip(text))
	}
	return v, nil
}

// oneOf reads a parameter that is one of some words; the first is for where it is absent.
func oneOf(r *http.Request, name string, words ...string) (string, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return words[0], nil
	}
	for _, w := range words {
		if text == w {
			return w, nil
		}
	}
	return "", problemf(http.StatusBadRequest, "query parameter %s: want %s, found %q", name, strings.Join(words, ", "), clip(text))
}
