package netplugin

import (
	"path/filepath"
	"testing"
	"time"
)

// TestKeysTurn: a node's turning key is another one after twelve hours. It is told first, and used once the managers tell it; a restart
// changes none.
func TestKeysTurn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	r := &keyring{path: path}
	began := time.Unix(1_800_000_000, 0)
	at := func(age time.Duration) (told, used PublicKey) {
		t.Helper()
		told, err := r.tell(began.Add(age))
		must(t, err)
		_, used, err = r.current(began.Add(age))
		must(t, err)
		return told, used
	}
	first, used := at(0)
	if first != used || first == (PublicKey{}) || first.check() != nil {
		t.Fatalf("at first %x is told, and %x used", first, used)
	}
	r = &keyring{path: path}
	if told, used := at(keyAge - time.Second); told != first || used != first {
		t.Error("the key is another one before its time, or after a restart")
	}
	next, used := at(12 * time.Hour)
	if next.turning() == first.turning() || next.lasting() != first.lasting() || used != first {
		t.Errorf("after twelve hours %x is told, was %x; %x is used", next, first, used)
	}
	must(t, r.follow(first, began.Add(13*time.Hour))) // the managers do not know yet
	r = &keyring{path: path}
	if told, used := at(13 * time.Hour); told != next || used != first {
		t.Error("the next key is used before the others were told it, or a restart forgot it")
	}
	must(t, r.follow(next, began.Add(14*time.Hour)))
	if told, used := at(26*time.Hour - time.Second); told != next || used != next {
		t.Error("the next key is not in use, or not for twelve hours")
	}
	if third, _ := at(26 * time.Hour); third == next {
		t.Error("the key is used for longer than twelve hours")
	}
}

// TestKeysOfAnEarlierStart: a node that comes back knows that it had its keys before, and one that is new or whose keys were removed does not.
func TestKeysOfAnEarlierStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	now := time.Unix(1_800_000_000, 0)
	start := func() *keyring {
		t.Helper()
		r := &keyring{path: path}
		_, _, err := r.current(now)
		must(t, err)
		return r
	}
	first, second := start(), start()
	if first.older() || !second.older() {
		t.Errorf("the first start had keys before: %t, the second: %t", first.older(), second.older())
	}
	must(t, second.forget())
	if second.older() || start().older() {
		t.Error("there are keys of before after they were removed")
	}
}
