package etcd

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"google.golang.org/protobuf/proto"
)

// found is what is in a member's directory before it is started.
type found struct {
	member  bool // there is one
	id      types.ID
	learner bool
}

// examine looks into a member's directory without changing it. etcd itself ends the process, or waits without end, where its log
// has lost what its database holds already; here it is ErrDamaged.
func examine(dir string) (found, error) {
	damaged := func(what string, err error) (found, error) {
		return found{}, fmt.Errorf("%w: %s: %s: %w", ErrDamaged, dir, what, err)
	}
	applied, members, err := examineDB(filepath.Join(dir, "member", "snap", "db"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return damaged("the database", err)
	}
	noDB := err != nil
	last, id, err := examineLog(filepath.Join(dir, "member", "wal"))
	switch {
	case errors.Is(err, fs.ErrNotExist) && applied == 0:
		return found{}, nil // it never came to life
	case err != nil:
		return damaged("the log", err)
	case noDB:
		return damaged("the database", fs.ErrNotExist)
	case last < applied:
		return damaged("the log", fmt.Errorf("it ends at entry %d, and the database has what %d wrote: it was cut off", last, applied))
	}
	f := found{member: true, id: id}
	if m := members[id]; m != nil {
		f.learner = m.IsLearner
	}
	return f, nil
}

// examineDB reads up to which entry of the log the database goes, and the members that it knows.
func examineDB(path string) (applied uint64, members map[types.ID]*membership.Member, err error) {
	defer func() { // the library panics on pages that are none
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return 0, nil, err
	case info.Size() == 0: // the first start ended before it had begun
		return 0, nil, fs.ErrNotExist
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	members = make(map[types.ID]*membership.Member)
	err = db.View(func(tx *bolt.Tx) error {
		if info.Size() < tx.Size() { // to read what is not there ends the process
			return fmt.Errorf("it has %d bytes of %d: it was cut off", info.Size(), tx.Size())
		}
		if meta := tx.Bucket([]byte("meta")); meta != nil {
			if v := meta.Get([]byte("consistent_index")); len(v) == 8 {
				applied = binary.BigEndian.Uint64(v)
			}
		}
		list := tx.Bucket([]byte("members"))
		if list == nil {
			return nil
		}
		return list.ForEach(func(_, v []byte) error {
			m := new(membership.Member)
			if err := json.Unmarshal(v, m); err != nil {
				return err
			}
			members[m.ID] = m
			return nil
		})
	})
	return applied, members, err
}

// examineLog reads the last segment of the log: its last entry, or what it knows to be committed, and whose log it is.
func examineLog(dir string) (last uint64, id types.ID, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	names, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil {
		return 0, 0, err
	}
	if len(names) == 0 {
		return 0, 0, fs.ErrNotExist
	}
	name := slices.Max(names)
	var segment, first uint64
	if _, err := fmt.Sscanf(filepath.Base(name), "%x-%x.wal", &segment, &first); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", name, err)
	}
	f, err := os.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	return lastEntry(wal.NewDecoder(fileutil.NewFileReader(f)), max(first, 1)-1)
}

// lastEntry reads a segment from its beginning. What was being written when the power went is at its end, and no error: nobody was
// told that it is written.
func lastEntry(d wal.Decoder, before uint64) (last uint64, id types.ID, err error) {
	committed := uint64(0)
	last = before
	for {
		record := new(walpb.Record)
		if err = d.Decode(record); err != nil {
			break
		}
		switch record.GetType() {
		case wal.EntryType:
			last = wal.MustUnmarshalEntry(record.Data).GetIndex()
		case wal.StateType:
			committed = wal.MustUnmarshalState(record.Data).GetCommit()
		case wal.MetadataType:
			var meta etcdserverpb.Metadata
			if err := proto.Unmarshal(record.Data, &meta); err != nil {
				return 0, 0, err
			}
			id = types.ID(meta.GetNodeID())
		case wal.CrcType:
			d.UpdateCRC(record.GetCrc())
		}
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, 0, err
	}
	return max(last, committed), id, nil
}
