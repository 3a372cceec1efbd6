package ca

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// swarmToken is one that Docker's documentation shows.
const swarmToken = "SWMTKN-1-49nj1cmql0jkz5s954yi3oex3nedyz0fb0xx14ie39trti4wxv-8vxv8rssmk743ojnwacrr2e7c"

func TestJoinTokens(t *testing.T) {
	token, err := ParseToken(" " + swarmToken + "\n")
	if err != nil || token.String() != swarmToken || len(token.Digest) != digestLength || len(token.Secret) != secretLength {
		t.Fatalf("%v %+v", err, token)
	}
	secret := token.Secret
	for _, bad := range []struct{ text, want string }{
		{"", "it is empty"}, {" \n", "it is empty"},
		{swarmToken[:30], "cut off"}, {swarmToken[:len(swarmToken)-1], "cut off"}, {swarmToken[:len(tokenPrefix)+digestLength], "cut off"},
		{swarmToken[:len(tokenPrefix)+digestLength+1], "cut off"}, {tokenPrefix, "cut off"},
		{swarmToken + "x", "want 25"}, {swarmToken + "-x", "want 25"},
		{strings.Replace(swarmToken, "SWMTKN", "SWMTKM", 1), "want SWMTKN-1-"}, {swarmToken[1:], "want SWMTKN-1-"},
		{strings.ToLower(swarmToken), "want SWMTKN-1-"}, {secret, "want SWMTKN-1-"},
		{"SWMTKN-2-1-" + swarmToken[len(tokenPrefix):], "FIPS"},
		{NewUnlockKey(), "unlock key"}, {"SWMUSR-1-x-y", "user's token"},
		{strings.Replace(swarmToken, "49nj", "49nJ", 1), "characters or values"}, {strings.Replace(swarmToken, "8vxv", "8vx*", 1), "characters or values"},
		{strings.Replace(swarmToken, "49nj", "zzzz", 1), "characters or values"}, // 51 of 258 bits
		{strings.Replace(swarmToken, "8vxv", "zzzz", 1), "characters or values"},
		{strings.Replace(swarmToken, "49nj", "49n", 1), "has 49 characters, want 50"}, {strings.Replace(swarmToken, "49nj", "449nj", 1), "has 51 characters, want 50"},
		{strings.Replace(swarmToken, "xv-8v", "xv8v", 1), "want a -"},
	} {
		_, err := ParseToken(bad.text)
		refused(t, err, bad.want, secret, secret[:12], secret[6:18])
		if err != nil && !strings.HasPrefix(err.Error(), "invalid join token: ") {
			t.Errorf("%v lacks Docker's words", err)
		}
	}
}

// TestTokensComeBack: every token that is made is read as what it was, whatever is around it.
func TestTokensComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		digest := base36(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest"), digestLength)
		want := Token{digest, base36(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "secret"), secretLength)}
		if got, err := ParseToken(want.String()); err != nil || got != want {
			t.Fatalf("%v: %+v, want %+v", err, got, want)
		}
		// No other text is that token: one character changed makes another token or none.
		text := []byte(want.String())
		at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
		text[at] = rapid.Byte().Draw(t, "as")
		if got, err := ParseToken(string(text)); err == nil && got == want && string(text) != want.String() && strings.TrimSpace(string(text)) != want.String() {
			t.Fatalf("%q is %+v", text, got)
		}
	})
	if a, b := NewSecret(), NewSecret(); a == b || len(a) != secretLength || !isBase36(a, 128) {
		t.Errorf("secrets %s %s", a, b)
	}
}

func TestUserTokens(t *testing.T) {
	id, hash, token := NewUserToken()
	other, _, _ := NewUserToken()
	gotID, gotHash, err := ParseUserToken(token + "\n")
	if err != nil || gotID != id || gotHash != hash || id == other {
		t.Errorf("%v: %s %s, want %s %s", err, gotID, gotHash, id, hash)
	}
	secret := token[len(userPrefix)+userIDLength+1:]
	if sum := sha256.Sum256([]byte(secret)); hex.EncodeToString(sum[:]) != hash || strings.Contains(hash, secret) {
		t.Error("the hash is not the SHA-256 of the secret")
	}
	for _, bad := range []string{"", swarmToken, userPrefix, userPrefix + id, userPrefix + id + "-", token[:len(token)-1], token + "x",
		strings.ToUpper(token), strings.Replace(token, id, strings.Repeat("z", userIDLength), 1), userPrefix + id + "-" + strings.Repeat("z", userSecretLength)} {
		_, _, err := ParseUserToken(bad)
		refused(t, err, "invalid token: ", secret[:20])
	}
}

func TestUnlockKeys(t *testing.T) {
	const docker = "SWMKEY-1-7c37Cc8654o6p38HnroywCi19pllOnGtbdZEgtKxZu8" // of its documentation
	if key, err := ParseUnlockKey(docker); err != nil || len(key) != unlockKeySize {
		t.Errorf("%v %d", err, len(key))
	}
	a, b := NewUnlockKey(), NewUnlockKey()
	if _, err := ParseUnlockKey(" " + a + "\n"); err != nil || a == b {
		t.Errorf("%v %s %s", err, a, b)
	}
	for _, bad := range []string{"", "SWMKEY-1-", docker[9:], docker[:len(docker)-1], docker + "A", docker + "=", strings.Replace(docker, "7c", "7*", 1),
		docker[:len(docker)-1] + "9", swarmToken, "SWMKEY-2-" + docker[9:]} {
		_, err := ParseUnlockKey(bad)
		refused(t, err, "invalid unlock key: ", docker[15:30])
	}
}
