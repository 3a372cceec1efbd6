package cli

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// apiError is what people read of an error about one object: Docker's words where it is not there, and else what the
// daemon said.
func apiError(err error, kind v1.Kind, ref string) error {
	if err == nil {
		return nil
	}
	if client.Status(err) == http.StatusNotFound {
		return &notFoundError{kind, ref}
	}
	return daemonError(err)
}

// daemonPrefix begins what the daemon refused, as Docker's.
const daemonPrefix = "Error response from daemon: "

// daemonError marks what the daemon refused, as Docker does. Everything else stays as it is.
func daemonError(err error) error {
	if _, ok := errors.AsType[*v1.Problem](err); ok {
		return fmt.Errorf("%s%w", daemonPrefix, err)
	}
	return err
}

// notFoundError says that there is no object of that name or ID.
type notFoundError struct {
	kind v1.Kind
	ref  string
}

func (e *notFoundError) Error() string {
	return fmt.Sprintf("no such %s: %s", strings.ToLower(string(e.kind)), e.ref)
}

func notFound(err error) bool {
	var e *notFoundError
	return errors.As(err, &e)
}
