package reconcile

import (
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
)

// The backoff of a key that fails.
const (
	minBackoff = 5 * time.Millisecond
	maxBackoff = 30 * time.Second
)

// A key that was dear to decide is held back for holdFactor times what it cost, at most maxHold, so that a large service
// that hears of each of its tasks does not keep the engine busy. What cost less than holdAbove never waits.
const (
	holdFactor = 10
	holdAbove  = time.Millisecond
	maxHold    = 2 * time.Second
)

// queue is the keys to decide: each once, with delay, backoff, two priorities, and a hold on what is dear.
type queue struct {
	workqueue.TypedRateLimitingInterface[string]
	lanes *lanes

	mu     sync.Mutex
	holds  map[string]time.Time // until when
	urgent map[string]bool      // those that are not to be held
}

func newQueue(name string, m queueMetrics) *queue {
	m.depth.Reset() // of an earlier time of leading
	m.unfinished.Reset()
	m.longest.Reset()
	lanes := newLanes()
	inner := workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[string]{Name: name, MetricsProvider: m, Queue: lanes})
	delaying := workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[string]{Name: name,
		MetricsProvider: m, Queue: inner})
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](minBackoff, maxBackoff)
	return &queue{lanes: lanes, holds: make(map[string]time.Time), urgent: make(map[string]bool),
		TypedRateLimitingInterface: workqueue.NewTypedRateLimitingQueueWithConfig(limiter,
			workqueue.TypedRateLimitingQueueConfig[string]{Name: name, MetricsProvider: m, DelayingQueue: delaying})}
}

// wake asks for a key as soon as it may be; what the user wants, at once.
func (q *queue) wake(key string, urgent bool) {
	q.lanes.ask(key, false)
	if urgent {
		q.hurry(key)
	} else if wait := q.held(key); wait > 0 {
		q.AddAfter(key, wait)
		return
	}
	q.Add(key)
}

// hurry lets the key pass the next time, however dear it was.
func (q *queue) hurry(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.urgent[key] = true
}

// wakeLow asks for a key when there is nothing better to do.
func (q *queue) wakeLow(key string) {
	q.lanes.ask(key, true)
	q.Add(key)
}

// wakeAt asks for a key at a time.
func (q *queue) wakeAt(key string, at time.Time) {
	q.AddAfter(key, max(time.Until(at), q.held(key)))
}

// decided holds the key for a time that its cost asks for.
func (q *queue) decided(key string, cost time.Duration) {
	if cost < holdAbove {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.holds[key] = time.Now().Add(min(cost*holdFactor, maxHold))
}

func (q *queue) held(key string) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	until, ok := q.holds[key]
	if !ok {
		return 0
	}
	wait := time.Until(until)
	if wait <= 0 {
		delete(q.holds, key)
	}
	return wait
}

// take waits for a key, and takes those that are there with it, at most most. None means that the queue is shut down.
func (q *queue) take(most int) (keys []string) {
	for len(keys) == 0 || len(keys) < most && q.Len() > 0 { // we are the only taker: Get does not wait then
		key, shutdown := q.Get()
		if shutdown {
			return keys
		}
		hurried := q.hurried(key)
		if wait := q.held(key); wait > 0 && !hurried {
			q.AddAfter(key, wait) // it was woken while it was decided
			q.Done(key)
			continue
		}
		keys = append(keys, key)
	}
	return keys
}

// hurried tells whether the key may pass, once.
func (q *queue) hurried(key string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	defer delete(q.urgent, key)
	return q.urgent[key]
}

// lanes is the order of a queue: first in, first out, but what was asked for at low priority after all else. The queue
// calls Touch, Push, Len and Pop under its lock.
type lanes struct {
	mu    sync.Mutex
	asked map[string]struct{} // to be pushed at low priority
	high  []string
	low   []string
	inLow map[string]struct{} // those of low that count: others were moved up
}

func newLanes() *lanes {
	return &lanes{asked: make(map[string]struct{}), inLow: make(map[string]struct{})}
}

// ask says with which priority the key is about to be added.
func (l *lanes) ask(key string, low bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if low {
		l.asked[key] = struct{}{}
	} else {
		delete(l.asked, key)
	}
}

// Touch implements workqueue.Queue: a waiting key was asked for again.
func (l *lanes) Touch(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, low := l.asked[key]
	delete(l.asked, key)
	if _, waits := l.inLow[key]; waits && !low {
		delete(l.inLow, key)
		l.high = append(l.high, key)
	}
}

// Push implements workqueue.Queue.
func (l *lanes) Push(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, low := l.asked[key]; low {
		delete(l.asked, key)
		l.low = append(l.low, key)
		l.inLow[key] = struct{}{}
		return
	}
	l.high = append(l.high, key)
}

// Len implements workqueue.Queue.
func (l *lanes) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.high) + len(l.inLow)
}

// Pop implements workqueue.Queue.
func (l *lanes) Pop() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.high) > 0 {
		key := l.high[0]
		l.high = l.high[1:]
		return key
	}
	for {
		key := l.low[0]
		l.low = l.low[1:]
		if _, counts := l.inLow[key]; counts {
			delete(l.inLow, key)
			return key
		}
	}
}
