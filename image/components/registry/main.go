// registry serves one directory by distribution's own handlers: `registry serve -address=:5000 DIRECTORY`. Without the
// cloud drivers it has less than half of the size, and it collects what no tag names by itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

// How long requests may take that have begun when the registry is to end.
const drain = time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "registry:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 3 && arguments[0] == "own" {
		return own(arguments[1], arguments[2])
	}
	flags := flag.NewFlagSet("registry", flag.ContinueOnError)
	address := flags.String("address", ":5000", "where it listens")
	quiet := flags.Duration("quiet", 10*time.Minute, "without a write, until what no tag names is collected")
	if len(arguments) == 0 || arguments[0] != "serve" || flags.Parse(arguments[1:]) != nil || flags.NArg() != 1 {
		return errors.New("usage: registry serve [-address=:5000] [-quiet=10m] DIRECTORY | registry own DIRECTORY UID")
	}
	return serve(*address, flags.Arg(0), *quiet)
}

// own gives a directory to a user, who then needs no root to serve it.
func own(directory, user string) error {
	uid, err := strconv.Atoi(user)
	if err != nil {
		return err
	}
	return os.Chown(directory, uid, uid)
}

func serve(address, directory string, quiet time.Duration) error {
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	settle(100 * time.Millisecond)
	// At once: whoever asks before it serves waits, and is not refused.
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	config := &configuration.Configuration{Storage: configuration.Storage{
		"filesystem": {"rootdirectory": directory},
		"delete":     {"enabled": true},
	}}
	// No cache of blobs is configured: it would know those that a collection has removed.
	guarded := &guard{next: handlers.NewApp(context.Background(), config)}
	collect := func() {
		if err := sweep(ended, directory); err != nil {
			fmt.Fprintln(os.Stderr, "registry: nothing is collected:", err)
		}
	}
	collect() // nobody writes yet
	go guarded.collectWhenQuiet(quiet, collect)
	server := &http.Server{Handler: guarded, ReadHeaderTimeout: time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ended.Done():
	}
	bounded, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	return server.Shutdown(bounded)
}
