package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

// guard stands before distribution's handlers: no request is answered while a collection runs, and none that a
// web page sends.
type guard struct {
	next http.Handler
	// Held by each request, and by a collection alone.
	gate sync.RWMutex
	// The last write, in nanoseconds since 1970; 0: none since the last collection.
	written atomic.Int64
}

func (g *guard) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	if request.URL.Path == "/" {
		return // kubelet asks each second: the log has no line of it, and a collection is no reason for a no
	}
	// Clients of registries send none. Browsers do with each write, also where a page's name was made to point here.
	if origin := request.Header.Get("Origin"); origin != "" {
		http.Error(writer, "the request comes from a page at "+origin, http.StatusForbidden)
		return
	}
	g.gate.RLock()
	defer g.gate.RUnlock()
	if request.Method != http.MethodGet && request.Method != http.MethodHead {
		defer func() { g.written.Store(time.Now().UnixNano()) }()
	}
	g.next.ServeHTTP(writer, request)
}

// collectWhenQuiet calls collect each time that something was written and then nothing for a while: a push is many
// requests, and its layers have no tag before the last.
func (g *guard) collectWhenQuiet(quiet time.Duration, collect func()) {
	for range time.Tick(max(quiet/10, time.Millisecond)) {
		// A request that takes long is waited for here: a waiting lock would keep new ones out.
		if written := g.written.Load(); written == 0 || time.Since(time.Unix(0, written)) < quiet || !g.gate.TryLock() {
			continue
		}
		collect()
		g.written.Store(0)
		g.gate.Unlock()
	}
}

// sweep removes the manifests that no tag and no other manifest names, and the blobs that none needs.
func sweep(ctx context.Context, directory string) error {
	if _, err := os.Stat(filepath.Join(directory, "docker/registry/v2/repositories")); err != nil {
		return nil // nothing was pushed yet
	}
	driver := filesystem.New(filesystem.DriverParameters{RootDirectory: directory, MaxThreads: 25})
	registry, err := storage.NewRegistry(ctx, driver, storage.EnableDelete)
	if err != nil {
		return err
	}
	return storage.MarkAndSweep(ctx, driver, registry, storage.GCOpts{RemoveUntagged: true, Quiet: true})
}
