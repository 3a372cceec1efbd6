package v1

import (
	"strings"
	"testing"
)

func TestValidateName(t *testing.T) {
	for _, test := range []struct {
		kind Kind
		name string
		ok   bool
	}{
		{KindService, "web", true}, {KindService, "Web-1_a", true}, {KindService, "0", true}, {KindService, "a--__b", true},
		{KindService, "", false}, {KindService, "-web", false}, {KindService, "web-", false}, {KindService, "we.b", false},
		{KindService, "we b", false}, {KindService, "wéb", false}, {KindService, "web\x00", false}, {KindService, "web\n", false},
		{KindService, strings.Repeat("a", 63), true}, {KindService, strings.Repeat("a", 64), false},
		{KindNetwork, "back_end", true}, {KindNetwork, "back.end", false},
		{KindNetwork, "ingress", false}, {KindNetwork, "hosts", true},
		{KindSecret, "db.password", true}, {KindSecret, ".db", false}, {KindSecret, "db.", false}, {KindSecret, "db/x", false},
		{KindSecret, strings.Repeat("a", 64), true}, {KindSecret, strings.Repeat("a", 65), false},
		{KindConfig, "site.conf", true}, {KindConfig, "site_", false},
		{KindVolume, "data.", true}, {KindVolume, "_data", false}, {KindVolume, strings.Repeat("v", 256), false},
		{KindNode, "", true}, {KindNode, "worker-1.example.org", true}, {KindNode, "worker 1", false},
		{KindCluster, "default", true}, {KindCluster, "other", false}, {KindCluster, "", false},
		{KindUser, "ada", true}, {KindUser, "ada.l-1_a", true}, {KindUser, "", false}, {KindUser, "ada lovelace", false}, {KindUser, "swarm-manager", false},
		{KindUser, strings.Repeat("u", 64), true}, {KindUser, strings.Repeat("u", 65), false},
		{KindTask, "web.1", false},
	} {
		if err := ValidateName(test.kind, test.name); (err == nil) != test.ok {
			t.Errorf("%s %q: %v", test.kind, test.name, err)
		}
	}
	if err := ValidateName(KindService, "a b"); err == nil || err.Error() !=
		`"a b" is not a name: want 1 to 63 letters, digits, - and _, beginning and ending with a letter or digit` {
		t.Errorf("text: %v", err)
	}
}
