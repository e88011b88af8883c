# What this leaves of upstream's provisioner.go is compiled beside main.go: its configuration, what it refuses, the
# PersistentVolumes that it makes, and where they lie. Cut is what helper pods need; the configuration's file, which
# is looked at every 30 s; and pathPattern, whose template could name any path. What of it is called has its own in
# main.go; what upstream changes here ends the build.
/^func NewProvisioner(/,/^}/d
/^func (p \*LocalPathProvisioner) refreshHelperPod(/,/^}/d
/^func (p \*LocalPathProvisioner) watchAndRefreshConfig(/,/^}/d
/^func (p \*LocalPathProvisioner) createHelperPod(/,/^}/d
/^func addVolumeMount(/,/^}/d
/^func saveHelperPodLogs(/,/^}/d
/^func pathFromPattern(/,/^}/d
/^	"bytes"$/d
/^	"io"$/d
/^	"strconv"$/d
/^	"text\/template"$/d
/^	k8serror "k8s.io/d
/^	"k8s.io\/client-go\/rest"$/d
/^	clientset "k8s.io/d
/^	kubeClient  *\*clientset.Clientset$/d
