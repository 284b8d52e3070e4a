;; The infra module of a pod: it owns what the pod's containers share for as
;; long as it runs, and it runs until it is killed. It sleeps in poll_oneoff with
;; one clock subscription that never expires: the host takes timeouts of 2^62 ns
;; and more as no timer at all, so that a test's fake clock stands still.
(module
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll_oneoff (param $in i32) (param $out i32) (param $count i32) (param $nevents i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1 1)
  (func (export "_start") (local $errno i32)
    ;; A subscription at 0: userdata 0, tag 0 (clock), clock id 1 (monotonic) at
    ;; 16, timeout at 24, precision 0 at 32, flags 0 (relative) at 40.
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const -1))
    (loop $again
      ;; The event goes to 48, the number of events to 80. EINTR (27) is no
      ;; failure; after any other the loop would only spin.
      (local.set $errno
        (call $poll_oneoff (i32.const 0) (i32.const 48) (i32.const 1) (i32.const 80)))
      (br_if $again (i32.eqz (local.get $errno)))
      (br_if $again (i32.eq (local.get $errno) (i32.const 27))))
    (call $proc_exit (i32.const 1))))
