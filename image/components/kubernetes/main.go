// One binary for all of Kubernetes' own components: the name it is called by says which one it is.
// One file on disk, and pages of code that the kernel shares between the components.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
	_ "time/tzdata" // time zones of CronJobs

	"github.com/spf13/cobra"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

type daemon struct {
	command func() *cobra.Command
	slack   time.Duration // see settle
}

var daemons = map[string]daemon{
	"kube-apiserver":          {apiserver.NewAPIServerCommand, 100 * time.Millisecond},
	"kube-controller-manager": {controllermanager.NewControllerManagerCommand, 50 * time.Millisecond},
	"kube-proxy":              {proxy.NewProxyCommand, 50 * time.Millisecond},
	"kube-scheduler":          {func() *cobra.Command { return scheduler.NewSchedulerCommand() }, 50 * time.Millisecond},
	// A pod's start waits for timers of kubelet's.
	"kubelet": {func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }, 10 * time.Millisecond},
}

func main() {
	name := filepath.Base(os.Args[0])
	if daemon, found := daemons[name]; found {
		settle(daemon.slack)
		os.Exit(cli.Run(daemon.command()))
	}
	if name != "kubectl" {
		fmt.Fprintf(os.Stderr, "%s: call this by the name of a component, such as kubelet or kubectl\n", name)
		os.Exit(2)
	}
	logs.GlogSetter(kubectl.GetLogVerbosity(os.Args)) // as kubectl's own main: before flags are read
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}
