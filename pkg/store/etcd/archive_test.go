package etcd

import (
	"bytes"
	"os"
	"testing"
)

// FuzzUnpack: whatever is given for a backup, unpacking it ends without a panic, and writes only files that a backup has.
func FuzzUnpack(f *testing.F) {
	var good bytes.Buffer
	m := &manifest{Format: archiveFormat, Kind: archiveKind, WrappedBy: byNode}
	parts := []part{partOf(dbName, []byte("database")), partOf(ringName, []byte("{}")), partOf(wrapName, make([]byte, keySize))}
	if err := writeArchive(&good, m, parts); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add(good.Bytes()[:good.Len()/2])
	f.Add([]byte("no backup"))
	f.Fuzz(func(t *testing.T, archive []byte) {
		dir := t.TempDir()
		_, err := unpack(bytes.NewReader(archive), dir)
		if bytes.Equal(archive, good.Bytes()) && err != nil {
			t.Error(err)
		}
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if name := e.Name(); name != dbName && name != ringName && name != wrapName {
				t.Errorf("unpacks %q", name)
			}
		}
	})
}
