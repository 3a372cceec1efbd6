package apiserver_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

func (c *cluster) user(name string, role v1.UserRole) (*v1.User, []string, error) {
	return client.Create(c.ctx, c.client, v1.Users, &v1.User{Meta: v1.Meta{Name: name}, Spec: &v1.UserSpec{Role: role}})
}

// role changes a user's role.
func (c *cluster) role(name string, role v1.UserRole) {
	c.Helper()
	u, err := client.Get(c.ctx, c.client, v1.Users, name)
	if err != nil {
		c.Fatal(err)
	}
	u.Spec.Role = role
	if _, _, err := client.Update(c.ctx, c.client, v1.Users, u); err != nil {
		c.Fatal(err)
	}
}

// get is a node as it is now.
func (c *cluster) get(node string) *v1.Node {
	c.Helper()
	n, err := client.Get(c.ctx, c.client, v1.Nodes, node)
	if err != nil {
		c.Fatal(err)
	}
	return n
}

func TestUserTokens(t *testing.T) {
	c := form(t)
	if _, _, err := c.user("vera", v1.UserView); err != nil {
		t.Fatal(err)
	}
	first, err := c.client.CreateUserToken(c.ctx, "vera", v1.UserTokenRequest{})
	if err != nil || !strings.HasPrefix(first.Token, "SWMUSR-1-") {
		t.Fatalf("%+v, %v", first, err)
	}
	second, err := c.client.CreateUserToken(c.ctx, "vera", v1.UserTokenRequest{Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	u, err := client.Get(c.ctx, c.client, v1.Users, "vera")
	if err != nil || len(u.Spec.Tokens) != 2 || u.Spec.Tokens[0].Hash != "" || u.Spec.Tokens[1].Expires.IsZero() {
		t.Fatalf("%+v, %v", u.Spec, err)
	}
	c.role("vera", v1.UserOperate) // keeps the tokens, also from a read object that has no hashes
	for _, token := range []string{first.Token, second.Token} {
		c.as(nil, nil, token).expect(http.StatusOK, "GET", "/v1/services", "")
	}
	if err := c.client.RemoveUserToken(c.ctx, "vera", first.ID); err != nil {
		t.Fatal(err)
	}
	c.as(nil, nil, first.Token).expect(http.StatusUnauthorized, "GET", "/v1/services", "", "the token is wrong, or was removed")
	c.as(nil, nil, second.Token).expect(http.StatusOK, "GET", "/v1/services", "")
	c.refused(c.client.RemoveUserToken(c.ctx, "vera", first.ID), http.StatusNotFound, "user vera has no token")
}

func TestUserTokensEnd(t *testing.T) {
	now := new(clock)
	c := form(t, now.option)
	if _, _, err := c.user("vera", v1.UserView); err != nil {
		t.Fatal(err)
	}
	token, err := c.client.CreateUserToken(c.ctx, "vera", v1.UserTokenRequest{Expires: now.now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	vera := c.as(nil, nil, token.Token)
	vera.expect(http.StatusOK, "GET", "/v1/services", "")
	now.advance(time.Hour)
	vera.expect(http.StatusUnauthorized, "GET", "/v1/services", "", "the token ended at")
	_, err = c.client.CreateUserToken(c.ctx, "vera", v1.UserTokenRequest{Expires: now.now()})
	c.refused(err, http.StatusBadRequest, "expires", "is over already")
}

func TestUsersThatAreRefused(t *testing.T) {
	c := form(t)
	_, _, err := c.user("vera", "owner")
	c.refused(err, http.StatusBadRequest, "spec.role")
	local := c.local()
	const user = `{"apiVersion":"swarm/v1","kind":"User","metadata":{"name":"eve"},"spec":{"role":"view","tokens":[{"id":"a","hash":"` + "00" + `"}]}}`
	local.expect(http.StatusBadRequest, "POST", "/v1/users", user, "spec.tokens", "cannot be set")
	if _, _, err := c.user("eve", v1.UserView); err != nil {
		t.Fatal(err)
	}
	local.expect(http.StatusBadRequest, "PUT", "/v1/users/eve", user, "spec.tokens", "cannot be set")
	_, _, err = c.user("eve", v1.UserView)
	c.refused(err, http.StatusConflict, "user eve already exists")
	for range 32 {
		if _, err := c.token("eve"); err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.token("eve")
	c.refused(err, http.StatusConflict, "has 32 tokens already")
	local.expect(http.StatusNotFound, "POST", "/v1/users/nobody/tokens", "", "user nobody not found")
	local.expect(http.StatusBadRequest, "POST", "/v1/users/eve/certificate", `{"csr":"AAAA"}`, "csr")
}

func TestUserCertificate(t *testing.T) {
	c := form(t)
	if _, _, err := c.user("ada", v1.UserAdmin); err != nil {
		t.Fatal(err)
	}
	key, csr := c.request()
	got, err := c.client.UserCertificate(c.ctx, "ada", csr)
	if err != nil {
		t.Fatal(err)
	}
	c.as(got.Chain, key, "").expect(http.StatusOK, "GET", "/v1/users", "")
}
