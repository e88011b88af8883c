// local-path-provisioner without helper pods. Upstream's provisioner.go, cut by cut.sed, decides what a claim
// gets; the directories are made and removed here, in the process itself: it runs on the node that has them. So a
// claim takes milliseconds instead of two pods' starts, and no image with a shell is needed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/Sirupsen/logrus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	storagev1 "k8s.io/client-go/kubernetes/typed/storage/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	pvController "sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"
)

// Upstream's default, so that StorageClasses which were written for it can be used.
const name = "rancher.io/local-path"

// How long what failed waits for its next try: room on the disk may be made at any moment.
const (
	shortestRetry = time.Second
	longestRetry  = 30 * time.Second
)

func main() {
	settle(50 * time.Millisecond)
	if len(os.Args) != 2 {
		logrus.Fatalf("usage: %s DIRECTORY", os.Args[0])
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, filepath.Clean(os.Args[1])); err != nil {
		logrus.Fatal(err)
	}
}

// run provisions volumes in the directory until the context is done.
func run(ctx context.Context, directory string) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 100, 200
	client, err := connect(config)
	if err != nil {
		return err
	}
	// Pods get their own directory by a mount; nobody else on the node has a way in.
	if err := os.Chmod(directory, 0o700); err != nil {
		return err
	}
	if err := sweep(ctx, client, directory); err != nil {
		return err
	}
	paths := StorageClassConfigData{
		NodePathMap: []*NodePathMapData{{Node: NodeDefaultNonListedNodes, Paths: []string{directory}}},
	}
	text, err := json.Marshal(ConfigData{StorageClassConfigData: paths})
	if err != nil {
		return err
	}
	provisioner := &LocalPathProvisioner{ctx: ctx, configFile: string(text), configMutex: &sync.RWMutex{}}
	if err := provisioner.refreshConfig(); err != nil {
		return err
	}
	pvController.NewProvisionController(klog.FromContext(ctx), client, name, provisioner,
		pvController.LeaderElection(false),
		// A volume that is deleted before its claim takes its directory along too.
		pvController.AddFinalizer(true),
		pvController.RateLimiter(workqueue.NewItemExponentialFailureRateLimiter(shortestRetry, longestRetry)),
		pvController.FailedProvisionThreshold(0),
		pvController.FailedDeleteThreshold(0),
	).Run(ctx)
	return nil
}

// clients are those of the groups that are used; client-go.sed has cut the set that has all. Of the others a call
// would panic, and none is made: no leader is elected.
type clients struct {
	kubernetes.Interface
	core    corev1.CoreV1Interface
	storage storagev1.StorageV1Interface
}

func (c *clients) CoreV1() corev1.CoreV1Interface { return c.core }

func (c *clients) StorageV1() storagev1.StorageV1Interface { return c.storage }

func connect(config *rest.Config) (*clients, error) {
	core, err := corev1.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	storage, err := storagev1.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &clients{core: core, storage: storage}, nil
}

// sweep removes empty directories that no volume has: those of claims that went while the provisioner was
// killed between the directory and the volume. What holds anything is left alone, whatever the API says.
func sweep(ctx context.Context, client kubernetes.Interface, directory string) error {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return err
	}
	volumes, err := client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, volume := range volumes.Items {
		known[volume.Name] = true
	}
	for _, entry := range entries {
		// pvc-UID_NAMESPACE_CLAIM; see Provision.
		volume, _, made := strings.Cut(entry.Name(), "_")
		if !made || known[volume] {
			continue
		}
		err := syscall.Rmdir(filepath.Join(directory, entry.Name()))
		switch {
		case err == nil:
			logrus.Infof("removed %s: it is empty, and no volume's", entry.Name())
		case errors.Is(err, syscall.ENOTEMPTY):
			logrus.Warnf("%s is no volume's, and not empty: it is left alone", entry.Name())
		case !errors.Is(err, syscall.ENOTDIR):
			return err
		}
	}
	return nil
}

// createHelperPod is what upstream does with a pod: a volume's directory is made, or removed. Both
// can be done again where a try was interrupted.
func (p *LocalPathProvisioner) createHelperPod(action ActionType, _ []string, o volumeOptions, c *StorageClassConfig) error {
	directory, err := p.getPathOnNode(o.Node, "", c)
	if err != nil {
		return err
	}
	// Anybody who may make volumes can give one any path.
	if path := filepath.Clean(o.Path); filepath.Dir(path) != directory || path != o.Path {
		return fmt.Errorf("%s is not a directory of %s", o.Path, directory)
	}
	if action == ActionTypeDelete {
		return os.RemoveAll(o.Path)
	}
	var found syscall.Statfs_t
	if err := syscall.Statfs(directory, &found); err != nil {
		return &os.PathError{Op: "statfs", Path: directory, Err: err}
	}
	// A directory alone may still find its place; then it would be the pod that fails, at its first write.
	if found.Bavail == 0 {
		return &os.PathError{Op: "mkdir", Path: o.Path, Err: syscall.ENOSPC}
	}
	if err := os.Mkdir(o.Path, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	// As upstream has it: whatever user a pod runs as. The umask has taken some of it.
	return os.Chmod(o.Path, 0o777)
}

// pathFromPattern refuses what upstream would fill in, the StorageClass parameter pathPattern.
func pathFromPattern(_ string, _ pvController.ProvisionOptions) (string, error) {
	return "", errors.New("pathPattern is not supported: volumes lie where they cannot clash")
}
