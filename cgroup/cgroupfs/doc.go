// Package cgroupfs makes groups of the kernel's resource controllers: the outer
// wall around the process that runs pods, and around processes of pods. It works
// on cgroup v2, on v1, and where both are mounted.
//
// Everything lies below one group of our own, which [Open] makes in a parent that
// the operator names:
//
//	<parent>/wasmpod-<id>/kubepods/shared                the process itself
//	<parent>/wasmpod-<id>/kubepods/pod<uid>              Guaranteed
//	<parent>/wasmpod-<id>/kubepods/burstable/pod<uid>
//	<parent>/wasmpod-<id>/kubepods/besteffort/pod<uid>
//
// or, with [Config.Bare], is one group of v2 for the process, without controllers.
//
// # What is touched
//
// Nothing that this package has not made, with one exception: on v2 it enables
// controllers in the parent, if they are not enabled yet, which is what a parent
// is delegated for, and disables them again in the end. It writes to no group
// above the parent, and moves no process but the one it is asked to.
//
// A group is made with mkdir, which fails if there is one; its name has 64 random
// bits. Before that the name is recorded in a file that is locked while its owner
// lives. Whoever opens a Manager with the same directory of records removes the
// groups of owners that are gone, if no process is in them: [rmdir] does not remove
// others, and nothing here kills.
//
// # The library
//
// Limits are written and statistics read by opencontainers/cgroups, which runc
// and the kubelet use: it knows the files of both versions and opens them so that
// nothing but a file of a cgroup filesystem can be meant. Groups are made and
// processes moved here, because the library does both at once, in every hierarchy,
// and enables controllers from the root down.
//
// [rmdir]: https://man7.org/linux/man-pages/man2/rmdir.2.html
package cgroupfs
