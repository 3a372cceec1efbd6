package etcd

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logCore hands etcd's log to slog: what an operator should know as it is, what etcd says in its ordinary life at debug
// level. etcd warns of things we chose, and tells of errors with stack traces when it is merely closed.
type logCore struct {
	log    *slog.Logger
	state  *logging
	fields []zapcore.Field
}

// logging says in which part of its life etcd is.
type logging struct {
	// closing makes it talk at debug level.
	closing atomic.Bool
	// starting makes what it would end the process for a panic.
	starting atomic.Bool
}

// chosen are beginnings of warnings about how we run etcd.
var chosen = []string{
	"Running http and grpc server on single port",
	"simple token is not cryptographically signed",
	"Detected that checkpointing is enabled",
	"exceeded recommended request limit",
	"rejecting promote learner", // ErrNotReady
	"failed to promote a member",
	"failed to publish local member", // see await
}

func newLogger(log *slog.Logger, state *logging) *zap.Logger {
	var core zapcore.Core = &logCore{log: log, state: state}
	// A slow disk says the same many times a second.
	core = zapcore.NewSamplerWithOptions(core, time.Minute, 3, 0)
	return zap.New(core, zap.WithFatalHook(state), zap.WithPanicHook(state))
}

// OnWrite implements zapcore.CheckWriteHook: it is called for what etcd cannot go on after.
func (l *logging) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	if e.Level == zapcore.FatalLevel && !l.starting.Load() {
		os.Exit(1) // it was told why; a member that cannot write its log must not answer for it
	}
	text := []string{e.Message}
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			text = append(text, err.Error())
		}
	}
	panic(strings.Join(text, ": "))
}

// Enabled implements zapcore.LevelEnabler. Below a warning, etcd is too talkative even for debugging ours.
func (c *logCore) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

// With implements zapcore.Core.
func (c *logCore) With(fields []zapcore.Field) zapcore.Core {
	next := *c
	next.fields = append(slices.Clip(c.fields), fields...)
	return &next
}

// Check implements zapcore.Core.
func (c *logCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c *logCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelWarn
	switch {
	case e.Level >= zapcore.DPanicLevel:
		level = slog.LevelError
	case c.state.closing.Load() || ordinary(e.Message):
		level = slog.LevelDebug
	case e.Level == zapcore.ErrorLevel:
		level = slog.LevelError
	}
	ctx := context.Background()
	if !c.log.Enabled(ctx, level) {
		return nil
	}
	encoder := zapcore.NewMapObjectEncoder()
	for _, f := range append(slices.Clip(c.fields), fields...) {
		f.AddTo(encoder)
	}
	attrs := make([]slog.Attr, 0, len(encoder.Fields))
	for k, v := range encoder.Fields {
		if k == "request" || k == "response" {
			continue // holds keys and sealed values
		}
		attrs = append(attrs, slog.Any(k, v))
	}
	c.log.LogAttrs(ctx, level, "etcd: "+e.Message, slog.Attr{Key: "etcd", Value: slog.GroupValue(attrs...)})
	return nil
}

// Sync implements zapcore.Core.
func (c *logCore) Sync() error { return nil }

func ordinary(message string) bool {
	for _, m := range chosen {
		if strings.HasPrefix(message, m) {
			return true
		}
	}
	return false
}
