// Package workload turns workload objects into the Pods they stand for: what
// the Deployment, ReplicaSet, StatefulSet, DaemonSet and Job controllers would
// create on a cluster of one node (WL-22, WL-26).
//
// It is pure: chance comes in as a function, and a Job's progress is computed
// anew from its pods each time.
package workload
