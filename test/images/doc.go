// Package images tests images against what others have: the registry of the
// distribution project, Debian's docker-registry, crane and skopeo.
package images
