// Command kube is etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl in one program.
//
// The first argument chooses, and the rest is what the chosen one understands. One build of one program takes
// half of what five would.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	// As the programs of Kubernetes itself: the format of logs, and metrics of its clients and of the version.
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlerrors "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

func main() {
	if len(os.Args) < 2 {
		refuse("usage: kube PROGRAM [ARGUMENT...]")
	}
	// Each of them takes its name from its first argument.
	os.Args = os.Args[1:]
	switch name := os.Args[0]; name {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		run(apiserver.NewAPIServerCommand())
	case "kube-controller-manager":
		run(controllers.NewControllerManagerCommand())
	case "kube-scheduler":
		run(scheduler.NewSchedulerCommand())
	case "kubectl":
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			kubectlerrors.CheckErr(err)
		}
	default:
		refuse(fmt.Sprintf("unknown program %q", name))
	}
}

func run(program *cobra.Command) {
	os.Exit(cli.Run(program))
}

func refuse(message string) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(2)
}
