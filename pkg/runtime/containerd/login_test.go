package containerd

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// basic lets in who knows the password.
func basic(user, password string) *func(http.ResponseWriter, *http.Request) bool {
	f := func(w http.ResponseWriter, r *http.Request) bool {
		if u, p, ok := r.BasicAuth(); ok && u == user && p == password {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	return &f
}

// tokens lets in who has a token, which there is for the password or for an identity token.
func (h *hub) tokens(user, password, identity string) *func(http.ResponseWriter, *http.Request) bool {
	f := func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/token":
			u, p, ok := r.BasicAuth()
			_ = r.ParseForm()
			if ok && u == user && p == password || r.PostForm.Get("username") == user && r.PostForm.Get("password") == password ||
				identity != "" && r.PostForm.Get("grant_type") == "refresh_token" && r.PostForm.Get("refresh_token") == identity {
				_ = json.NewEncoder(w).Encode(map[string]string{"token": "good", "access_token": "good"})
				return true
			}
			w.WriteHeader(http.StatusUnauthorized)
			return true
		case r.Header.Get("Authorization") == "Bearer good":
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+h.URL+`/token",service="hub"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	return &f
}

// TestLogins: a login is given to its registry and to no other, and one that is refused says where, as whom, and what to do, without
// what it is known by.
func TestLogins(t *testing.T) {
	r := start(t, nil)
	for name, guard := range map[string]func(h *hub) *func(http.ResponseWriter, *http.Request) bool{
		"basic": func(*hub) *func(http.ResponseWriter, *http.Request) bool { return basic("anna", "pass-0f-anna") },
		"tokens": func(h *hub) *func(http.ResponseWriter, *http.Request) bool {
			return h.tokens("anna", "pass-0f-anna", "identity-0f-anna")
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			h.push(t, "team/private:1", marked(t, "private by "+name))
			h.fail.Store(guard(h))
			host := strings.TrimPrefix(h.URL, "http://")
			ref := h.ref("team/private:1")
			good := v1.RegistryLogin{Server: host, Username: "anna", Password: "pass-0f-anna"}
			part := v1.RegistryLogin{Server: host + "/team", Username: "anna", Password: "pass-0f-anna"}
			wrong := v1.RegistryLogin{Server: host, Username: "anna", Password: "wr0ng-pass"}
			elsewhere := v1.RegistryLogin{Server: "127.0.0.2:1", Username: "anna", Password: "pass-0f-anna"}
			for _, test := range []struct {
				login v1.RegistryLogin
				want  string
			}{
				{v1.RegistryLogin{}, `this swarm has no login to ` + host + `; give it one with "swarmctl registry login ` + host + `"`},
				{wrong, `the registry ` + host + ` refuses "anna"; if the password or token is wrong or has ended, renew it with "swarmctl registry login ` + host + `"`},
				{elsewhere, "pull access denied for " + ref},
			} {
				_, err := r.Pull(t.Context(), ref, runtime.Source{Login: test.login})
				if !errors.Is(err, runtime.ErrInvalid) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "wr0ng") {
					t.Errorf("Pull with %s: %v, want %q", test.login, err, test.want)
				}
				if _, _, err := r.Resolve(t.Context(), ref, test.login); !errors.Is(err, runtime.ErrInvalid) {
					t.Errorf("Resolve with %s: %v", test.login, err)
				}
			}
			if ok, err := r.TryLogin(t.Context(), wrong); ok || err != nil {
				t.Errorf("TryLogin with a wrong password: %t, %v", ok, err)
			}
			for _, login := range []v1.RegistryLogin{good, part} {
				if ok, err := r.TryLogin(t.Context(), login); !ok || err != nil {
					t.Errorf("TryLogin %s: %t, %v", login, ok, err)
				}
			}
			pinned, _, err := r.Resolve(t.Context(), ref, part)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Pull(t.Context(), pinned, runtime.Source{Login: good}); err != nil {
				t.Errorf("Pull: %v", err)
			}
			if name == "tokens" {
				identity := v1.RegistryLogin{Server: host, IdentityToken: "identity-0f-anna"}
				if ok, err := r.TryLogin(t.Context(), identity); !ok || err != nil {
					t.Errorf("TryLogin with an identity token: %t, %v", ok, err)
				}
				if _, _, err := r.Resolve(t.Context(), ref, identity); err != nil {
					t.Errorf("Resolve with an identity token: %v", err)
				}
			}
		})
	}
	if ok, err := r.TryLogin(t.Context(), v1.RegistryLogin{Server: "127.0.0.1:1", Username: "anna", Password: "pass-0f-anna"}); ok || err == nil ||
		!strings.Contains(err.Error(), "cannot be asked") {
		t.Errorf("TryLogin of nobody: %t, %v", ok, err)
	}
}
