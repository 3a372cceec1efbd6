package cli

import (
	"encoding/csv"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// defaultListenAddr is where a node that is a manager listens.
const defaultListenAddr = "0.0.0.0:" + defaultPort

// settingsFlags are the swarm's settings, as swarm init and swarm update have them.
type settingsFlags struct {
	certFlags
	history               int64
	heartbeat             time.Duration
	maxSnapshots, entries uint64
	autolock              bool
	images                v1.ImageMarks
}

// certFlags are what swarm ca has of them.
type certFlags struct {
	expiry   time.Duration
	external *list[v1.ExternalCA]
}

func (f *certFlags) add(cmd *cobra.Command) {
	f.external = newList("external-ca", parseExternalCA)
	s := cmd.Flags()
	s.DurationVar(&f.expiry, "cert-expiry", v1.DefaultNodeCertExpiry, "Validity period for node certificates (ns|us|ms|s|m|h)")
	s.Var(f.external, "external-ca", "Specifications of one or more certificate signing endpoints")
}

func (f *settingsFlags) add(cmd *cobra.Command, autolock string) {
	f.certFlags.add(cmd)
	s := cmd.Flags()
	s.BoolVar(&f.autolock, "autolock", false, autolock)
	s.DurationVar(&f.heartbeat, "dispatcher-heartbeat", v1.DefaultHeartbeatPeriod, "Dispatcher heartbeat period (ns|us|ms|s|m|h)")
	s.Uint64Var(&f.maxSnapshots, "max-snapshots", 0, "Number of additional Raft snapshots to retain")
	s.Uint64Var(&f.entries, "snapshot-interval", v1.DefaultSnapshotInterval, "Number of log entries between Raft snapshots")
	s.Uint32Var(&f.images.High, "images-high", v1.DefaultImagesHigh, "How full the disk of a node's images may be before those that no task needs are removed, in percent (100 is never)")
	s.Uint32Var(&f.images.Low, "images-low", v1.DefaultImagesLow, "How full it is to be afterwards, in percent")
	s.Int64Var(&f.history, "task-history-limit", v1.DefaultTaskHistoryLimit, "Task history retention limit")
}

// merge sets what was given on the line, and tells whether that was anything.
func (f *settingsFlags) merge(cmd *cobra.Command, s *v1.ClusterSpec) bool {
	changed := f.certFlags.merge(cmd, s)
	given := cmd.Flags().Changed
	if given("task-history-limit") {
		s.TaskHistoryLimit, changed = new(f.history), true
	}
	if given("dispatcher-heartbeat") {
		s.HeartbeatPeriod, changed = new(v1.Duration(f.heartbeat)), true
	}
	if given("max-snapshots") || given("snapshot-interval") {
		raft := v1.RaftSettings{}
		if s.Raft != nil {
			raft = *s.Raft
		}
		if given("max-snapshots") {
			raft.KeepOldSnapshots = f.maxSnapshots
		}
		if given("snapshot-interval") {
			raft.SnapshotInterval = f.entries
		}
		s.Raft, changed = &raft, true
	}
	if given("images-high") || given("images-low") {
		var marks v1.ImageMarks
		if s.Images != nil {
			marks = *s.Images
		}
		if given("images-high") {
			marks.High = f.images.High
		}
		if given("images-low") {
			marks.Low = f.images.Low
		}
		s.Images, changed = &marks, true
	}
	if given("autolock") {
		s.AutoLock, changed = f.autolock, true
	}
	return changed
}

func (f *certFlags) merge(cmd *cobra.Command, s *v1.ClusterSpec) (changed bool) {
	if cmd.Flags().Changed("cert-expiry") {
		s.NodeCertExpiry, changed = new(v1.Duration(f.expiry)), true
	}
	if cmd.Flags().Changed("external-ca") {
		s.ExternalCAs, changed = f.external.all, true
	}
	return changed
}

// parseExternalCA reads protocol=cfssl,url=https://…[,cacert=FILE], with Docker's errors.
func parseExternalCA(text string) (v1.ExternalCA, error) {
	e := v1.ExternalCA{}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if errors.Is(err, io.EOF) {
		err = errors.New("the external-ca option needs a protocol= parameter")
	}
	if err != nil {
		return e, err
	}
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return e, fmt.Errorf("invalid field '%s' must be a key=value pair", field)
		}
		switch key {
		case "protocol":
			if e.Protocol = strings.ToLower(value); e.Protocol != "cfssl" {
				return e, fmt.Errorf("unrecognized external CA protocol %s", value)
			}
		case "url":
			e.URL = value
		case "cacert":
			if e.CACert, err = readPEM(value); err != nil {
				return e, fmt.Errorf("unable to read CA cert for external CA: %w", err)
			}
		default:
			if e.Options == nil {
				e.Options = make(map[string]string)
			}
			e.Options[key] = value
		}
	}
	switch {
	case e.Protocol == "":
		return e, errors.New("the external-ca option needs a protocol= parameter")
	case e.URL == "":
		return e, errors.New("the external-ca option needs a url= parameter")
	}
	return e, nil
}

// maxPEM bounds a file of certificates or keys, in bytes.
const maxPEM = 256 << 10

// readPEM is the text of a file in PEM format.
func readPEM(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxPEM {
		return "", fmt.Errorf("%s is larger than %d bytes", path, maxPEM)
	}
	if block, _ := pem.Decode(data); block == nil {
		return "", errors.New("file contents must be in PEM format")
	}
	return string(data), nil
}

// parseListenAddr reads an address or interface with an optional port, and fills in the standard ones.
func parseListenAddr(text string) (string, error) {
	host, port := strings.TrimPrefix(text, "tcp://"), ""
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, port = h, p
	} else if strings.HasPrefix(host, ":") || strings.Contains(host, "/") {
		return "", fmt.Errorf("invalid bind address format: %s", text)
	}
	host = strings.Trim(host, "[]")
	if host == "" {
		host = "0.0.0.0"
	}
	if port == "" {
		port = defaultPort
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("invalid bind address format: %s", text)
	}
	return net.JoinHostPort(host, port), nil
}

// parsePool reads a subnet, as Docker's --default-addr-pool.
func parsePool(text string) ([]string, error) {
	var pools []string
	for part := range strings.SplitSeq(text, ",") {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("invalid CIDR address: %s", strings.TrimSpace(part))
		}
		pools = append(pools, prefix.Masked().String())
	}
	return pools, nil
}
