// Package service computes what Services and NetworkPolicies mean for the pods
// of a node: where a connection to a Service goes, whether a pod may reach
// another, and which names the cluster DNS has.
//
// It is pure. A Table is made of objects and answers questions; who asks keeps
// what changes between two answers, such as whose turn it is.
package service
