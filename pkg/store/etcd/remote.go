package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// startTimeout bounds the wait for somebody's own etcd.
const startTimeout = time.Minute

// dial connects to somebody's own etcd.
func dial(ctx context.Context, c *Config) (*clientv3.Client, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: c.Endpoints, TLS: c.TLS, Username: c.Username, Password: c.Password,
		DialTimeout: 10 * time.Second, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
		MaxCallSendMsgSize: 64 << 20, // the server's own limit is the one that counts
		Logger:             newLogger(c.Log, new(logging)),
	})
	if err != nil {
		return nil, fmt.Errorf("store: etcd: connect to %v: %w", c.Endpoints, err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if _, err := client.Get(ctx, nothing); err != nil {
		return nil, errors.Join(fmt.Errorf("store: etcd: connect to %v: %w", c.Endpoints, err), client.Close())
	}
	return client, nil
}

// txnLimit finds how many conditions and operations the server takes in a transaction (--max-txn-ops), by transactions
// that do nothing.
func txnLimit(ctx context.Context, client *clientv3.Client) (int, error) {
	works := 0
	for _, n := range []int{128, 256, 512, 1024, memberTxnOps} {
		conditions := make([]clientv3.Cmp, n)
		for i := range conditions {
			conditions[i] = clientv3.Compare(clientv3.CreateRevision(nothing), "=", 0)
		}
		_, err := client.Txn(ctx).If(conditions...).Commit()
		if errors.Is(err, rpctypes.ErrTooManyOps) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("store: etcd: ask for the limit of a transaction: %w", err)
		}
		works = n
	}
	if works == 0 {
		return 0, errors.New("store: etcd: the server takes fewer than 128 operations in a transaction; raise its --max-txn-ops")
	}
	return works, nil
}
