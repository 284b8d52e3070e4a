package manifest

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// specValidator validates the parts of a pod spec that refer to one another.
type specValidator struct {
	spec *corev1.PodSpec
	// valid are the volumes that a container may mount: those without errors.
	valid map[string]*corev1.Volume
}

// containers validates the regular containers (MAN-13..18).
func (v *specValidator) containers(path *field.Path) field.ErrorList {
	containers := v.spec.Containers
	if len(containers) == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	names := sets.New[string]()
	for i := range containers {
		c, at := &containers[i], path.Index(i)
		errs = append(errs, v.container(c, at)...)
		if names.Has(c.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		}
		names.Insert(c.Name)
		errs = append(errs, v.hooksAndProbes(c, at)...)
		errs = append(errs, validateContainerRestart(c, at)...)
	}
	return append(errs, validateHostPorts(containers, path)...)
}

// initContainers validates init containers and sidecars (MAN-18, MAN-19).
func (v *specValidator) initContainers(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for i := range v.spec.Containers {
		names.Insert(v.spec.Containers[i].Name)
	}
	for i := range v.spec.InitContainers {
		c, at := &v.spec.InitContainers[i], path.Index(i)
		errs = append(errs, v.container(c, at)...)
		if c.RestartPolicy == nil && len(c.RestartPolicyRules) > 0 {
			errs = append(errs, field.Required(at.Child("restartPolicy"), ruleWithoutPolicy))
		} else {
			errs = append(errs, validateContainerRestart(c, at)...)
		}
		if names.Has(c.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		} else if c.Name != "" {
			names.Insert(c.Name)
		}
		// Init containers run one by one: ports conflict within one only. The
		// path, which names the first, is upstream's.
		errs = append(errs, validateHostPorts(v.spec.InitContainers[i:i+1], path)...)
		if isSidecar(c) {
			errs = append(errs, v.hooksAndProbes(c, at)...)
		} else {
			const reason = "may not be set for init containers without restartPolicy=Always"
			for _, f := range []struct {
				name string
				set  bool
			}{{"lifecycle", c.Lifecycle != nil}, {"livenessProbe", c.LivenessProbe != nil}, {"readinessProbe", c.ReadinessProbe != nil}, {"startupProbe", c.StartupProbe != nil}} {
				if f.set {
					errs = append(errs, field.Forbidden(at.Child(f.name), reason))
				}
			}
			for j, p := range c.ResizePolicy {
				if p.RestartPolicy == corev1.RestartContainer {
					errs = append(errs, field.Invalid(at.Child("resizePolicy").Index(j).Child("restartPolicy"), p.RestartPolicy, "must not be set to 'RestartContainer' for non-sidecar initContainers"))
				}
			}
		}
	}
	return errs
}

// container validates what holds for every container.
func (v *specValidator) container(c *corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	add := func(e field.ErrorList) { errs = append(errs, e...) }
	if c.Name == "" {
		add(field.ErrorList{field.Required(path.Child("name"), "")})
	} else {
		add(validateLabelName(c.Name, path.Child("name")))
	}
	if c.Image == "" {
		add(field.ErrorList{field.Required(path.Child("image"), "")})
	}
	add(supportedValue(path.Child("terminationMessagePolicy"), c.TerminationMessagePolicy, corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError))
	add(validatePorts(c.Ports, path.Child("ports")))
	add(validateEnv(c.Env, path.Child("env")))
	add(validateEnvFrom(c.EnvFrom, path.Child("envFrom")))
	add(v.mounts(c, path.Child("volumeMounts")))
	add(supportedValue(path.Child("imagePullPolicy"), c.ImagePullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever))
	add(validateResources(&c.Resources, validateContainerResourceName, path.Child("resources")))
	add(v.resizePolicy(c.ResizePolicy, path.Child("resizePolicy")))
	add(v.securityContext(c.SecurityContext, path.Child("securityContext")))
	return errs
}

func (v *specValidator) resizePolicy(policies []corev1.ContainerResizePolicy, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[corev1.ResourceName]()
	for i, p := range policies {
		if seen.Has(p.ResourceName) {
			errs = append(errs, field.Duplicate(path.Index(i), p.ResourceName))
		}
		seen.Insert(p.ResourceName)
		errs = append(errs, supportedValue(path, p.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)...)
		errs = append(errs, supportedValue(path, p.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)...)
		if v.spec.RestartPolicy == corev1.RestartPolicyNever && p.RestartPolicy != corev1.NotRequired {
			errs = append(errs, field.Invalid(path, p.RestartPolicy, "must be 'NotRequired' when pod `restartPolicy` is 'Never'"))
		}
	}
	return errs
}

// validatePorts validates the ports of one container (MAN-15).
func validatePorts(ports []corev1.ContainerPort, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for i, p := range ports {
		at := path.Index(i)
		if p.Name != "" {
			if m := validation.IsValidPortName(p.Name); len(m) > 0 {
				errs = append(errs, each(at.Child("name"), p.Name, m)...)
			} else if names.Has(p.Name) {
				errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
			}
			names.Insert(p.Name)
		}
		if p.ContainerPort == 0 {
			errs = append(errs, field.Required(at.Child("containerPort"), ""))
		} else {
			errs = append(errs, each(at.Child("containerPort"), p.ContainerPort, validation.IsValidPortNum(int(p.ContainerPort)))...)
		}
		if p.HostPort != 0 {
			errs = append(errs, each(at.Child("hostPort"), p.HostPort, validation.IsValidPortNum(int(p.HostPort)))...)
		}
		errs = append(errs, supportedValue(at.Child("protocol"), p.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
	}
	return errs
}

func validateHostPorts(containers []corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for i := range containers {
		for j, p := range containers[i].Ports {
			if p.HostPort == 0 {
				continue
			}
			key := fmt.Sprintf("%s/%s/%d", p.Protocol, p.HostIP, p.HostPort)
			if seen.Has(key) {
				errs = append(errs, field.Duplicate(path.Index(i).Child("ports").Index(j).Child("hostPort"), key))
			}
			seen.Insert(key)
		}
	}
	return errs
}

const ruleWithoutPolicy = "must specify restartPolicy when restart rules are used"

// validateContainerRestart validates a container's own restart policy (MAN-19).
func validateContainerRestart(c *corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case c.RestartPolicy != nil:
		errs = notSupported(path.Child("restartPolicy"), *c.RestartPolicy, corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)
	case len(c.RestartPolicyRules) > 0:
		errs = field.ErrorList{field.Required(path.Child("restartPolicy"), ruleWithoutPolicy)}
	}
	return append(errs, validateRestartRules(c, path)...)
}

func validateRestartRules(c *corev1.Container, path *field.Path) field.ErrorList {
	const maxRules, maxValues = 20, 255
	var errs field.ErrorList
	if len(c.RestartPolicyRules) > maxRules {
		errs = append(errs, field.TooMany(path.Child("restartPolicyRules"), len(c.RestartPolicyRules), maxRules))
	}
	for i, r := range c.RestartPolicyRules {
		at := path.Child("restartPolicyRules").Index(i)
		errs = append(errs, notSupported(at.Child("action"), r.Action, corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)...)
		if r.ExitCodes == nil {
			errs = append(errs, field.Required(at.Child("exitCodes"), "must be specified"))
			continue
		}
		errs = append(errs, notSupported(at.Child("exitCodes").Child("operator"), r.ExitCodes.Operator, corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)...)
		if len(r.ExitCodes.Values) > maxValues {
			errs = append(errs, field.TooMany(at.Child("exitCodes").Child("values"), len(r.ExitCodes.Values), maxValues))
		}
	}
	return errs
}

// validateEnv validates environment variables (MAN-21, DAPI-01).
func validateEnv(env []corev1.EnvVar, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, e := range env {
		at := path.Index(i)
		if e.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else {
			errs = append(errs, each(at.Child("name"), e.Name, validation.IsRelaxedEnvVarName(e.Name))...)
		}
		if e.ValueFrom != nil {
			errs = append(errs, validateValueFrom(&e, at.Child("valueFrom"))...)
		}
	}
	return errs
}

func validateValueFrom(e *corev1.EnvVar, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	sources := 0
	if f := e.ValueFrom.FieldRef; f != nil {
		sources++
		errs = append(errs, validateFieldRef(f, path.Child("fieldRef"))...)
	}
	if f := e.ValueFrom.ResourceFieldRef; f != nil {
		sources++
		errs = append(errs, validateResourceFieldRef(f, path.Child("resourceFieldRef"))...)
	}
	if f := e.ValueFrom.ConfigMapKeyRef; f != nil {
		sources++
		errs = append(errs, validateKeyRef(f.Name, f.Key, path.Child("configMapKeyRef"))...)
	}
	if f := e.ValueFrom.SecretKeyRef; f != nil {
		sources++
		errs = append(errs, validateKeyRef(f.Name, f.Key, path.Child("secretKeyRef"))...)
	}
	if f := e.ValueFrom.FileKeyRef; f != nil {
		sources++
		errs = append(errs, validateFileKeyRef(f, path.Child("fileKeyRef"))...)
	}
	switch {
	case sources == 0:
		errs = append(errs, field.Invalid(path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"))
	case e.Value != "":
		errs = append(errs, field.Invalid(path, "", "may not be specified when `value` is not empty"))
	case sources > 1:
		errs = append(errs, field.Invalid(path, "", "may not have more than one field specified at a time"))
	}
	return errs
}

func validateKeyRef(name, key string, path *field.Path) field.ErrorList {
	errs := each(path.Child("name"), name, apivalidation.NameIsDNSSubdomain(name, false))
	if key == "" {
		return append(errs, field.Required(path.Child("key"), ""))
	}
	return append(errs, each(path.Child("key"), key, validation.IsConfigMapKey(key))...)
}

func validateFileKeyRef(f *corev1.FileKeySelector, path *field.Path) (errs field.ErrorList) {
	key, volume, file := path.Child("key"), path.Child("volumeName"), path.Child("path")
	if f.Key == "" {
		errs = append(errs, field.Required(key, ""))
	} else {
		errs = append(errs, each(key, f.Key, validation.IsRelaxedEnvVarName(f.Key))...)
	}
	if f.VolumeName == "" {
		errs = append(errs, field.Required(volume, ""))
	} else {
		errs = append(errs, each(volume, f.VolumeName, validation.IsDNS1123Label(f.VolumeName))...)
	}
	if f.Path == "" {
		return append(errs, field.Required(file, ""))
	}
	return append(errs, validateNoBacksteps(f.Path, file)...)
}

// validateFileKeyVolumes makes sure that fileKeyRef names emptyDirs.
func validateFileKeyVolumes(s *corev1.PodSpec, path *field.Path) (errs field.ErrorList) {
	volumes := make(map[string]*corev1.Volume, len(s.Volumes)) // of a name that is there twice the last
	for i := range s.Volumes {
		volumes[s.Volumes[i].Name] = &s.Volumes[i]
	}
	look := func(list []corev1.Container, path *field.Path) {
		for i := range list {
			for j := range list[i].Env {
				from := list[i].Env[j].ValueFrom
				if from == nil || from.FileKeyRef == nil {
					continue
				}
				name, at := from.FileKeyRef.VolumeName, path.Index(i).Child("env").Index(j).Child("valueFrom", "fileKeyRef", "volumeName")
				switch v, ok := volumes[name]; {
				case !ok:
					errs = append(errs, field.NotFound(at, name))
				case v.EmptyDir == nil:
					errs = append(errs, field.Invalid(at, name, "referenced volume must be of type emptyDir"))
				}
			}
		}
	}
	look(s.InitContainers, path.Child("initContainers"))
	look(s.Containers, path.Child("containers"))
	return errs
}

// envFieldPaths are the fields that env can refer to, besides labels and
// annotations by key (DAPI-01).
var envFieldPaths = []string{"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
	"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"}

func validateFieldRef(f *corev1.ObjectFieldSelector, path *field.Path) field.ErrorList {
	if f.APIVersion == "" {
		return field.ErrorList{field.Required(path.Child("apiVersion"), "")}
	}
	if f.FieldPath == "" {
		return field.ErrorList{field.Required(path.Child("fieldPath"), "")}
	}
	unconvertible := func(why string) field.ErrorList {
		return field.ErrorList{field.Invalid(path.Child("fieldPath"), f.FieldPath, "error converting fieldPath: "+why)}
	}
	if f.APIVersion != "v1" {
		return unconvertible("unsupported pod version: " + f.APIVersion)
	}
	if base, key, ok := cutSubscript(f.FieldPath); ok {
		switch base {
		case "metadata.annotations":
			return each(path, strings.ToLower(key), validation.IsQualifiedName(strings.ToLower(key)))
		case "metadata.labels":
			return each(path, key, validation.IsQualifiedName(key))
		}
		return unconvertible("field label does not support subscript: " + f.FieldPath)
	}
	switch f.FieldPath {
	case "metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase":
		// Fields that the API can convert, but that env may not refer to.
		return field.ErrorList{field.NotSupported(path.Child("fieldPath"), f.FieldPath, envFieldPaths)}
	case "spec.host":
		return nil
	}
	for _, p := range envFieldPaths {
		if f.FieldPath == p {
			return nil
		}
	}
	return unconvertible("field label not supported: " + f.FieldPath)
}

// cutSubscript splits metadata.labels['key'].
func cutSubscript(path string) (base, key string, ok bool) {
	if !strings.HasSuffix(path, "']") {
		return path, "", false
	}
	base, key, ok = strings.Cut(strings.TrimSuffix(path, "']"), "['")
	if !ok || base == "" {
		return path, "", false
	}
	return base, key, true
}

var resourceFields = []string{"limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"}

// validateResourceFieldRef validates a reference to the container's resources
// (DAPI-05, DAPI-06).
func validateResourceFieldRef(f *corev1.ResourceFieldSelector, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	huge := strings.HasPrefix(f.Resource, "limits.hugepages-") || strings.HasPrefix(f.Resource, "requests.hugepages-")
	if f.Resource == "" {
		errs = append(errs, field.Required(path.Child("resource"), ""))
	} else if !huge {
		errs = append(errs, notSupported(path.Child("resource"), f.Resource, resourceFields...)...)
	}
	if f.Divisor.IsZero() {
		return errs
	}
	const sizes = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei"
	check := func(allowed, text string) {
		for _, a := range strings.Split(allowed, ", ") {
			if f.Divisor.String() == a {
				return
			}
		}
		errs = append(errs, field.Invalid(path.Child("divisor"), f.Resource, text))
	}
	switch _, what, _ := strings.Cut(f.Resource, "."); {
	case what == "cpu":
		check("1m, 1", "only divisor's values 1m and 1 are supported with the cpu resource")
	case what == "memory":
		check(sizes, "only divisor's values "+sizes+" are supported with the memory resource")
	case what == "ephemeral-storage":
		check(sizes, "only divisor's values "+sizes+" are supported with the local ephemeral storage resource")
	case huge:
		check(sizes, "only divisor's values "+sizes+" are supported with the hugepages resource")
	}
	return errs
}

func validateEnvFrom(from []corev1.EnvFromSource, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, e := range from {
		at := path.Index(i)
		if e.Prefix != "" {
			errs = append(errs, each(at.Child("prefix"), e.Prefix, validation.IsRelaxedEnvVarName(e.Prefix))...)
		}
		ref := func(name string, at *field.Path) {
			if name == "" {
				errs = append(errs, field.Required(at.Child("name"), ""))
				return
			}
			errs = append(errs, each(at.Child("name"), name, apivalidation.NameIsDNSSubdomain(name, true))...)
		}
		if e.ConfigMapRef != nil {
			ref(e.ConfigMapRef.Name, at.Child("configMapRef"))
		}
		if e.SecretRef != nil {
			ref(e.SecretRef.Name, at.Child("secretRef"))
		}
		// The paths without index are upstream's.
		switch {
		case e.ConfigMapRef == nil && e.SecretRef == nil:
			errs = append(errs, field.Invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
		case e.ConfigMapRef != nil && e.SecretRef != nil:
			errs = append(errs, field.Invalid(path, "", "may not have more than one field specified at a time"))
		}
	}
	return errs
}

// hooksAndProbes validates lifecycle hooks and probes (MAN-16, MAN-17).
func (v *specValidator) hooksAndProbes(c *corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	grace := v.spec.TerminationGracePeriodSeconds
	if l := c.Lifecycle; l != nil {
		for _, h := range []struct {
			name string
			*corev1.LifecycleHandler
		}{{"postStart", l.PostStart}, {"preStop", l.PreStop}} {
			if h.LifecycleHandler != nil {
				errs = append(errs, validateHandler(handler{h.Exec, h.HTTPGet, h.TCPSocket, nil, h.Sleep}, grace, path.Child("lifecycle").Child(h.name))...)
			}
		}
	}
	probe := func(name string, p *corev1.Probe) {
		if p == nil {
			return
		}
		at := path.Child(name)
		errs = append(errs, validateHandler(handler{p.Exec, p.HTTPGet, p.TCPSocket, p.GRPC, nil}, grace, at)...)
		for _, n := range []struct {
			name  string
			value int32
		}{{"initialDelaySeconds", p.InitialDelaySeconds}, {"timeoutSeconds", p.TimeoutSeconds}, {"periodSeconds", p.PeriodSeconds}, {"successThreshold", p.SuccessThreshold}, {"failureThreshold", p.FailureThreshold}} {
			errs = append(errs, apivalidation.ValidateNonnegativeField(int64(n.value), at.Child(n.name))...)
		}
		g := p.TerminationGracePeriodSeconds
		if g != nil && *g <= 0 {
			errs = append(errs, field.Invalid(at.Child("terminationGracePeriodSeconds"), *g, "must be greater than 0"))
		}
		if name == "readinessProbe" {
			if g != nil {
				errs = append(errs, field.Invalid(at.Child("terminationGracePeriodSeconds"), *g, "must not be set for readinessProbes"))
			}
		} else if p.SuccessThreshold != 1 {
			errs = append(errs, field.Invalid(at.Child("successThreshold"), p.SuccessThreshold, "must be 1"))
		}
	}
	probe("livenessProbe", c.LivenessProbe)
	probe("readinessProbe", c.ReadinessProbe)
	probe("startupProbe", c.StartupProbe)
	return errs
}

// handler is what probes and hooks have in common.
type handler struct {
	exec  *corev1.ExecAction
	http  *corev1.HTTPGetAction
	tcp   *corev1.TCPSocketAction
	grpc  *corev1.GRPCAction
	sleep *corev1.SleepAction
}

func validateHandler(h handler, grace *int64, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	handlers := 0
	one := func(name string, set bool, validate func(at *field.Path) field.ErrorList) {
		if !set {
			return
		}
		handlers++
		if handlers > 1 {
			errs = append(errs, field.Forbidden(path.Child(name), "may not specify more than 1 handler type"))
			return
		}
		errs = append(errs, validate(path.Child(name))...)
	}
	one("exec", h.exec != nil, func(at *field.Path) field.ErrorList {
		if len(h.exec.Command) == 0 {
			return field.ErrorList{field.Required(at.Child("command"), "")}
		}
		return nil
	})
	one("httpGet", h.http != nil, func(at *field.Path) field.ErrorList { return validateHTTPGet(h.http, at) })
	one("tcpSocket", h.tcp != nil, func(at *field.Path) field.ErrorList { return validatePort(h.tcp.Port, at.Child("port")) })
	one("grpc", h.grpc != nil, func(at *field.Path) field.ErrorList {
		return validatePort(intstr.FromInt32(h.grpc.Port), at.Child("port"))
	})
	one("sleep", h.sleep != nil, func(at *field.Path) field.ErrorList {
		if grace != nil && (h.sleep.Seconds < 0 || h.sleep.Seconds > *grace) {
			return field.ErrorList{field.Invalid(at, h.sleep.Seconds, fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", *grace))}
		}
		return nil
	})
	if handlers == 0 {
		errs = append(errs, field.Required(path, "must specify a handler type"))
	}
	return errs
}

func validateHTTPGet(h *corev1.HTTPGetAction, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if h.Path == "" {
		errs = append(errs, field.Required(path.Child("path"), ""))
	}
	errs = append(errs, validatePort(h.Port, path.Child("port"))...)
	errs = append(errs, notSupported(path.Child("scheme"), h.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)...)
	for _, header := range h.HTTPHeaders {
		errs = append(errs, each(path.Child("httpHeaders"), header.Name, validation.IsHTTPHeaderName(header.Name))...)
	}
	return errs
}

func validatePort(p intstr.IntOrString, path *field.Path) field.ErrorList {
	if p.Type == intstr.Int {
		return each(path, p.IntValue(), validation.IsValidPortNum(p.IntValue()))
	}
	return each(path, p.StrVal, validation.IsValidPortName(p.StrVal))
}

func (v *specValidator) securityContext(c *corev1.SecurityContext, path *field.Path) field.ErrorList {
	if c == nil {
		return nil
	}
	var errs field.ErrorList
	if c.RunAsUser != nil {
		errs = append(errs, each(path.Child("runAsUser"), *c.RunAsUser, validation.IsValidUserID(*c.RunAsUser))...)
	}
	if c.RunAsGroup != nil {
		errs = append(errs, each(path.Child("runAsGroup"), *c.RunAsGroup, validation.IsValidGroupID(*c.RunAsGroup))...)
	}
	if c.ProcMount != nil {
		errs = append(errs, notSupported(path.Child("procMount"), *c.ProcMount, corev1.DefaultProcMount, corev1.UnmaskedProcMount)...)
		if *c.ProcMount == corev1.UnmaskedProcMount && (v.spec.HostUsers == nil || *v.spec.HostUsers) {
			errs = append(errs, field.Invalid(path.Child("procMount"), c.ProcMount, "`hostUsers` must be false to use `Unmasked`"))
		}
	}
	errs = append(errs, validateSeccomp(c.SeccompProfile, path.Child("seccompProfile"))...)
	// SEC-07
	if c.AllowPrivilegeEscalation != nil && !*c.AllowPrivilegeEscalation {
		if c.Privileged != nil && *c.Privileged {
			errs = append(errs, field.Invalid(path, c, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"))
		}
		if c.Capabilities != nil {
			for _, capability := range c.Capabilities.Add {
				if capability == "CAP_SYS_ADMIN" {
					errs = append(errs, field.Invalid(path, c, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"))
				}
			}
		}
	}
	return errs
}

func validateSeccomp(p *corev1.SeccompProfile, path *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	var errs field.ErrorList
	if p.Type == "" {
		errs = append(errs, field.Required(path.Child("type"), "type is required when seccompProfile is set"))
	} else {
		errs = append(errs, notSupported(path.Child("type"), p.Type, corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)...)
	}
	switch at := path.Child("localhostProfile"); {
	case p.Type != corev1.SeccompProfileTypeLocalhost && p.LocalhostProfile != nil:
		errs = append(errs, field.Invalid(at, p, "can only be set when seccomp type is Localhost"))
	case p.Type == corev1.SeccompProfileTypeLocalhost && p.LocalhostProfile == nil:
		errs = append(errs, field.Required(at, "must be set when seccomp type is Localhost"))
	case p.Type == corev1.SeccompProfileTypeLocalhost:
		errs = append(errs, validateDescending(*p.LocalhostProfile, at)...)
	}
	return errs
}
