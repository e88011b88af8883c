// The Dockerfile copies this file beside the main.go of each component that uses it.
package main

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"syscall"
	"time"
)

// How often an idle component's garbage is looked at, and how much is worth a collection, in bytes.
const (
	idleEvery   = 30 * time.Second
	idleGarbage = 8 << 20
)

// settle makes a component quiet once its start is over.
//
// Garbage is collected as usual, where GOGC and GOMEMLIMIT in the environment had made it rare, and what
// the start allocated is given back to the kernel. And the component's timers may from then on be late by
// slack: it has up to a hundred of them a second, even when idle, and each time that the kernel wakes
// it costs more than what it then does; so one wake serves several timers. What a component is sent
// still wakes it at once. See PR_SET_TIMERSLACK in prctl(2).
func settle(slack time.Duration) {
	liftLimit()
	time.AfterFunc(15*time.Second, func() {
		debug.SetMemoryLimit(math.MaxInt64)
		debug.SetGCPercent(100)
		debug.FreeOSMemory()
		if _, _, failure := syscall.AllThreadsSyscall(syscall.SYS_PRCTL, syscall.PR_SET_TIMERSLACK, uintptr(slack), 0); failure != 0 {
			fmt.Fprintln(os.Stderr, "timers stay exact:", failure)
		}
		collectIdle()
	})
}

// liftLimit ends GOMEMLIMIT as soon as two thirds of it are alive, as after a restart with much data.
//
// The limit keeps garbage from spreading what stays over more memory than it needs, for good. Where that
// is what is needed, there would be no end of collecting.
func liftLimit() {
	limit := debug.SetMemoryLimit(-1)
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	var look func(*[64]byte)
	watch := func() { runtime.SetFinalizer(new([64]byte), look) } // called after the next collection
	look = func(*[64]byte) {
		if debug.SetMemoryLimit(-1) == math.MaxInt64 {
			return
		}
		if metrics.Read(live); live[0].Value.Uint64() > uint64(limit/3*2) {
			debug.SetMemoryLimit(math.MaxInt64)
			return
		}
		watch()
	}
	watch()
}

// collectIdle gives back an idle component's garbage before it is as much as what is alive, which takes
// kube-apiserver minutes: it alone has so much of it. A busy component collects by itself, and is left alone.
func collectIdle() {
	samples := []metrics.Sample{
		{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
	}
	metrics.Read(samples)
	before := samples[0].Value.Uint64()
	for range time.Tick(idleEvery) {
		metrics.Read(samples)
		cycles, live, allocated := samples[0].Value.Uint64(), samples[1].Value.Uint64(), samples[2].Value.Uint64()
		if cycles == before && allocated > live+idleGarbage {
			debug.FreeOSMemory()
			cycles++
		}
		before = cycles
	}
}
