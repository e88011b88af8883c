// The Dockerfile copies this file beside the main.go of each component that uses it.
package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"time"
)

// settle makes a component quiet once its start is over.
//
// Garbage is collected as usual, where GOGC in the environment had made it rare, and what the start
// allocated is given back to the kernel. And the component's timers may from then on be late by
// slack: it has up to a hundred of them a second, even when idle, and each time that the kernel wakes
// it costs more than what it then does; so one wake serves several timers. What a component is sent
// still wakes it at once. See PR_SET_TIMERSLACK in prctl(2).
func settle(slack time.Duration) {
	time.AfterFunc(15*time.Second, func() {
		debug.SetGCPercent(100)
		debug.FreeOSMemory()
		if _, _, failure := syscall.AllThreadsSyscall(syscall.SYS_PRCTL, syscall.PR_SET_TIMERSLACK, uintptr(slack), 0); failure != 0 {
			fmt.Fprintln(os.Stderr, "timers stay exact:", failure)
		}
	})
}
