// Package upstream compares wasmpod with Kubernetes itself: the same manifests
// go through our reader and through upstream's decoder, defaulter and
// validator. It is a module of its own because k8s.io/kubernetes would force
// its replace lines on everyone who imports wasmpod.
package upstream
