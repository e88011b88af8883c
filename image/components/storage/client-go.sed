# What this leaves of client-go is the three groups of the API that are used (coordination's by code that is never
# called). The twenty others would be a third of the binary, and are in every process that imports them: their types
# are registered when it starts. The Dockerfile names the files.
/"k8s\.io\/api\//{/\/\(coordination\|core\|storage\)\//!d}
/"k8s\.io\/client-go\/kubernetes\/typed\//{/\/\(coordination\|core\|storage\)\//!d}
/"k8s\.io\/client-go\/informers\//{/\/\(coordination\|core\|internalinterfaces\|storage\)"/!d}
/^	[a-z0-9]*\.AddToScheme,$/{/^	\(coordination\|core\|storage\)v/!d}
/^	[A-Z][A-Za-z0-9]*() .*Interfaces*$/{/^	\(Coordination\|Core\|Storage\)[V(]/!d}
/^func (f \*sharedInformerFactory) [A-Za-z]*() [a-z]*\.Interface {$/{/) \(Coordination\|Core\|Storage\)()/!{N;N;d}}
/^	case .*SchemeGroupVersion/{N;/f\.\(Coordination\|Core\|Storage\)()/!d}
# The clients themselves: main.go has those that it needs.
/^\/\/ Clientset contains the clients/,$d
/^	fmt "fmt"$/{N;/net\/http/d}
/^	\(discovery\|rest\|flowcontrol\) "k8s\.io\/client-go\/\(discovery\|rest\|util\/flowcontrol\)"$/d
/^func NewFromKubeconfig(/,/^}/d
/^	"time"$/d
/^	\(clientset\|restclient\) "k8s\.io\/client-go\/\(kubernetes\|rest\)"$/d
