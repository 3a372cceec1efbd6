package apiserver_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// TestSecretsCannotBeGuessed: who may not know a secret gets the same answer for a right guess as for a wrong one.
func TestSecretsCannotBeGuessed(t *testing.T) {
	c := form(t)
	put := func(data string) string {
		return fmt.Sprintf(`{"apiVersion":"swarm/v1","kind":"Secret","metadata":{"name":"planted","labels":{"a":"b"}},"spec":{%s}}`, data)
	}
	guess := func(text string) string {
		return put(`"data":"` + base64.StdEncoding.EncodeToString([]byte(text)) + `"`)
	}
	for _, u := range []struct {
		role  v1.UserRole
		right int
	}{{v1.UserOperate, http.StatusBadRequest}, {v1.UserAdmin, http.StatusOK}} {
		if _, _, err := c.user(string(u.role), u.role); err != nil {
			t.Fatal(err)
		}
		token, err := c.token(string(u.role))
		if err != nil {
			t.Fatal(err)
		}
		user := c.as(nil, nil, token)
		for _, query := range []string{"?dryRun=true", ""} {
			right := user.must("PUT", "/v1/secrets/planted"+query, guess(plantedSecret))
			wrong := user.must("PUT", "/v1/secrets/planted"+query, guess("another"))
			if right.code != u.right || wrong.code != http.StatusBadRequest {
				t.Errorf("%s%s: %d for the right data, %d for others", u.role, query, right.code, wrong.code)
			}
			if u.role == v1.UserOperate && right.body != wrong.body {
				t.Errorf("%s%s: %s and %s", u.role, query, right.body, wrong.body)
			}
			user.expect(http.StatusOK, "PUT", "/v1/secrets/planted"+query, put(""))
		}
	}
	c.local().expect(http.StatusOK, "PUT", "/v1/secrets/planted", guess(plantedSecret))
}
